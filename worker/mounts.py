"""Tells which kind of file system a path is on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

MOUNTS: Final = Path("/proc/self/mountinfo")
"""The kernel's table of what is mounted where."""
_NETWORK: Final = re.compile(
    r"nfs4?|cifs|smb\w*|9p|virtiofs|fuse\.(sshfs|s3fs|rclone|gcsfuse|glusterfs|ceph\S*)|ceph|afs|lustre|beegfs|gfs2|ocfs2|gpfs"
)


class _Mount(NamedTuple):
    device: int
    point: Path
    kind: str


def file_system(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system the path is on, such as `ext4`; None where the kernel does not tell.

    `mounts` is a table as in /proc/self/mountinfo.
    """
    where, kind = Path("/"), None
    real = path.resolve()
    for mount in _mounts(mounts):
        # Of two mounts on one point the later one is seen.
        if real.is_relative_to(mount.point) and len(mount.point.parts) >= len(where.parts):
            where, kind = mount.point, mount.kind
    return kind


def kinds_by_device(mounts: str | None = None) -> Mapping[int, str]:
    """The types of the file systems by their device number, as in `st_dev`; some have further numbers (btrfs)."""
    return {mount.device: mount.kind for mount in _mounts(mounts)}


def is_network(kind: str | None) -> bool:
    """Whether a file system of this type is another host's."""
    return kind is not None and _NETWORK.fullmatch(kind) is not None


def _mounts(table: str | None) -> Iterator[_Mount]:
    try:
        text = MOUNTS.read_text(errors="surrogateescape") if table is None else table
    except OSError:
        return
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        major, _, minor = fields[2].partition(":")
        point = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
        yield _Mount(os.makedev(int(major), int(minor)), point, after.split()[0])
