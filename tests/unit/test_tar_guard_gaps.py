"""Archives that lack a directory which GNU tar could not read: what is in it may come back, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.errors import IntegrityError
from handlers.tools.tar.guard import Guard
from tests.workshop.tar_sets import archive_of, directory, member

TOP = directory(b"./", b"Dd\0Yx\0\0")


def passed(target: Path, *members: bytes) -> bytes:
    """What the guard lets through, a member at a time."""
    content = archive_of(*members)
    chunks: Iterator[bytes] = iter([content])
    return b"".join(bytes(chunk) for chunk in Guard(chunks, target).passed())


@pytest.mark.parametrize("there", [False, True])
def test_files_and_directories_in_a_directory_that_is_no_member_pass(tmp_path: Path, there: bool) -> None:
    """GNU tar makes it, or an older level has left it there."""
    if there:
        (tmp_path / "d").mkdir()
    members = (TOP, directory(b"./d/sub/"), member(b"./d/f", content=b"x"), member(b"./d/sub/f", content=b"x"))

    assert passed(tmp_path, *members).startswith(b"".join(members))


@pytest.mark.parametrize("kind", [b"2", b"1"])
@pytest.mark.parametrize("first", [True, False])
def test_a_link_of_the_archive_in_its_place_is_refused(tmp_path: Path, kind: bytes, first: bool) -> None:
    """Before or after what would be written through it."""
    link, file = member(b"./d", kind, link=b"x"), member(b"./d/f", content=b"x")
    members = (link, file) if first else (file, link)

    with pytest.raises(IntegrityError, match="not safe to restore"):
        passed(tmp_path, TOP, member(b"./x", content=b"x"), *members)


@pytest.mark.parametrize("there", ["link", "file"])
def test_what_an_older_level_left_in_its_place_is_refused(tmp_path: Path, there: str) -> None:
    """A symbolic link leads anywhere."""
    if there == "link":
        (tmp_path / "d").symlink_to("/etc")
    else:
        (tmp_path / "d").write_text("x")

    with pytest.raises(IntegrityError, match="no directory of the archive"):
        passed(tmp_path, TOP, member(b"./d/f", content=b"x"))
