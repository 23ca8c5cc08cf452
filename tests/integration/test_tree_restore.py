"""Trees come back as they were: all oddities, single paths, and nothing outside the target."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.errors import Cancelled, IntegrityError, PermanentError, TemporaryError
from handlers.tools.trees import copying
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.comparer import OWNERS, Photograph, below, differences, photograph
from tests.workshop.listed_trees import ListedTree, names_in
from tests.workshop.odd_names import at_depth
from tests.workshop.oddities import ODDITIES
from tests.workshop.places import Unheld, erase, fast_place

IS_ROOT = os.geteuid() == 0


def make_oddities(root: Path, *, for_nobody: bool = False) -> None:
    """All that this user and this file system can hold."""
    root.mkdir()
    for name, oddity in ODDITIES.items():
        if oddity.needs_root and (for_nobody or not IS_ROOT):
            continue
        (root / name).mkdir()
        try:
            oddity.make(root / name)
        except Unheld:
            continue
    # To hash nine gigabytes of holes takes a while each time.
    os.truncate(root / "holes/huge", 64 << 20)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ListedTree, Photograph]]:
    """A tree with files of every odd kind, as it was listed and as it was seen; not to be changed."""
    place = fast_place() or tmp_path_factory.mktemp("odd")
    try:
        make_oddities(place / "tree")
        # A photograph reads; the time of access is not compared.
        yield ListedTree(place / "tree"), photograph(place / "tree")
    finally:
        erase(place)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "tree"
    (root / "d/sub").mkdir(parents=True)
    (root / "d/a").write_text("a")
    (root / "d/sub/deep").write_text("deep")
    (root / "plain").write_text("plain")
    os.link(root / "d/a", root / "other name")
    return root


def test_everything_comes_back_as_it_was(odd: tuple[ListedTree, Photograph]) -> None:
    """Hard links, holes, attributes, access lists, capabilities, devices, names, depths, times, owners, modes."""
    listed, before = odd
    target = listed.root.parent / "whole"

    restored = listed.restore(target)

    assert differences(before, photograph(target)) == []
    assert listed.differences(target) == []
    assert listed.check(target)[0] == listed.listed.files == restored.files
    assert restored.warnings == ()
    assert restored.bytes_read < 10 << 20 < 100 << 20 < restored.bytes_out


def test_single_paths_come_back_with_the_directories_above_them(odd: tuple[ListedTree, Photograph]) -> None:
    """One of each kind of oddity, and a whole directory; names that share a file share it again."""
    listed, before = odd
    target = listed.root.parent / "chosen"
    chosen = [b"links", b"types/pipe to link"]
    for kind in ODDITIES:
        chosen += [path for path in before if path.startswith(kind.encode() + b"/") and before[path].type != "d"][:1]

    listed.restore(target, *chosen)

    found = photograph(target)
    for path in chosen:
        wrong = differences(below(before, path), below(found, path), without=frozenset({"shares"}))
        assert [one for one in wrong if one.path != b"."] == []
    assert {path.partition(b"/")[0] for path in found} == {path.partition(b"/")[0] for path in chosen} | {b"."}
    assert found[b"links/a"].shares == before[b"links/a"].shares


def test_a_path_that_is_not_listed_is_named_before_anything_is_written(tree: Path, tmp_path: Path) -> None:
    """Nor is one that leads out of the tree."""
    listed = ListedTree(tree)
    for path in (b"nothing", b"plain/x", b"../tree/plain", b"/etc/passwd", b"d/../plain"):
        with pytest.raises(PermanentError):
            listed.restore(tmp_path / "target", b"d/a", path)
        assert names_in(tmp_path / "target") == []


def test_asked_for_the_top_all_comes_back(tree: Path, tmp_path: Path) -> None:
    """With the attributes of the top itself; asked for a path in it the target keeps its own."""
    tree.chmod(0o711)
    listed = ListedTree(tree)

    listed.restore(tmp_path / "all", b".", b"d/a")
    (tmp_path / "one").mkdir(mode=0o750)
    listed.restore(tmp_path / "one", b"d/a", b"d")

    assert listed.differences(tmp_path / "all") == []
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "one/d/sub/deep").read_text() == "deep"


def test_a_tree_that_is_not_as_listed_is_not_restored(tree: Path, tmp_path: Path) -> None:
    """Changed, gone, something else; what the listing does not have is left out."""
    listed = ListedTree(tree)
    (tree / "not listed").write_text("x")
    listed.restore(tmp_path / "target")
    assert not (tmp_path / "target/not listed").exists()

    (tree / "plain").write_text("PLAIN")
    with pytest.raises(IntegrityError, match="'plain': it has SHA-256"):
        listed.restore(tmp_path / "changed", b"plain")
    (tree / "plain").write_text("longer than it was")
    with pytest.raises(IntegrityError, match="18 bytes of it, not 5"):
        listed.restore(tmp_path / "longer", b"plain")
    (tree / "plain").unlink()
    with pytest.raises(IntegrityError, match="'plain': the set's own file cannot be read: No such file"):
        listed.restore(tmp_path / "gone", b"plain")
    tree.rename(tmp_path / "moved")
    with pytest.raises(IntegrityError, match="is missing"):
        listed.restore(tmp_path / "none")


def test_nothing_is_read_through_a_link_that_took_a_name(tree: Path, tmp_path: Path) -> None:
    """A file or a directory of the tree that was replaced by a link to something with the very same content."""
    listed = ListedTree(tree)
    (tree / "plain").rename(tmp_path / "moved plain")
    (tree / "plain").symlink_to(tmp_path / "moved plain")
    (tree / "d").rename(tmp_path / "moved d")
    (tree / "d").symlink_to(tmp_path / "moved d")

    for path in (b"plain", b"d/a", b"d"):
        with pytest.raises(IntegrityError, match="cannot be read"):
            listed.restore(tmp_path / f"target {path!r}".replace("/", " "), path)


def test_a_link_that_somebody_puts_into_the_target_leads_nowhere(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the place of a directory that was just made, nor of a file that is about to be."""
    listed = ListedTree(tree)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a").write_text("mine")
    real = os.mkdir

    def replaced(name: bytes, *rest: object, **more: object) -> None:
        real(name, *rest, **more)  # type: ignore[arg-type]
        if name == b"d":
            (tmp_path / "target/d").rmdir()
            (tmp_path / "target/d").symlink_to(tmp_path / "outside")

    with monkeypatch.context() as patched:
        patched.setattr(os, "mkdir", replaced)
        with pytest.raises(PermanentError, match="cannot restore 'd/a'"):
            listed.restore(tmp_path / "target")
    (tmp_path / "target 2").mkdir()
    (tmp_path / "target 2/plain").symlink_to(tmp_path / "outside/a")
    with pytest.raises(PermanentError, match="cannot restore 'plain': File exists"):
        listed.restore(tmp_path / "target 2", b"plain")

    assert names_in(tmp_path / "outside") == [b"a"]
    assert (tmp_path / "outside/a").read_text() == "mine"


