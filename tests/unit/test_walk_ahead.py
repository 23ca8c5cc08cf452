"""Looking at directories before GNU tar does: everything that is wanted, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handlers.tools.walk_ahead import walk_ahead


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    """A tree with a link to a directory outside of it."""
    root = tmp_path / "root"
    (tmp_path / "outside" / "far").mkdir(parents=True)
    for path in ("a/b/c", "a/skipped/deep", "d"):
        (root / path).mkdir(parents=True)
    (root / "a/b/file").write_text("x")
    (root / "d/link").symlink_to(tmp_path / "outside")
    (root / "a/b/link").symlink_to("../../d")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def looked_at(
    top: int, *names: bytes, left_out: bytes = b"", is_over: Callable[[], bool] = lambda: False
) -> set[bytes]:
    """The names that a walk came by."""
    seen: set[bytes] = set()

    def is_left_out(path: bytes) -> bool:
        seen.add(path)
        return path == left_out

    walk_ahead(top, names or (b".",), is_left_out, is_over, threads=3)
    return seen


def test_comes_by_all_there_is_and_follows_no_link(top: int) -> None:
    """A link is a file like others."""
    assert looked_at(top) == {
        b"a", b"a/b", b"a/b/c", b"a/b/file", b"a/b/link", b"a/skipped", b"a/skipped/deep", b"d", b"d/link",
    }  # fmt: skip


def test_does_not_go_into_what_is_left_out(top: int) -> None:
    """Millions of files may be there."""
    assert b"a/skipped/deep" not in looked_at(top, left_out=b"a/skipped")


def test_goes_only_where_the_plan_says(top: int) -> None:
    """A name that is gone, a file or a link among them does not matter."""
    assert looked_at(top, b"a/b", b"gone", b"d/link", b"a/b/file") == {b"a/b/c", b"a/b/file", b"a/b/link"}


def test_goes_through_no_link_in_the_middle_of_a_path(top: int, tmp_path: Path) -> None:
    """Somebody may have put it there after the directory was found."""
    assert looked_at(top, b"d/link/far") == set()


def test_ends_when_there_is_nothing_to_read(top: int) -> None:
    """All of it was made a moment ago, and is in memory: to look at it costs more than it can win."""
    seen: list[bytes] = []

    walk_ahead(top, [b"."], lambda path: bool(seen.append(path)), lambda: False, threads=1, warm_entries=2)

    assert seen == [b"a", b"d"] or seen == [b"d", b"a"]


def test_ends_when_it_is_over(top: int) -> None:
    """GNU tar is through with the directories: looking ahead of it is of no use any more."""
    assert looked_at(top, is_over=lambda: True) == set()
