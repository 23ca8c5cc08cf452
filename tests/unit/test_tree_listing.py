"""What a listing says of a tree, and what happens while it is written."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.contract import FileProblem, ProblemKind
from handlers.errors import Cancelled, TemporaryError
from handlers.tools.trees import listing, reading, walk
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.listed_trees import ListedTree, MemoryPart, go_on
from tests.workshop.odd_names import at_depth
from tests.workshop.places import erase


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "tree"
    (root / "d/sub").mkdir(parents=True)
    (root / "d/a").write_text("a")
    (root / "d-e").write_text("sorted before what is in d, by its bytes alone")
    (root / "d/sub/deep").write_text("deep")
    (root / "link").symlink_to("d/a")
    return root


def open_files() -> list[Path]:
    """What this process has open."""
    return list(Path("/proc/self/fd").iterdir())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_all_that_is_there_is_listed_once_in_order(tree: Path) -> None:
    """A directory comes before what is in it, names are sorted by their bytes."""
    listed = ListedTree(tree)

    assert list(listed.items()) == [b".", b"d", b"d/a", b"d/sub", b"d/sub/deep", b"d-e", b"link"]
    assert (listed.listed.files, listed.listed.size_bytes) == (6, 51)
    assert listed.items()[b"link"].link == b"d/a"
    assert listed.items()[b"d/a"].sha256 == sha256(b"a")
    assert [part.name for part in listed.listed.parts] == ["tree.sha256.zst", "tree.mtree.zst"]
    assert all(part.codec == "zstd" for part in listed.listed.parts)
    assert listed.listed.tree("tree").listing == "tree.mtree.zst"


def test_a_known_file_is_not_read(tree: Path) -> None:
    """The caller hashed it when it was copied."""
    asked = []

    def known(path: bytes, about: os.stat_result) -> str | None:
        asked.append((path, about.st_size))
        return "f" * 64 if path == b"d/a" else None

    listed = ListedTree(tree, known=known)

    assert listed.items()[b"d/a"].sha256 == "f" * 64
    assert asked == [(b"d/a", 1), (b"d/sub/deep", 4), (b"d-e", 46)]
    assert listed.read == 50


def test_a_file_with_several_names_is_read_and_counted_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as not too many of them are open; then it is read again, and still counted once."""
    for name in ("b", "d/c", "z"):
        os.link(tree / "d/a", tree / name)
    for name in ("k", "l"):
        (tree / name).write_text(name)
        os.link(tree / name, tree / f"x{name}")

    listed = ListedTree(tree)
    monkeypatch.setattr(listing, "_REMEMBERED", 1)
    forgetful = ListedTree(tree)

    assert listed.read == listed.listed.size_bytes == forgetful.listed.size_bytes == 53
    assert forgetful.read > 53
    assert forgetful.mtree == listed.mtree
    assert len({item.inode for path, item in listed.items().items() if path in {b"b", b"d/c", b"z", b"d/a"}}) == 1


def test_large_files_keep_their_place(tree: Path) -> None:
    """They are read by threads, small ones are not."""
    content = {f"f{number}": os.urandom(1) * (number % 3 * 700_000 + 1) for number in range(20)}
    for name, each in content.items():
        (tree / name).write_bytes(each)

    listed = ListedTree(tree)

    assert [line.split()[1].decode() for line in listed.sums.splitlines()] == [
        "tree/d/a",
        "tree/d/sub/deep",
        "tree/d-e",
        *(f"tree/{name}" for name in sorted(content)),
    ]
    assert {name: listed.items()[name.encode()].sha256 for name in content} == {
        name: sha256(each) for name, each in content.items()
    }


def test_pipes_and_sockets_are_listed_and_not_opened(tree: Path) -> None:
    """Nobody waits for a writer."""
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))

    found = ListedTree(tree).items()

    assert (found[b"pipe"].type, found[b"socket"].type) == ("fifo", "socket")


