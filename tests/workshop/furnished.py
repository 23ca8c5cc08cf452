"""A tree with one of everything that is hard to archive, all in one place."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

SECOND = 1_000_000_000


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """An access list as the kernel has it: tag, rights, number."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def furnish(root: Path) -> None:
    """One of everything that is hard to archive."""
    top = os.fsencode(root)
    for name in (
        b"latin-\xe4\xff",
        b'quo"te\\\n\t\x7f',
        "é ü".encode(),
        b"-rf",
        b"--checkpoint=1",
        b"*",
        b" ",
        b"n" * 255,
    ):
        Path(os.fsdecode(top + b"/" + name)).write_bytes(name)
    long = root / ("x" * 200) / ("y" * 200)
    long.mkdir(parents=True)
    (long / "z").write_text("long")
    (root / "to-long").symlink_to("t" * 300)
    (root / "to-latin").symlink_to(os.fsdecode(b"\xff"))
    (root / "hollow").mkdir(mode=0o2750)
    (root / "empty").write_bytes(b"")
    (root / "whole-blocks").write_bytes(b"w" * 1024)
    os.link(root / "plain", root / "d" / "hard")
    os.link(root / "to-long", root / "d" / "hard-symlink", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    (root / "d" / "a").chmod(0o6751)
    for at, name in enumerate(("before-1970", "just-before", "after-2106")):
        (root / name).write_text(name)
        time_ns = (-(10**9) * SECOND - 250_000_001, -1, 5 * 10**9 * SECOND + 1)[at]
        os.utime(root / name, ns=(time_ns, time_ns))
    os.utime(root / "whole-blocks", ns=(0, 7 * SECOND))
    for name, regions in {"hole": (), "holes": (0, 1 << 20, 3 << 20), "ends-in-data": ((8 << 20) - 3,)}.items():
        with (root / name).open("wb") as file:
            for at in regions:
                file.seek(at)
                file.write(b"xyz")
            file.truncate(8 << 20)
    os.setxattr(root / "plain", "user.a=b%c", b"value\0\n\xff")
    os.setxattr(root / "d", "user.of-directory", b"")
    access = access_list(
        (1, 7, 2**32 - 1), (2, 4, 3_000_000_000), (4, 5, 2**32 - 1), (16, 5, 2**32 - 1), (32, 0, 2**32 - 1)
    )
    os.setxattr(root / "d" / "sub" / "deep", "system.posix_acl_access", access)
    os.setxattr(root / "d" / "sub", "system.posix_acl_default", access)
    if os.geteuid() == 0:
        os.mknod(root / "device", stat.S_IFCHR | 0o606, os.makedev(250, 70_000))
        os.mknod(root / "block-device", stat.S_IFBLK | 0o600, os.makedev(7, 1))
        os.chown(root / "empty", 12_345, 3_000_000_000)
        os.chown(root / "to-latin", 4_000_000, 99, follow_symlinks=False)
        os.setxattr(root / "plain", "security.capability", b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
        os.setxattr(root / "to-latin", "trusted.of-link", b"1", follow_symlinks=False)
        os.setxattr(root / "fifo", "trusted.of-fifo", b"2", follow_symlinks=False)