def test_links_out_of_the_tree_come_back_as_links(tree: Path, tmp_path: Path) -> None:
    """Nothing is written through them, even where names after them sort as if below."""
    (tmp_path / "outside").mkdir()
    (tree / "e").symlink_to(tmp_path / "outside")
    (tree / "e-more").write_text("x")
    listed = ListedTree(tree)

    listed.restore(tmp_path / "target")

    assert (tmp_path / "target/e").readlink() == tmp_path / "outside"
    assert names_in(tmp_path / "outside") == []


def test_a_full_disk_is_told_with_the_file(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room may be made."""
    monkeypatch.setattr(copying.os, "pwrite", _full)
    with pytest.raises(TemporaryError, match="no room for what is restored: 'd/a'"):
        ListedTree(tree).restore(tmp_path / "target")


def _full(*arguments: object) -> int:
    raise OSError(28, "No space left on device")


def test_it_ends_soon_when_it_is_cancelled(tmp_path: Path) -> None:
    """In the middle of a hole of a terabyte."""
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/huge").open("wb") as file:
        file.truncate(1 << 40)
    listed = ListedTree(tmp_path / "tree", known=lambda path, about: "0" * 64)
    calls = []

    def stop_soon() -> None:
        calls.append(1)
        if len(calls) > 4:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        listed.restore(tmp_path / "target", checkpoint=stop_soon)


def test_sockets_come_back(tree: Path, tmp_path: Path) -> None:
    """As any other name; nobody listens there."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
    listed = ListedTree(tree)

    listed.restore(tmp_path / "target")

    assert (tmp_path / "target/socket").is_socket()
    assert listed.differences(tmp_path / "target") == []


def test_paths_of_any_length_come_back(tmp_path: Path) -> None:
    """Deeper than the kernel takes at once, with hard links from the depth to the top."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "a").write_text("a")
    top = os.open(root, os.O_RDONLY)
    at_depth(root, [b"n" * 100] * 80, lambda at: os.link("a", "deepest", src_dir_fd=top, dst_dir_fd=at))
    os.close(top)
    listed = ListedTree(root)

    listed.restore(tmp_path / "target")
    listed.restore(tmp_path / "one", b"/".join([b"n" * 100] * 80) + b"/deepest")

    assert listed.differences(tmp_path / "target") == []
    assert len(photograph(tmp_path / "one")) == 82
    for name in ("tree", "target", "one"):
        erase(tmp_path / name)


@needs_another_user
def test_without_root_all_but_the_owners_comes_back() -> None:
    """That is a warning; directories that their owner must not enter are filled all the same."""
    with open_directory() as place:
        with nobody():
            make_oddities(place / "tree", for_nobody=True)
        for name in ("strange", "locked/500/strange"):
            (place / "tree" / name).write_text("of root")
        with nobody():
            (place / "tree/shut").mkdir()
            (place / "tree/shut/a").write_text("a")
            os.link(place / "tree/shut/a", place / "tree/zz")
            (place / "tree/shut").chmod(0o500)
            listed, before = ListedTree(place / "tree"), photograph(place / "tree")
            restored = listed.restore(place / "target")
            found = photograph(place / "target")
            assert listed.differences(place / "target") == []
        erase(place / "tree")
        erase(place / "target")

    assert differences(before, found, without=OWNERS) == []
    assert restored.warnings == ("the owners of 2 files could not be restored: only root can give files away",)
