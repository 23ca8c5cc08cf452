"""The subject of the demonstration: real files, what happens to them, and an independent comparison."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from handlers.errors import PermanentError

MAX_BYTES: Final = 48 << 20
MAX_FILES: Final = 4000
_LEFT_OUT: Final = frozenset({"__pycache__", "site-packages", "dist-packages"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What was done to a tree."""

    changed: int
    deleted: int
    renamed: int
    added: int


def lay_out(subject: Path) -> tuple[int, int]:
    """Copy real files of this machine, the standard library of its Python; says how many, and their bytes."""
    library = Path(sysconfig.get_paths()["stdlib"])
    subject.mkdir()
    files = total = 0
    for source in _files(library):
        size = source.stat().st_size
        if files >= MAX_FILES or total + size > MAX_BYTES:
            continue
        target = subject / source.relative_to(library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
        files, total = files + 1, total + size
    if files < 50:
        raise PermanentError(f"{library} has too few files for a demonstration: {files}")
    _make_curiosities(subject)
    return files, total


def change(subject: Path) -> Changes:
    """Edit, delete, rename and add files, as a week of work does."""
    files = sorted(path for path in _files(subject) if path.suffix == ".py" and path.parent == subject)
    edited, gone, moved = files[0:30:2], files[1:20:2], files[40:50]
    for path in edited:
        with path.open("a") as stream:
            stream.write("\n# edited after the first backup\n")
    for path in gone:
        path.unlink()
    for path in moved:
        path.rename(path.with_name(f"renamed-{path.name}"))
    (subject / "directory with a space").rename(subject / "renamed directory")
    files[60].chmod(0o640)
    (subject / "link").unlink()
    (subject / "link").symlink_to("renamed directory")
    fresh = subject / "new" / "deeper"
    fresh.mkdir(parents=True)
    for number in range(20):
        (fresh / f"file-{number}").write_bytes(os.urandom(20_000))
    return Changes(changed=len(edited) + 2, deleted=len(gone), renamed=len(moved) + 1, added=20)


def differences(original: Path, restored: Path) -> list[str]:
    """Where two trees differ: names, kinds, modes, times, owners, contents, link targets, hard links."""
    left, right = _facts(original), _facts(restored)
    found = [f"missing: {name!r}" for name in left.keys() - right.keys()]
    found += [f"too much: {name!r}" for name in right.keys() - left.keys()]
    found += [
        f"{name!r}: {left[name]} became {right[name]}"
        for name in left.keys() & right.keys()
        if left[name] != right[name]
    ]
    return sorted(found)


def _make_curiosities(subject: Path) -> None:
    """What a backup program that is only tried with plain files gets wrong."""
    odd = subject / "directory with a space"
    odd.mkdir()
    (odd / "line\nbreak, ümlaut, 'quote'").write_text("a name may have anything but a slash\n")
    (subject / os.fsdecode(b"no utf-8 \xff")).write_text("names are bytes\n")
    (subject / "empty directory").mkdir()
    (subject / "empty file").touch()
    (subject / "secret").write_text("mode 0600\n")
    (subject / "secret").chmod(0o600)
    (subject / "link").symlink_to("directory with a space")
    (subject / "dangling").symlink_to("/nowhere/at/all")
    (subject / "secret, hard linked").hardlink_to(subject / "secret")


def _files(top: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(top):
        names[:] = sorted(name for name in names if name not in _LEFT_OUT)
        for name in sorted(files):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _facts(top: Path) -> Mapping[str, tuple[object, ...]]:
    facts: dict[str, tuple[object, ...]] = {}
    inodes: dict[tuple[int, int], str] = {}
    waiting = [top]
    while waiting:
        path = waiting.pop()
        found = path.lstat()
        name = str(path.relative_to(top))
        content, linked = "", ""
        if stat.S_ISDIR(found.st_mode):
            waiting += sorted(path.iterdir())
        elif stat.S_ISLNK(found.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(found.st_mode):
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            if found.st_nlink > 1:
                # All names of one inode carry the first of them, in an order that both trees share.
                linked = inodes.setdefault((found.st_dev, found.st_ino), name)
        facts[name] = oct(found.st_mode), found.st_mtime_ns, found.st_uid, found.st_gid, content, linked
    return facts
