"""Directories that were renamed between two levels, as GNU tar notes them and as it is kept from noting them."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.tools.tar.in_place import directories_in_place
from handlers.tools.tar.restore import compare, restore_chain, restore_paths
from tests.workshop.comparer import OWNERS, Photograph, below, differences, photograph
from tests.workshop.tar_sets import Chain, Quiet, StoredSet, fill

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user here")


class InPlace(Chain):
    """A chain whose levels take a renamed directory for a new one."""

    def back_up(self, *options: str) -> StoredSet:
        """The next level."""
        if self.sets:
            self.snapshot = b"".join(directories_in_place([self.snapshot], self.subject))
        return super().back_up(*options)


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """An empty directory to back up."""
    place = tmp_path / "subject"
    place.mkdir()
    return place


def restored(chain: Chain, target: Path) -> Photograph:
    """All levels, and what came of them; nothing differs from the listings."""
    restore_chain(chain.sets, target, Quiet())
    assert list(compare(chain.sets, target, Quiet())) == []
    return photograph(target)


RENAMES: dict[str, Callable[[Path], object]] = {
    "to a new name": lambda s: (s / "a").rename(s / "new"),
    "into another directory": lambda s: (s / "a").rename(s / "b/a"),
    "out of another directory": lambda s: (s / "a/x").rename(s / "x"),
    "into a new directory": lambda s: ((s / "made").mkdir(), (s / "a").rename(s / "made/a")),
    "onto one that was deleted": lambda s: (shutil.rmtree(s / "b"), (s / "a").rename(s / "b")),
    "onto a file that was deleted": lambda s: ((s / "file").unlink(), (s / "a").rename(s / "file")),
    "onto a link that was deleted": lambda s: ((s / "link").unlink(), (s / "a").rename(s / "link")),
    "one after the other": lambda s: ((s / "b").rename(s / "c"), (s / "a").rename(s / "b")),
    "one within the other": lambda s: ((s / "a/x").rename(s / "a/y"), (s / "a").rename(s / "new")),
    "inside out": lambda s: ((s / "a/x").rename(s / "x"), (s / "a").rename(s / "x/a")),
    "in a circle": lambda s: ((s / "a").rename(s / "t"), (s / "b").rename(s / "a"), (s / "t").rename(s / "b")),
    "and back again later": lambda s: (s / "a").rename(s / "z"),
}


def two_directories(subject: Path, inner: tuple[str, str]) -> None:
    """`a` and `b`, each with a directory, files and a file of two names."""
    for name, within in zip("ab", inner, strict=True):
        (subject / name / within).mkdir(parents=True)
        (subject / name / within / "deep").write_text(f"deep in {name}")
        (subject / name / f"only in {name}").write_text(name)
        (subject / name / "f").write_text(f"f of {name}")
        os.link(subject / name / "f", subject / name / "linked")
    (subject / "file").write_text("file")
    (subject / "link").symlink_to("/etc")


@pytest.mark.parametrize("how", RENAMES)
@pytest.mark.parametrize("noted", [True, False])
def test_renamed_directories_keep_what_did_not_change(
    chain: Chain, subject: Path, target: Path, tmp_path: Path, how: str, noted: bool
) -> None:
    """As GNU tar notes them, with unchanged files in the older archive alone; or taken for new directories."""
    if not noted:
        chain = InPlace(subject, tmp_path / "scratch")
    # Where both have a directory of the same name, GNU tar's own notes are wrong.
    two_directories(subject, ("x", "y" if noted else "x"))
    chain.back_up()
    RENAMES[how](subject)
    chain.back_up()
    if how == "and back again later":
        (subject / "z").rename(subject / "a")
        chain.back_up()
    wanted = photograph(subject)

    found = restored(chain, target)
    single = tmp_path / "single"
    for number, path in enumerate(path for path in sorted(wanted) if path.count(b"/") == 1):
        place = single / str(number)
        place.mkdir(parents=True)
        restore_paths(chain.sets, place, [path], Quiet())
        assert differences(below(wanted, path), below(photograph(place), path)) == []

    assert differences(wanted, found) == []


def restore_as_nobody(sets: str, target: str) -> None:
    """In a process of its own."""
    chain = pickle.loads(Path(sets).read_bytes())
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    if not os.access(sys.executable, os.X_OK):
        sys.executable = "/usr/bin/python3"
    restore_chain(chain, Path(target), Quiet())
    assert list(compare(chain, Path(target), Quiet())) == []


@AS_ROOT
def test_without_root_directories_that_are_read_only_are_moved_too(
    chain: Chain, subject: Path, target: Path, tmp_path: Path
) -> None:
    """Read-only directories of an older level are no hindrance to the next one."""
    fill(subject)
    chain.back_up()
    (subject / "read only").chmod(0o755)
    (subject / "read only/g").write_text("added")
    (subject / "read only/f").unlink()
    (subject / ("n" * 200)).rename(subject / "read only" / "moved")
    (subject / "read only").chmod(0o555)
    chain.back_up()
    os.chown(target, 65534, 65534)
    for above in list(target.parents)[:-2]:
        above.chmod(above.stat().st_mode | 0o011)

    sets = tmp_path / "sets"
    sets.write_bytes(pickle.dumps(chain.sets))
    script = f"from {__name__} import restore_as_nobody; restore_as_nobody({os.fspath(sets)!r}, {os.fspath(target)!r})"

    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=Path(__file__).parents[2])

    assert differences(photograph(subject), photograph(target), without=OWNERS) == []
