"""Random changes of a tree, as hypothesis draws them: each picks its files by number among those that are there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from tests.workshop.odd_attributes import access_list, named_user
from tests.workshop.odd_contents import write_at

_IS_ROOT = os.geteuid() == 0
_NAMES = ("a", "b", "c", "dir", "é", "new\nline", "x" * 120)
_TIMES = (0, 1, -1_500_000_000, 1_000_000_000_000_000_001, 1_700_000_000_123_456_789, 4_102_444_800_000_000_000)
_MODES = (0o600, 0o644, 0o755, 0o4711, 0o2755, 0o1777, 0o500)


class Edit(NamedTuple):
    """One change. What it cannot do as things are, it leaves."""

    what: str
    one: int
    other: int
    how: int


def apply(root: Path, edit: Edit) -> None:
    """Do it. No symbolic link is followed."""
    everything = sorted(_all_below(root))
    directories = [root, *(place for place in everything if _is(place, stat.S_ISDIR))]
    parent = directories[edit.other % len(directories)]
    fresh = parent / _NAMES[edit.how % len(_NAMES)]
    if edit.what in _MAKE:
        if not os.path.lexists(fresh):
            _MAKE[edit.what](fresh, edit)
        return
    if not everything:
        return
    place = everything[edit.one % len(everything)]
    if edit.what in _FILES:
        files = [each for each in everything if _is(each, stat.S_ISREG)]
        if files:
            _FILES[edit.what](files[edit.one % len(files)], edit)
    elif edit.what in _CHANGE:
        _CHANGE[edit.what](place, edit)
    elif edit.what == "rename":
        _rename(place, fresh)
    elif edit.what == "swap":
        _swap(place, everything[edit.other % len(everything)])
    elif edit.what == "link":
        _link(place, fresh)


def _all_below(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root):
        found += [Path(folder, name) for name in (*folders, *files)]
    return found


def _is(place: Path, kind: Callable[[int], bool]) -> bool:
    return kind(place.lstat().st_mode)


def _delete(place: Path) -> None:
    if _is(place, stat.S_ISDIR):
        shutil.rmtree(place)
    else:
        place.unlink()


def _link(place: Path, fresh: Path) -> None:
    # GNU tar stores a FIFO once for each name.
    if not (os.path.lexists(fresh) or _is(place, stat.S_ISDIR) or _is(place, stat.S_ISFIFO)):
        os.link(place, fresh, follow_symlinks=False)


def _rename(place: Path, fresh: Path) -> None:
    if place == fresh or place in fresh.parents or fresh in place.parents:
        return
    if os.path.lexists(fresh):
        _delete(fresh)
    place.rename(fresh)


def _swap(one: Path, other: Path) -> None:
    if one == other or one in other.parents or other in one.parents:
        return
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _write(place: Path, edit: Edit) -> None:
    place.write_text(f"{edit.one} {edit.other}\n" * (edit.how % 50))


def _fill(place: Path, edit: Edit) -> None:
    (place / "sub").mkdir(parents=True)
    (place / "sub/f").write_text(str(edit.one))
    (place / "a").write_text(str(edit.other))


def _sparse(place: Path, edit: Edit) -> None:
    place.touch()
    os.truncate(place, (edit.one % 40) * 10_000)
    write_at(place, (edit.other % 40) * 10_000, b"data")


def _become(place: Path, edit: Edit) -> None:
    _delete(place)
    (_write, _fill, lambda place, edit: place.symlink_to("a"), lambda place, edit: os.mkfifo(place))[edit.how % 4](
        place, edit
    )


def _change_mode(place: Path, edit: Edit) -> None:
    if not place.is_symlink():
        place.chmod(_MODES[edit.how % len(_MODES)] | (0 if _IS_ROOT else 0o700))


def _change_owner(place: Path, edit: Edit) -> None:
    if _IS_ROOT:
        os.lchown(place, edit.one % 3, 2**31 + edit.other % 3)


def _touch(place: Path, edit: Edit) -> None:
    os.utime(place, ns=(0, _TIMES[edit.how % len(_TIMES)]), follow_symlinks=False)


def _set_attribute(place: Path, edit: Edit) -> None:
    if _is(place, stat.S_ISREG) or _is(place, stat.S_ISDIR):
        os.setxattr(place, f"user.{edit.one % 2}", str(edit.other).encode())


def _remove_attributes(place: Path, edit: Edit) -> None:
    for name in os.listxattr(place, follow_symlinks=False):
        os.removexattr(place, name, follow_symlinks=False)


def _set_access_list(place: Path, edit: Edit) -> None:
    if not place.is_symlink():
        access_list(place, "access", *named_user(edit.one % 3, edit.how % 8))
        if place.is_dir():
            access_list(place, "default", *named_user(edit.one % 3, edit.how % 8))


def _append(place: Path, edit: Edit) -> None:
    with place.open("ab") as file:
        file.write(b"more" * (edit.how % 30))


def _edit_unseen(place: Path, edit: Edit) -> None:
    """Another content of the same size, at the same time."""
    about = place.stat()
    write_at(place, 0, b"?" * min(about.st_size, 5))
    os.utime(place, ns=(0, about.st_mtime_ns))


def _break_link(place: Path, edit: Edit) -> None:
    copy = place.with_name("copy")
    shutil.copy2(place, copy)
    copy.rename(place)


def _punch(place: Path, edit: Edit) -> None:
    size = place.stat().st_size
    if size > 8192:
        offset = edit.one % size // 4096 * 4096
        subprocess.run(["fallocate", "-p", "-o", str(offset), "-l", "8192", place], check=True)


_MAKE: dict[str, Callable[[Path, Edit], object]] = {
    "write": _write,
    "make": lambda place, edit: place.mkdir(),
    "fill": _fill,
    "point": lambda place, edit: place.symlink_to(("a", "..", "/etc/passwd", "nowhere")[edit.one % 4]),
    "sparse": _sparse,
}
_FILES: dict[str, Callable[[Path, Edit], object]] = {
    "append": _append,
    "overwrite": _write,
    "edit unseen": _edit_unseen,
    "truncate": lambda place, edit: os.truncate(place, edit.how % 3 * 1000),
    "break link": _break_link,
    "punch": _punch,
}
_CHANGE: dict[str, Callable[[Path, Edit], object]] = {
    "delete": lambda place, edit: _delete(place),
    "become": _become,
    "mode": _change_mode,
    "owner": _change_owner,
    "touch": _touch,
    "attribute": _set_attribute,
    "no attributes": _remove_attributes,
    "access list": _set_access_list,
}
_SMALL = st.integers(0, 60)

edits: st.SearchStrategy[Edit] = st.builds(
    Edit,
    # Renames twice: they are the hardest.
    what=st.sampled_from([*_MAKE, *_FILES, *_CHANGE, "rename", "swap", "link", "rename", "fill", "link"]),
    one=_SMALL,
    other=_SMALL,
    how=_SMALL,
)


class Step(NamedTuple):
    """Some changes, then a backup."""

    edits: Sequence[Edit]
    level: int | None
    """None for the next level; a level that the chain does not have yet counts as the next."""


steps: st.SearchStrategy[list[Step]] = st.lists(
    st.builds(Step, edits=st.lists(edits, min_size=1, max_size=12), level=st.sampled_from([None, None, None, 0, 1, 2])),
    min_size=2,
    max_size=5,
)
