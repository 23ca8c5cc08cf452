"""Walking and removing trees, however deep and whatever their modes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.tools.deep_tree import ENTER, count_below, walk
from handlers.tools.removal import remove_at, remove_below, remove_tree
from tests.workshop.odd_names import at_depth

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user here")


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, removed by a program that knows no limits."""
    place = tmp_path / "top"
    place.mkdir()
    yield place
    subprocess.run(["rm", "-rf", place], check=True)


def told(top: Path) -> list[tuple[str, bool]]:
    """What is told of a tree."""
    descriptor = os.open(top, ENTER)
    try:
        return [(os.fsdecode(name), is_directory) for _, name, is_directory in walk(descriptor)]
    finally:
        os.close(descriptor)


def fill(top: Path) -> None:
    """A few files."""
    (top / "d/e/f").mkdir(parents=True)
    (top / "d/file").write_text("x")
    (top / "d/e/\udcff").write_text("x")
    (top / "link").symlink_to("/etc")


def test_every_name_is_told_once_and_what_is_in_a_directory_before_it(top: Path) -> None:
    """Links are not followed."""
    fill(top)

    names = told(top)

    assert sorted(names) == sorted(
        [("d", True), ("e", True), ("f", True), ("file", False), ("\udcff", False), ("link", False)]
    )
    order = [name for name, _ in names]
    assert order.index("f") < order.index("e") < order.index("d")
    assert order.index("file") < order.index("d")


def test_a_tree_of_any_depth_is_walked_and_removed_with_few_open_files(top: Path) -> None:
    """Deeper than PATH_MAX allows, than Python's stack, than the limit of open files."""
    at_depth(top, [b"name"] * 1100, lambda at: os.mkfifo("deepest", dir_fd=at))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert count_below(top) == 1101
        remove_below(top)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert list(top.iterdir()) == []


def test_a_directory_that_is_moved_away_meanwhile_is_not_left_by_another_door(top: Path, tmp_path: Path) -> None:
    """Its `..` is another directory then, where nothing may be removed."""
    at_depth(top, [b"d"] * 100, lambda at: os.mkfifo("deepest", dir_fd=at))
    (tmp_path / "elsewhere").mkdir()
    deep = top.joinpath(*["d"] * 90)
    descriptor = os.open(top, ENTER)
    walked = walk(descriptor)
    assert next(walked)[1] == b"deepest"

    deep.rename(tmp_path / "elsewhere/d")

    with pytest.raises(OSError, match="moved while it was walked"):
        for _ in walked:
            pass
    os.close(descriptor)


def test_what_vanishes_while_it_is_walked_is_not_told(top: Path) -> None:
    """Nor is it an error."""
    for name in "abc":
        (top / name).mkdir()
    descriptor = os.open(top, ENTER)

    walked = walk(descriptor, lambda at, name: os.rmdir(name, dir_fd=at))

    assert list(walked) == []
    os.close(descriptor)


def test_a_tree_is_removed_and_links_in_it_are_not_followed(top: Path, tmp_path: Path) -> None:
    """What they point to stays; what is not there is fine."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    fill(top)
    (top / "out").symlink_to(tmp_path / "outside")

    remove_tree(top)
    remove_tree(top)
    remove_tree(top / "not/there")

    assert not top.exists()
    assert (tmp_path / "outside/kept").exists()
    (tmp_path / "a link").symlink_to("outside")
    remove_tree(tmp_path / "a link")
    assert (tmp_path / "outside/kept").exists()
    assert not (tmp_path / "a link").is_symlink()


def test_a_single_file_is_removed_from_an_open_directory(top: Path) -> None:
    """Or a tree in it."""
    fill(top)
    descriptor = os.open(top, ENTER)

    remove_at(descriptor, b"link")
    remove_at(descriptor, b"d")
    remove_at(descriptor, b"nothing")

    assert list(top.iterdir()) == []
    os.close(descriptor)


LOCKED = """
import os, sys
from pathlib import Path
from handlers.tools.removal import remove_below
os.setgroups([]); os.setgid(65534); os.setuid(65534)
top = Path(sys.argv[1])
for mode in (0, 0o555, 0o300, 0o444):
    place = top / f"{mode:o}" / "sub"
    place.mkdir(parents=True)
    (place / "f").write_text("x")
    place.chmod(mode)
    place.parent.chmod(mode)
top.chmod(0o555)
remove_below(top)
print(list(top.iterdir()))
"""


@AS_ROOT
def test_directories_that_their_owner_may_not_change_are_removed(top: Path) -> None:
    """A restored tree has such."""
    os.chown(top, 65534, 65534)
    for above in top.parents[:-2]:
        above.chmod(above.stat().st_mode | 0o011)

    done = subprocess.run([sys.executable, "-c", LOCKED, top], stdout=subprocess.PIPE, text=True)

    assert done.stdout == "[]\n"
