"""Looking into a tree of a set: names, attributes, content, and what must not be followed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from handlers.contents import Entry, EntryType
from handlers.contract import BackupId, ProblemKind
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.trees import contents
from handlers.tools.trees.contents import TreeContents
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.listed_trees import ListedTree, go_on
from tests.workshop.odd_names import NAMES, at_depth, make_names
from tests.workshop.places import erase

LARGE = 3 << 20


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything."""
    root = tmp_path / "tree"
    (root / "d/sub").mkdir(parents=True)
    (root / "d-e").mkdir()
    (root / "d/a").write_text("content")
    (root / "d-e/x").write_text("x")
    (root / "d/sub/deep").write_text("deep")
    (root / "large").write_bytes(b"0123456789abcdef" * (LARGE // 16))
    os.link(root / "d/a", root / "other name")
    (root / "link").symlink_to("d/a")
    (root / "out").symlink_to("/etc")
    os.mkfifo(root / "pipe")
    return root


def open_contents(tree: Path) -> TreeContents:
    """What a set with this tree holds."""
    listed = ListedTree(tree)
    return TreeContents(tree, listed.stored, BackupId("set-1"), go_on)


def entry_at(held: TreeContents, path: bytes) -> Entry:
    """What must be there."""
    found = held.look(path)
    assert found is not None
    return found[0]


def content(held: TreeContents, path: bytes, *place: int) -> bytes:
    """Of a file, or a part of it."""
    return b"".join(held.read(entry_at(held, path), *place))


def test_a_directory_is_shown_with_what_is_in_it(tree: Path) -> None:
    """Sorted by name, with the attributes that the files have."""
    (tree / "d/a").chmod(0o4640)
    os.utime(tree / "d/a", ns=(0, 1_000_000_001))
    held = open_contents(tree)

    found = held.look(b"d")
    assert found is not None
    entry, inside = found

    assert (entry.path, entry.type) == (b"d", EntryType.DIRECTORY)
    first, second = inside
    assert (second.path, second.type, second.size) == (b"d/sub", EntryType.DIRECTORY, 0)
    assert first == Entry(
        b"d/a",
        EntryType.FILE,
        7,
        0o4640,
        os.geteuid(),
        os.getegid(),
        1_000_000_001,
        held_by=BackupId("set-1"),
        place=entry_at(held, b"other name").place,
    )


def test_the_top_is_a_directory_like_any_other(tree: Path) -> None:
    """It is called by a dot."""
    found = open_contents(tree).look(b".")

    assert found is not None
    assert (found[0].path, found[0].type) == (b".", EntryType.DIRECTORY)
    assert [entry.path for entry in found[1]] == sorted(os.fsencode(path.name) for path in tree.iterdir())


def test_all_below_a_directory_comes_by_directories_then_names(tree: Path) -> None:
    """The order that two sets are compared in: `d-e` before what is in `d/`."""
    held = open_contents(tree)

    paths = [entry.path for entry in held.walk(b".")]

    assert paths == sorted(paths, key=lambda path: path.rpartition(b"/")[::2])
    assert paths.index(b"d-e/x") < paths.index(b"d/sub/deep")
    assert {b"d", b"d/a", b"link", b"out", b"pipe", b"d/sub", b"large"} < set(paths)
    assert b"." not in paths
    assert [entry.path for entry in held.walk(b"d")] == [b"d/a", b"d/sub", b"d/sub/deep"]
    assert list(held.walk(b"d/a")) == list(held.walk(b"nothing")) == []
    assert [entry_at(held, entry.path) for entry in held.walk(b".")] == list(held.walk(b"."))


@pytest.mark.parametrize("path", [b"out/passwd", b"link/x", b"d/a/x", b"nothing", b"nothing/x", b"pipe/x"])
def test_no_step_of_a_path_is_followed_through_a_link(tree: Path, path: bytes) -> None:
    """What is behind it is not in the set."""
    assert open_contents(tree).look(path) is None


@pytest.mark.parametrize("path", [b"../x", b"d/../../x", b"a\0b", b"d//a", b"d/.."])
def test_a_path_that_can_be_in_no_set_is_refused(tree: Path, path: bytes) -> None:
    """Never is it looked for outside."""
    with pytest.raises(PermanentError, match="can be in no set"):
        open_contents(tree).look(path)


def test_links_pipes_and_sockets_are_told(tree: Path) -> None:
    """A link by what it says; a socket as something that has no content."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
    held = open_contents(tree)

    assert entry_at(held, b"out").target == b"/etc"
    assert entry_at(held, b"pipe").type is EntryType.FIFO
    assert entry_at(held, b"socket").missing is ProblemKind.SOCKET
    with pytest.raises(ValueError, match="no content"):
        held.read(entry_at(held, b"pipe"))


def test_content_comes_whole_or_in_part(tree: Path) -> None:
    """Ranges as well as all of it; beyond the end is nothing."""
    held = open_contents(tree)

    assert content(held, b"large") == (tree / "large").read_bytes()
    assert content(held, b"large", LARGE - 4, 100) == b"cdef"
    assert content(held, b"large", 3, 4) == b"3456"
    assert content(held, b"large", LARGE + 1, 4) == b""
    assert content(held, b"other name") == b"content"


def rot(path: Path) -> None:
    """Change a file so that no attribute tells of it."""
    about = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(0, about.st_mtime_ns))


def test_rotten_content_is_not_shown(tree: Path) -> None:
    """Not its first byte either, nor a part that is sound."""
    held = open_contents(tree)
    entry = entry_at(held, b"large")
    rot(tree / "large")

    for place in ((), (LARGE - 4, 4)):
        with pytest.raises(IntegrityError, match=r"'large' of set set-1 has SHA-256 .*, its listing says"):
            next(held.read(entry, *place))


def test_a_part_of_a_very_long_file_is_shown_unchecked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is checked."""
    monkeypatch.setattr(contents, "MAX_CHECKED_BYTES", LARGE - 1)
    held = open_contents(tree)
    entry = entry_at(held, b"large")
    rot(tree / "large")

    assert b"".join(held.read(entry, LARGE - 4, 4)) == b"cdef"
    with pytest.raises(IntegrityError):
        next(held.read(entry))


def test_a_file_is_read_for_its_check_once(tree: Path) -> None:
    """As long as nobody touches it."""
    held = open_contents(tree)

    for at in range(0, 100, 10):
        content(held, b"large", at, 10)
    assert held.bytes_read == LARGE + 100

    rot(tree / "large")
    with pytest.raises(IntegrityError):
        content(held, b"large", 50, 10)


def test_a_file_that_is_not_the_listed_one_is_damage(tree: Path, tmp_path: Path) -> None:
    """Another size, another time, another type, not listed, or gone by now."""
    held = open_contents(tree)
    names = (b"d/a", b"d-e/x", b"d/sub/deep", b"large")
    listed, other, gone, link = (entry_at(held, name) for name in names)
    (tree / "d-e/x").write_text("longer")
    (tree / "d/sub/deep").unlink()
    (tree / "large").rename(tmp_path / "moved")
    (tree / "large").symlink_to(tmp_path / "moved")
    (tree / "new").write_text("new")
    os.utime(tree / "d/a", ns=(0, 5))

    for entry, words in (
        (listed, "changed at 5 ns"),
        (other, "has 6 bytes"),
        (gone, "has gone"),
        (link, "has gone"),
        (entry_at(held, b"new"), "not listed"),
    ):
        with pytest.raises(IntegrityError, match=words):
            next(held.read(entry))


def test_a_set_without_its_tree_is_damaged(tree: Path) -> None:
    """A link to it is no tree."""
    held = open_contents(tree)
    tree.rename(tree.parent / "moved")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="set set-1 lacks its tree"):
            held.look(b".")
        if not tree.is_symlink():
            tree.symlink_to("moved")


@needs_another_user
def test_who_may_not_read_is_told_so() -> None:
    """That is no damage; what can be seen is shown."""
    with open_directory() as place:
        (place / "private").write_text("x")
        (place / "private").chmod(0o600)
        (place / "locked").mkdir(mode=0o700)
        held = open_contents(place)
        with nobody():
            entry = entry_at(held, b"private")
            with pytest.raises(PermanentError, match="cannot read 'private'"):
                next(held.read(entry))
            with pytest.raises(PermanentError, match="cannot read 'locked'"):
                held.look(b"locked")
            with pytest.raises(PermanentError, match="cannot read 'locked'"):
                list(held.walk(b"."))


def test_names_of_any_bytes_are_found_and_read(tmp_path: Path) -> None:
    """In a listing of several blocks, too."""
    (tmp_path / "tree").mkdir()
    make_names(tmp_path / "tree")
    for number in range(800):
        (tmp_path / "tree" / f"{number} {'x' * 200}").write_text(str(number))
    held = open_contents(tmp_path / "tree")

    assert {name: content(held, name) for name in NAMES} == {name: name for name in NAMES}
    assert all(content(held, b"%d %b" % (number, b"x" * 200)) == b"%d" % number for number in range(0, 800, 7))


def test_paths_of_any_length_are_reached(tmp_path: Path) -> None:
    """Beyond what the kernel takes at once."""
    (tmp_path / "tree").mkdir()

    def fill(at: int) -> None:
        descriptor = os.open("deepest", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=at)
        os.write(descriptor, b"down here")
        os.close(descriptor)

    at_depth(tmp_path / "tree", [b"n" * 100] * 100, fill)
    held = open_contents(tmp_path / "tree")
    deepest = b"/".join([b"n" * 100] * 100) + b"/deepest"

    assert content(held, deepest) == b"down here"
    assert list(held.walk(b"."))[-1].path == deepest
    erase(tmp_path / "tree")