def test_a_file_that_a_link_or_a_pipe_replaces_after_the_walk_is_not_followed(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor waited for: it is left out, and told."""
    (tmp_path / "secret").write_text("secret")
    for name in ("e1", "e2", "e3"):
        (tree / name).write_text("x")

    def replace(path: bytes, about: os.stat_result) -> None:
        if path.startswith(b"e"):
            (tree / os.fsdecode(path)).unlink()
        if path == b"e1":
            (tree / "e1").symlink_to(tmp_path / "secret")
        elif path == b"e2":
            os.mkfifo(tree / "e2")

    listed = ListedTree(tree, known=replace)

    assert not {b"e1", b"e2", b"e3"} & set(listed.items())
    assert sha256(b"secret").encode() not in listed.sums
    assert {(problem.kind, problem.path) for problem in listed.problems} == {
        (ProblemKind.CHANGED, "e1"),
        (ProblemKind.CHANGED, "e2"),
        (ProblemKind.VANISHED, "e3"),
    }


def test_a_directory_that_a_link_replaces_after_it_was_seen_is_not_entered(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link itself is listed."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    real = walk._found

    def replaced_after(at: int, name: bytes, path: bytes) -> walk.Found | None:
        found = real(at, name, path)
        if path == b"d" and not (tree / "d").is_symlink():
            (tree / "d").rename(tmp_path / "moved")
            (tree / "d").symlink_to(tmp_path / "outside")
        return found

    monkeypatch.setattr(walk, "_found", replaced_after)

    assert list(ListedTree(tree).items()) == [b".", b"d", b"d-e", b"link"]


def test_a_file_that_keeps_changing_is_told_and_listed_as_it_was_last(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller decides what that means."""
    real = reading._hashed

    def grows(descriptor: int, *rest: object) -> tuple[str, int]:
        found = real(descriptor, *rest)  # type: ignore[arg-type]
        if found[1] > 40:
            with (tree / "d-e").open("a") as file:
                file.write("more")
        return found

    monkeypatch.setattr(reading, "_hashed", grows)
    listed = ListedTree(tree)

    assert [(problem.kind, problem.path) for problem in listed.problems] == [(ProblemKind.CHANGED, "d-e")]
    assert b"d-e" in listed.items()


def test_a_file_that_changes_once_is_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be told then: the listing has its last state."""
    real = reading._hashed
    changes = ["once"]

    def grows(descriptor: int, *rest: object) -> tuple[str, int]:
        found = real(descriptor, *rest)  # type: ignore[arg-type]
        if found[1] == 46 and changes:
            (tree / "d-e").write_text(changes.pop())
        return found

    monkeypatch.setattr(reading, "_hashed", grows)
    listed = ListedTree(tree)

    assert listed.problems == []
    assert listed.items()[b"d-e"].sha256 == sha256(b"once")
    assert listed.items()[b"d-e"].size == 4
    assert listed.check() == (6, 9)


@needs_another_user
def test_what_may_not_be_read_is_told_and_listed_as_far_as_it_is_known() -> None:
    """As a user without rights: a file and a directory of somebody else."""
    with open_directory() as place:
        (place / "locked").mkdir(mode=0o700)
        (place / "locked/in").write_text("x")
        (place / "private").write_text("x")
        (place / "private").chmod(0o600)
        with nobody():
            listed = ListedTree(place)

    assert list(listed.items()) == [b".", b"locked", b"private"]
    assert listed.items()[b"private"].sha256 is None
    assert listed.sums == b""
    assert {(problem.kind, problem.path) for problem in listed.problems} == {
        (ProblemKind.UNREADABLE, "locked"),
        (ProblemKind.UNREADABLE, "private"),
    }


def test_a_tree_that_is_none_is_a_temporary_error(tmp_path: Path, tree: Path) -> None:
    """Nothing, and a link to a tree."""
    (tmp_path / "to the tree").symlink_to(tree)
    for name in ("nothing", "to the tree"):
        with pytest.raises(TemporaryError, match="cannot read"):
            ListedTree(tmp_path / name)


def write(tree: Path, checkpoint: object, problem: object = None) -> None:
    """List a tree with these callables."""
    listing.write(
        tree,
        "tree",
        MemoryPart,
        problem=problem or (lambda _: None),  # type: ignore[arg-type]
        checkpoint=checkpoint,  # type: ignore[arg-type]
        report=lambda _: None,
    )


def test_a_checkpoint_ends_it_in_the_middle_of_a_large_file(tree: Path) -> None:
    """With all threads ended and all files closed."""
    with (tree / "huge").open("wb") as file:
        file.truncate(1 << 40)
    before = open_files()
    calls = []

    def stop_soon() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        write(tree, stop_soon)

    assert len(open_files()) == len(before)


def test_what_the_problem_hook_raises_ends_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller may want no listing of a tree that is not at rest."""

    def refuse(problem: FileProblem) -> None:
        raise TemporaryError(problem.path)

    monkeypatch.setattr(reading, "_version", lambda about: object())

    with pytest.raises(TemporaryError, match="d/a"):
        write(tree, go_on, refuse)


def test_a_process_without_files_left_to_open_blames_nobody(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again later; no file is told to be unreadable."""
    real = os.open

    def full(path: object, flags: int, *rest: object, **more: object) -> int:
        if path == b"deep":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, flags, *rest, **more)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(os, "open", full)

    with pytest.raises(TemporaryError, match="Too many open files"):
        ListedTree(tree)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A directory for trees that are too deep for the tests' own broom."""
    place = tmp_path / "deep"
    place.mkdir()
    yield place
    erase(place)


def test_trees_deeper_than_any_path_may_be_long_are_listed_and_checked(deep: Path) -> None:
    """Deeper than Python's stack and the limit of open files, too."""

    def fill(at: int) -> None:
        os.close(os.open("deepest", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.mkdir("zz", dir_fd=at)

    at_depth(deep, [b"name"] * 1100, fill)
    at_depth(deep, [b"name"] * 70, lambda at: os.mkfifo("zz", dir_fd=at))

    listed = ListedTree(deep)

    assert listed.listed.files == 1103
    assert max(map(len, listed.items())) > 5000
    assert listed.check() == (1103, 0)


def test_a_directory_with_very_many_names_is_sorted_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here very many are five."""
    monkeypatch.setattr(walk, "_MANY_NAMES", 5)
    monkeypatch.setattr(walk, "_RUN_BYTES", 1000)
    for number in range(100):
        (tmp_path / str(number * 7919)).mkdir()

    listed = ListedTree(tmp_path)

    assert list(listed.items()) == [b".", *sorted(b"%d" % (number * 7919) for number in range(100))]
    assert listed.check() == (100, 0)


def test_modes_are_listed_with_all_their_bits(tree: Path) -> None:
    """Set-user-id, set-group-id, sticky."""
    (tree / "d/a").chmod(0o6755)
    (tree / "d").chmod(0o1777)

    found = ListedTree(tree).items()

    assert (found[b"d/a"].mode, found[b"d"].mode) == (0o6755, 0o1777)
    assert stat.S_IMODE(tree.stat().st_mode) == found[b"."].mode
