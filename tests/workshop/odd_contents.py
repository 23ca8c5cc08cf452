"""Files whose content is odd: shared, full of holes, a link's target, nothing, of another type by the next level."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.workshop.places import Unheld


def write_at(place: Path, offset: int, content: bytes) -> None:
    """Into the middle of a file, which is made where there is none."""
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, content, offset)
    finally:
        os.close(descriptor)


def make_links(root: Path) -> None:
    """As they are at first."""
    (root / "one").mkdir()
    (root / "two/deep").mkdir(parents=True)
    (root / "a").write_text("shared by many")
    for number in range(60):
        os.link(root / "a", root / ("one", "two", "two/deep")[number % 3] / f"name {number}")
    (root / "link").symlink_to("nowhere")
    os.link(root / "link", root / "two/link", follow_symlinks=False)
    for name in ("breaks", "first", "loses", "apart 1", "apart 2", "kept"):
        (root / name).write_text(name)
        os.link(root / name, root / "two" / name)
    (root / "moved").mkdir()
    (root / "moved/in").write_text("shared with what stays")
    os.link(root / "moved/in", root / "stays")


def change_links(root: Path) -> None:
    """Between the levels."""
    os.link(root / "a", root / "two/one more name")
    shutil.copy2(root / "two/breaks", root / "two/copy")
    (root / "two/copy").rename(root / "two/breaks")
    (root / "first").unlink()
    (root / "two/loses").unlink()
    (root / "apart 2").unlink()
    os.link(root / "apart 1", root / "apart 2")
    (root / "moved").rename(root / "two/moved")


def make_holes(root: Path) -> None:
    """As they are at first."""
    for name, size, places in (
        ("begin", 1 << 20, [(1 << 20) - 5000]),
        ("middle", 1 << 20, [0, (1 << 20) - 4096]),
        ("end", 1 << 20, [0]),
        ("everywhere", 3 << 20, []),
        ("huge", 9 << 30, [0, (8 << 30) + 4095]),
        ("odd size", (5 << 20) + 1, [(2 << 20) + 1, 5 << 20]),
        ("fragments", 2000 * 16384, [number * 16384 + number % 4096 for number in range(2000)]),
    ):
        (root / name).touch()
        os.truncate(root / name, size)
        for place in places:
            write_at(root / name, place, b"data"[: size - place])
    (root / "punched").write_bytes(os.urandom(256 << 10))
    (root / "none").write_bytes(os.urandom(100_000))


def change_holes(root: Path) -> None:
    """Between the levels."""
    write_at(root / "huge", 6 << 30, b"more")
    write_at(root / "everywhere", 0, b"no longer")
    os.truncate(root / "end", 2 << 20)
    done = subprocess.run(["fallocate", "-p", "-o", "65536", "-l", "65536", root / "punched"], capture_output=True)
    if done.returncode:
        raise Unheld(f"a punched hole: {done.stderr.decode()}")


def make_empty(root: Path) -> None:
    """As they are at first."""
    (root / "empty").write_bytes(b"")
    for name in ("stays", "goes", "fills", "empties"):
        (root / name).mkdir()
        os.utime(root / name, ns=(0, 1_234_567_890_123_456_789))
    (root / "empties/f").write_text("f")
    os.utime(root / "empties", ns=(0, 1))


def change_empty(root: Path) -> None:
    """Between the levels."""
    (root / "goes").rmdir()
    (root / "fills/f").write_bytes(b"")
    os.utime(root / "fills", ns=(0, 2))
    (root / "empties/f").unlink()
    os.utime(root / "empties", ns=(0, 3))


def make_symlinks(root: Path) -> None:
    """As they are at first."""
    for name, target in (
        (b"dangling", b"nowhere/at all"),
        (b"absolute", b"/etc/passwd"),
        (b"outside", b"../../.."),
        (b"loop 1", b"loop 2"),
        (b"loop 2", b"loop 1"),
        (b"self", b"self"),
        (b"long", b"y" * 4095),
        (b"odd", b'new\nline \xff " -> \\'),
        (b"slash", b"x/"),
        (b"turns", b"old"),
    ):
        (root / os.fsdecode(name)).symlink_to(os.fsdecode(target))


def change_symlinks(root: Path) -> None:
    """Between the levels."""
    (root / "turns").unlink()
    (root / "turns").symlink_to("new")
    (root / "self").unlink()


_KINDS = ("file", "directory", "link", "pipe")


def _of_kind(place: Path, kind: str) -> None:
    if kind == "file":
        place.write_text("now a file")
    elif kind == "directory":
        (place / "sub").mkdir(parents=True)
        (place / "sub/f").write_text("f")
    elif kind == "link":
        place.symlink_to("/etc")
    else:
        os.mkfifo(place)


def make_types(root: Path) -> None:
    """As they are at first."""
    for old in _KINDS:
        for new in _KINDS:
            _of_kind(root / f"{old} to {new}", old)


def change_types(root: Path) -> None:
    """Between the levels."""
    for old in _KINDS:
        for new in _KINDS:
            place = root / f"{old} to {new}"
            shutil.rmtree(place) if old == "directory" else place.unlink()
            _of_kind(place, new)
