"""A tree against its listing: what is found, and who is blamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.errors import Cancelled, IntegrityError, PermanentError
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.listed_trees import ListedTree, stored_text

SECOND = 1_000_000_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree, with times that a test can set again."""
    root = tmp_path / "tree"
    (root / "d/sub").mkdir(parents=True)
    (root / "d/a").write_text("a")
    (root / "d/sub/deep").write_text("deep")
    (root / "big").write_bytes(bytes(2 << 20))
    (root / "link").symlink_to("d/a")
    os.mkfifo(root / "pipe")
    settle(root)
    return root


def settle(root: Path) -> None:
    """Let every time be the same."""
    for path in (root, *root.rglob("*")):
        os.utime(path, ns=(0, SECOND), follow_symlinks=False)


def add(tree: Path) -> None:
    (tree / "d/more").write_text("x")


def add_at_the_end(tree: Path) -> None:
    (tree / "zz").mkdir()
    (tree / "zz/below").write_text("x")


def change_content(tree: Path) -> None:
    (tree / "d/sub/deep").write_text("peed")


def change_large_content(tree: Path) -> None:
    with (tree / "big").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"x")


def turn_into_link(tree: Path) -> None:
    (tree / "d").rename(tree.parent / "moved")
    (tree / "d").symlink_to(tree.parent / "moved")


def point_elsewhere(tree: Path) -> None:
    (tree / "link").unlink()
    (tree / "link").symlink_to("/etc/passwd")


def turn_into_pipe(tree: Path) -> None:
    (tree / "d/a").unlink()
    os.mkfifo(tree / "d/a")


CHANGES: dict[str, Callable[[Path], object]] = {
    "'d/more' should not be there": add,
    "'zz' should not be there": add_at_the_end,
    "'d/sub/deep' has SHA-256": change_content,
    "'big' has SHA-256": change_large_content,
    "'d/a' is missing": lambda tree: (tree / "d/a").unlink(),
    "'pipe' is missing": lambda tree: (tree / "pipe").unlink(),
    "'d/a' has 3 bytes, not 1": lambda tree: (tree / "d/a").write_text("abc"),
    "'d/a' has mode 0600, not 0644": lambda tree: (tree / "d/a").chmod(0o600),
    "'d/sub' has mode 0700, not 0755": lambda tree: (tree / "d/sub").chmod(0o700),
    "'.' has mode 0700, not 0755": lambda tree: tree.chmod(0o700),
    "'d' has type link, not dir": turn_into_link,
    "'d/a' has type fifo, not file": turn_into_pipe,
    "'link' points to '/etc/passwd', not 'd/a'": point_elsewhere,
}


def test_a_tree_that_is_as_listed_passes(tree: Path) -> None:
    """Names and bytes are told, as they were when it was listed."""
    listed = ListedTree(tree)
    listed.read = 0

    assert listed.check() == (7, 5 + (2 << 20))
    assert listed.read == 5 + (2 << 20)


@pytest.mark.parametrize("words", CHANGES)
def test_the_first_difference_is_named(tree: Path, words: str) -> None:
    """With the name of the tree, the path, and what there is instead."""
    listed = ListedTree(tree)

    CHANGES[words](tree)
    settle(tree)

    with pytest.raises(IntegrityError) as raised:
        listed.check()
    assert words in raised.value.message
    assert raised.value.message.startswith("tree tree: ")


def test_the_time_of_change_is_compared_to_the_nanosecond(tree: Path) -> None:
    """Of a link as well."""
    listed = ListedTree(tree)

    os.utime(tree / "link", ns=(0, SECOND + 1), follow_symlinks=False)

    with pytest.raises(IntegrityError, match="'link' was changed at 1000000001 ns, not at 1000000000 ns"):
        listed.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_are_compared(tree: Path) -> None:
    """User and group."""
    listed = ListedTree(tree)

    os.chown(tree / "d/a", 12, 34)

    with pytest.raises(IntegrityError, match="'d/a' belongs to 12:34, not 0:0"):
        listed.check()


def test_a_tree_that_is_gone_is_damage(tree: Path) -> None:
    """So is a link in its place."""
    listed = ListedTree(tree)
    tree.rename(tree.parent / "moved")
    for _ in range(2):
        with pytest.raises(IntegrityError, match="is not there"):
            listed.check()
        if not tree.is_symlink():
            tree.symlink_to("moved")


def test_a_listing_that_is_none_is_damage(tree: Path) -> None:
    """In the middle, too."""
    listed = ListedTree(tree)
    text = listed.mtree
    listed.stored = lambda size=0: stored_text(text[: len(text) // 2] + b"\n")  # type: ignore[method-assign]

    with pytest.raises(IntegrityError, match="listing line"):
        listed.check()


@needs_another_user
def test_who_may_not_read_is_told_so() -> None:
    """That is no damage."""
    with open_directory() as place:
        (place / "private").write_text("x")
        (place / "private").chmod(0o600)
        listed = ListedTree(place)
        with nobody(), pytest.raises(PermanentError, match="cannot read 'private': Permission denied"):
            listed.check()


def test_a_checkpoint_ends_it_in_the_middle_of_a_large_file(tmp_path: Path) -> None:
    """Within a blink, whatever its size."""
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/huge").open("wb") as file:
        file.truncate(1 << 40)
    listed = ListedTree(tmp_path / "tree", known=lambda path, about: "0" * 64)
    calls = []

    def stop_soon() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        listed.check(checkpoint=stop_soon)


def test_names_that_share_a_file_have_to_share_it_again(tree: Path, tmp_path: Path) -> None:
    """After a restore; in the set itself a copy without links is no damage."""
    for name in ("l1", "l2", "m1", "m2"):
        (tree / name).write_text("same")
    for name in ("l", "m"):
        (tree / f"{name}2").unlink()
        os.link(tree / f"{name}1", tree / f"{name}2")
    (tree / "n1").write_text("same")
    (tree / "n2").write_text("same")
    settle(tree)
    listed = ListedTree(tree)
    assert listed.differences(tree) == []

    (tree / "l2").unlink()
    (tree / "l2").write_text("same")
    (tree / "n2").unlink()
    os.link(tree / "n1", tree / "n2")
    settle(tree)

    listed.check()
    assert listed.differences(tree) == [
        ("l2", "is not one file with 'l1'"),
        ("n2", "should not be one file with 'n1'"),
    ]


def test_every_difference_of_a_restored_tree_is_told(tree: Path) -> None:
    """What is below a directory that should not be there is not told again."""
    listed = ListedTree(tree)

    add_at_the_end(tree)
    (tree / "d/a").unlink()
    change_content(tree)
    settle(tree)

    assert [path for path, _ in listed.differences(tree)] == ["d/a", "d/sub/deep", "zz"]
