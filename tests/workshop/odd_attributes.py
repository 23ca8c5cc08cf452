"""Files with odd attributes: extended ones, access lists, capabilities, modes, owners, times, numbers of devices."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from tests.workshop.places import Unheld

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""That of `ping`."""


def access_list(place: Path, kind: str, *entries: tuple[int, int, int]) -> None:
    """Set a list as the kernel has it: tag, permissions, number."""
    value = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, permissions, number % 2**32) for tag, permissions, number in entries
    )
    os.setxattr(place, f"system.posix_acl_{kind}", value)


def named_user(number: int, permissions: int) -> tuple[tuple[int, int, int], ...]:
    """A list that lets one more user in."""
    return (1, 7, -1), (2, permissions, number), (4, 5, -1), (16, 7, -1), (32, 0, -1)


def make_attributes(root: Path) -> None:
    """As they are at first."""
    (root / "d/e").mkdir(parents=True)
    for name in ("f", "loses", "gains"):
        (root / name).write_text(name)
    os.setxattr(root / "f", "user.empty", b"")
    os.setxattr(root / "f", "user.binary", bytes(range(256)))
    os.setxattr(root / "f", "user.text", b"one=1\ntwo=2\n")
    os.setxattr(root / "f", "user.a=b%3D c", b"odd name")
    os.setxattr(root / "loses", "user.gone", b"soon")
    os.setxattr(root / "d", "user.gone", b"from a directory")
    os.setxattr(root / "d/e", "user.stays", b"old")
    if os.geteuid() == 0:
        os.setxattr(root / "f", "trusted.key", b"\0\xff")
        os.setxattr(root / "d", "trusted.gone", b"too")
        (root / "link").symlink_to("nowhere")
        os.setxattr(root / "link", "trusted.of a link", b"yes", follow_symlinks=False)
        os.mkfifo(root / "pipe")
        os.setxattr(root / "pipe", "trusted.of a pipe", b"yes")
    try:
        os.setxattr(root / "f", "user.large", os.urandom(60 << 10))
    except OSError as error:
        raise Unheld(f"an attribute of 60 KiB: {error.strerror}") from error


def change_attributes(root: Path) -> None:
    """Between the levels."""
    os.setxattr(root / "f", "user.empty", b"no longer")
    os.removexattr(root / "loses", "user.gone")
    os.removexattr(root / "d", "user.gone")
    os.setxattr(root / "d/e", "user.stays", b"new")
    os.setxattr(root / "gains", "user.new", b"new")
    if os.geteuid() == 0:
        os.removexattr(root / "d", "trusted.gone")


def make_access_lists(root: Path) -> None:
    """As they are at first."""
    for name in ("loses", "keeps", "turns"):
        (root / name).mkdir()
        access_list(root / name, "access", *named_user(12345, 5))
        access_list(root / name, "default", *named_user(5, 6))
        # These inherit.
        (root / name / "f").write_text("f")
        (root / name / "d").mkdir()
    (root / "plain").write_text("plain")
    (root / "keeps/plain").write_text("no list")
    os.removexattr(root / "keeps/plain", "system.posix_acl_access")
    (root / "keeps/plain").chmod(0o640)


def change_access_lists(root: Path) -> None:
    """Between the levels."""
    for kind in ("access", "default"):
        os.removexattr(root / "loses", f"system.posix_acl_{kind}")
    access_list(root / "turns", "default", *named_user(13, 0))
    access_list(root / "plain", "access", *named_user(2**31, 4))
    (root / "keeps/new").write_text("new")
    (root / "loses/new").write_text("new")
    (root / "loses").chmod(0o711)


def make_capabilities(root: Path) -> None:
    """As they are at first."""
    for name in ("ping", "loses", "gains"):
        (root / name).write_text(name)
        os.chown(root / name, 12345, 54321)
        (root / name).chmod(0o755)
    for name in ("ping", "loses"):
        os.setxattr(root / name, "security.capability", CAPABILITY)


def change_capabilities(root: Path) -> None:
    """Between the levels."""
    os.removexattr(root / "loses", "security.capability")
    os.setxattr(root / "gains", "security.capability", CAPABILITY)


