"""Says in words what is wrong with the numbers of a file."""

from __future__ import annotations

import os
import stat


def wrong_attributes(
    found: os.stat_result,
    *,
    size: int | None,
    mode: int | None,
    mtime_ns: int,
    device: tuple[int, int] | None,
    owner: tuple[int, int] | None,
) -> list[str]:
    """Each number that is not the one it should be; None for what does not matter."""
    wrong = []
    if size is not None and found.st_size != size:
        wrong.append(f"has {found.st_size} bytes, not {size}")
    if mode is not None and stat.S_IMODE(found.st_mode) != mode:
        wrong.append(f"has mode {stat.S_IMODE(found.st_mode):04o}, not {mode:04o}")
    if found.st_mtime_ns != mtime_ns:
        wrong.append(f"was changed at {found.st_mtime_ns} ns, not at {mtime_ns} ns")
    if device is not None and (os.major(found.st_rdev), os.minor(found.st_rdev)) != device:
        wrong.append(f"is device {os.major(found.st_rdev)},{os.minor(found.st_rdev)}, not {device}")
    if owner is not None and (found.st_uid, found.st_gid) != owner:
        wrong.append(f"belongs to {found.st_uid}:{found.st_gid}, not {owner[0]}:{owner[1]}")
    return wrong
