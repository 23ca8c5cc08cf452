"""Files with odd names, in odd places: long, deep, alike, in directories that nobody may change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from tests.workshop.places import Unheld

DEEP_NAME = b"n" * 250
_ENTER = os.O_RDONLY | os.O_DIRECTORY


NAMES = (
    b"\xff\xfe not UTF-8",
    b"new\nline",
    b"\nfirst",
    b"back\\slash\\n",
    b"\\",
    b"double \" and single '",
    b"-rf",
    b"--checkpoint-action=exec=false",
    b" ",
    b"  spaces  ",
    b"\x01\x02\x1b[31m\x7f",
    b"\ttab\r",
    b"\xc3\x28",
    b"*?[a]{b,c}",
    b"~",
    b"$(false)`false`",
    b"a -> b",
    b'x" -> "y',
    b'x" link to "y',
    b"...",
    b"..a",
    b"@f",
    b"#f",
    "ümläut €\U0001f4be".encode(),
    b"x" * 255,
    b"\xfe" * 255,
    b"PaxHeaders",
    b"GNUSparseFile.0",
    b"%41",
    b"100%",
    b"a=b",
)


def make_names(root: Path) -> None:
    """As they are at first."""
    for name in NAMES:
        path = root / os.fsdecode(name)
        path.write_bytes(name)
    (root / "dirs").mkdir()
    for name in NAMES[:9]:
        path = root / "dirs" / os.fsdecode(name)
        path.mkdir()
        (path / "f").write_bytes(name)


def change_names(root: Path) -> None:
    """Between the levels."""
    for name in NAMES[::3]:
        (root / os.fsdecode(name)).write_bytes(b"changed")
    for name in NAMES[1::9]:
        (root / os.fsdecode(name)).unlink()


def at_depth(root: Path, names: Iterable[bytes], work: Callable[[int], object]) -> None:
    """Make directories one below the other, and do something in the last one, open."""
    at = os.open(root, _ENTER)
    for name in names:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=at)
        below = os.open(name, _ENTER, dir_fd=at)
        os.close(at)
        at = below
    try:
        work(at)
    finally:
        os.close(at)


def _write_in(at: int, name: bytes, content: bytes) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=at)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


# Below a directory `long` this makes names of up to 4 060 bytes.
LONG = [DEEP_NAME] * 16


def make_long(root: Path) -> None:
    """As they are at first."""

    def fill(at: int) -> None:
        _write_in(at, b"f", b"at the end")
        os.link(b"f", b"hard", src_dir_fd=at, dst_dir_fd=at)
        os.symlink(b"x" * 4095, b"link", dir_fd=at)
        _write_in(at, b"\xff" * 20, b"quoted as 80 bytes")

    at_depth(root, LONG, fill)


def change_long(root: Path) -> None:
    """Between the levels."""
    at_depth(root, LONG, lambda at: _write_in(at, b"f", b"changed"))
    at_depth(root, LONG, lambda at: os.unlink(b"link", dir_fd=at))


NESTED = [b"d"] * 250


def make_nested(root: Path) -> None:
    """As they are at first."""
    at_depth(root, NESTED, lambda at: _write_in(at, b"deepest", b"down here"))


def change_nested(root: Path) -> None:
    """Between the levels."""
    at_depth(root, NESTED[:200], lambda at: _write_in(at, b"new", b"new"))


TWINS = ("a", "A", "Straße", "STRASSE", "é", "e\u0301", "ﬁ", "fi", "Å", "\u212b", "A\u030a")


def make_twins(root: Path) -> None:
    """As they are at first."""
    for name in TWINS:
        (root / name).write_text(name)
        (root / f"{name}.d").mkdir()
        (root / f"{name}.d" / name).write_text(name)
    if len({place.name for place in root.iterdir()}) != 2 * len(TWINS):
        raise Unheld("names that differ in case or normal form alone")


def change_twins(root: Path) -> None:
    """Between the levels."""
    (root / "A").unlink()
    (root / "é").write_text("changed")
    shutil.rmtree(root / "a.d")


def make_locked(root: Path) -> None:
    """As they are at first."""
    for mode in (0o555, 0o500):
        place = root / f"{mode:o}"
        (place / "sub").mkdir(parents=True)
        for name in ("stays", "goes", "sub/f"):
            (place / name).write_text(name)
            (place / name).chmod(0o444)
        (place / "sub").chmod(mode)
        place.chmod(mode)


def change_locked(root: Path) -> None:
    """Between the levels."""
    for mode in (0o555, 0o500):
        place = root / f"{mode:o}"
        place.chmod(0o755)
        (place / "goes").unlink()
        (place / "new").write_text("new")
        (place / "sub").chmod(0o755)
        (place / "sub/g").write_text("g")
        (place / "sub").chmod(mode)
        place.chmod(mode)