def make_modes(root: Path) -> None:
    """As they are at first."""
    for mode in (0o4755, 0o2711, 0o6777, 0o1644, 0o000, 0o400, 0o200, 0o111, 0o7777):
        (root / f"f{mode:04o}").write_text("x")
        (root / f"f{mode:04o}").chmod(mode if os.geteuid() == 0 else mode | 0o400)
    for mode in (0o1777, 0o2755, 0o3770, 0o4755, 0o700, 0o7777):
        (root / f"d{mode:04o}").mkdir()
        (root / f"d{mode:04o}/f").write_text("x")
        (root / f"d{mode:04o}").chmod(mode)


def change_modes(root: Path) -> None:
    """Between the levels."""
    (root / "f4755").chmod(0o755)
    (root / "f0400").chmod(0o4711)
    (root / "d2755").chmod(0o755)
    (root / "d0700").chmod(0o2700)
    (root / "d1777/new").write_text("new")


def make_devices(root: Path) -> None:
    """As they are at first."""
    os.mkfifo(root / "pipe", 0o640)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(7, 9))
    os.mknod(root / "large", 0o600 | stat.S_IFBLK, os.makedev(4095, 1_048_575))
    os.chown(root / "disk", 0, 6)


def change_devices(root: Path) -> None:
    """Between the levels."""
    (root / "null").unlink()
    os.mknod(root / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    (root / "pipe").chmod(0o600)


SECOND = 1_000_000_000
TIMES = {
    "half a second before 1970": -SECOND // 2,
    "a nanosecond before 1970": -1,
    "a nanosecond after 1970": 1,
    "1970": 0,
    "a second before 1970": -SECOND,
    "1969": -86_400 * SECOND + 123_456_789,
    "1902": -2_140_000_000 * SECOND + 1,
    "1901": -2_147_483_648 * SECOND,
    "2038": 2_147_483_647 * SECOND + 999_999_999,
    "after 2038": 2_147_483_648 * SECOND + 1,
    "2106": 4_294_967_296 * SECOND + 7,
    "2242": 8_589_934_592 * SECOND + 5,
    "2446": 15_032_385_534 * SECOND + 999_999_999,
    "after 2446": 15_032_385_536 * SECOND,
    "1900": -2_208_988_801 * SECOND + 3,
    "1600": -11_676_096_000 * SECOND + 500,
    "2262": 9_223_372_036 * SECOND,
}
"""Within the 64 bits of nanoseconds that Python passes on."""


def make_times(root: Path) -> None:
    """As they are at first."""
    unheld = []
    for name, time in TIMES.items():
        for place in (root / name, root / f"{name} dir", root / f"{name} link"):
            if place.name.endswith("dir"):
                place.mkdir()
            elif place.name.endswith("link"):
                place.symlink_to("x")
            else:
                place.write_text(name)
            os.utime(place, ns=(0, time), follow_symlinks=False)
            if place.lstat().st_mtime_ns != time:
                unheld.append(name)
    if unheld:
        raise Unheld(f"times: {', '.join(dict.fromkeys(unheld))}")


def change_times(root: Path) -> None:
    """Between the levels."""
    for one, other in zip(list(TIMES)[::2], list(TIMES)[1::2], strict=False):
        for end in ("", " dir", " link"):
            os.utime(root / f"{one}{end}", ns=(0, TIMES[other]), follow_symlinks=False)


def make_owners(root: Path) -> None:
    """As they are at first."""
    for number in (1, 65534, 2_097_151, 2_097_152, 2**31 - 1, 2**31, 2**32 - 2):
        (root / str(number)).write_text("x")
        os.chown(root / str(number), number, 2**32 - 1 - number)
        (root / f"{number}.d").mkdir()
        os.chown(root / f"{number}.d", number, number)
        (root / f"{number}.l").symlink_to("x")
        os.lchown(root / f"{number}.l", number, number)


def change_owners(root: Path) -> None:
    """Between the levels."""
    os.chown(root / "1", 2**31 + 5, 0)
    os.chown(root / "65534.d", 3, 2**31)
    os.lchown(root / "1.l", 7, 7)
