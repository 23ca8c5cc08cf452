"""Tells which kind of file system a path is on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = re.compile(
    r"nfs4?|cifs|smb\w*|9p|virtiofs|fuse\.(sshfs|s3fs|rclone|gcsfuse|glusterfs|ceph\S*)|ceph|afs|lustre|beegfs|gfs2|ocfs2|gpfs"
)


def file_system(path: Path, mounts: str | None = None) -> str | None:
    """The type of the file system the path is on, such as `ext4`; None where the kernel does not tell.

    `mounts` is a table as in /proc/self/mountinfo.
    """
    try:
        table = _MOUNTS.read_text(errors="surrogateescape") if mounts is None else mounts
    except OSError:
        return None
    where, kind = Path("/"), None
    real = path.resolve()
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        if len(before.split()) < 5 or not after:
            continue
        mount = Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), before.split()[4]))
        # Of two mounts on one point the later one is seen.
        if real.is_relative_to(mount) and len(mount.parts) >= len(where.parts):
            where, kind = mount, after.split()[0]
    return kind


def is_network(kind: str | None) -> bool:
    """Whether a file system of this type is another host's."""
    return kind is not None and _NETWORK.fullmatch(kind) is not None
