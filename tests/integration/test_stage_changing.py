"""What changes while it is staged is taken again, or named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import NothingNew, TemporaryError
from handlers.tools.peers.verdicts import Verdict
from tests.faults.small_disk import small_disk
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.peers import files_below
from tests.workshop.pool import Interfering, Pool, collected, meanwhile
from tests.workshop.staged import local_peer, staged

PIECE = bytes(range(256)) * 4096
"""A file that takes a moment to read consists of some of these."""


def test_a_file_that_never_stands_still_is_named(tmp_path: Path) -> None:
    """It is in the set as it was read last; the peer is not told that all is well."""
    directory = collected(tmp_path / "a", "quiet")
    log = directory / "log"
    log.write_bytes(PIECE)
    pool = Pool(tmp_path, {"a": local_peer(directory)})

    def grow() -> None:
        with log.open("ab") as file:
            file.write(b"x")

    with meanwhile(grow):
        made = pool.stage(bandwidth_bytes_per_second=8 << 20)

    assert set(staged(made.directory, "a")) == {"quiet", "log"}
    assert made.problems() == {"peers/a/log": ProblemKind.CHANGED, "peers/a": ProblemKind.OTHER}
    assert made.record("a").verdict is Verdict.INCOMPLETE
    assert made.record("a").taken_again > 0
    pool.acknowledge(made)
    assert not (directory / "cback.stage").exists()


def test_what_comes_and_changes_while_others_are_copied_is_taken_again(tmp_path: Path) -> None:
    """The peer is looked at once more when all was copied."""
    directory = collected(tmp_path / "a", "0-early", "sub/early", "sub/gone")
    (directory / "large").write_bytes(PIECE * 30)
    pool = Pool(tmp_path, {"a": local_peer(directory)})
    pool.control = Interfering(2 << 20, lambda: _change(directory))

    made = pool.stage(bandwidth_bytes_per_second=30 << 20)

    files = staged(made.directory, "a")
    assert files["0-early"].read_text() == "changed"
    assert files["sub/early"].read_text() == "changed"
    assert files["later/new"].read_text() == "new"
    assert made.record("a").verdict is Verdict.STAGED
    assert made.record("a").taken_again >= 2
    assert made.made.problems == ()


def test_a_retry_takes_only_what_is_missing(tmp_path: Path) -> None:
    """What an earlier attempt has brought is kept where its SHA-256 is that of the peer's file."""
    directory = collected(tmp_path / "a", "same", "sub/same", "other", "gone")
    os.utime(directory / "other", (1, 1))
    late = tmp_path / "late"
    peers = {"a": local_peer(directory), "b": local_peer(late, deadline_seconds=0.001)}
    pool = Pool(tmp_path, peers)
    collected(late, *(f"file-{number}" for number in range(2000)))
    with pytest.raises(TemporaryError, match=r"1 of 2 peers may come back: b: it took longer than 0\.001 s"):
        pool.stage(last_try=False)
    (left,) = (tmp_path / "store" / ".holdfast" / "unfinished").glob("*/peers/a")
    inode = (left / "sub" / "same").stat().st_ino
    (left / "other").write_text("damage of other"[: len("content of other")].ljust(len("content of other")))
    os.utime(left / "other", (1, 1))
    (left / "planted").write_text("x")
    (left / "outside").symlink_to("/etc")
    (directory / "gone").unlink()
    shutil.rmtree(late)

    made = pool.stage()

    files = staged(made.directory, "a")
    assert set(files) == {"same", "sub/same", "other"}
    assert files["other"].read_text() == "content of other"
    assert files["sub/same"].stat().st_ino == inode
    assert made.record("a").kept == 2
    assert made.problems() == {"peers/b": ProblemKind.OTHER}
    assert [path.name for path in (tmp_path / "store" / ".holdfast").glob("unfinished/*")] == []


@needs_another_user
def test_what_cannot_be_compared_is_not_kept() -> None:
    """A directory, or a file, that was open at the first attempt, and is closed at the second."""
    with open_directory() as place, nobody():
        directory = collected(place / "a", "good", "closed", "sub/file")
        late = collected(place / "b", *(f"file-{number}" for number in range(2000)))
        pool = Pool(place, {"a": local_peer(directory), "b": local_peer(late, deadline_seconds=0.001)})
        with pytest.raises(TemporaryError):
            pool.stage(last_try=False)
        assert list((place / "store" / ".holdfast" / "unfinished").glob("*/peers/a/sub/file"))
        (directory / "closed").chmod(0)
        (directory / "sub").chmod(0)

        made = pool.stage()

        (directory / "sub").chmod(0o700)
        assert set(staged(made.directory, "a")) == {"good"}
        assert made.record("a").problem_count == 2


def test_a_leftover_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """Whoever could write there must not have us write, or remove, anything in another place."""
    directory = collected(tmp_path / "a", "file", "sub/file")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    pool = Pool(tmp_path, {"a": local_peer(directory), "b": local_peer(tmp_path / "b", deadline_seconds=0.001)})
    collected(tmp_path / "b", *(f"file-{number}" for number in range(2000)))
    with pytest.raises(TemporaryError):
        pool.stage(last_try=False)
    (left,) = (tmp_path / "store" / ".holdfast" / "unfinished").glob("*/peers/a")
    shutil.rmtree(left / "sub")
    (left / "sub").symlink_to(outside)
    (left / "file").unlink()
    os.link(outside / "file", left / "file")

    made = pool.stage()

    assert staged(made.directory, "a")["sub/file"].read_text() == "content of sub/file"
    assert staged(made.directory, "a")["file"].stat().st_nlink == 1
    assert (outside / "file").read_text() == "precious"
    assert (outside / "file").stat().st_nlink == 1


def test_the_last_try_keeps_what_has_come(tmp_path: Path) -> None:
    """Of a peer that took too long there is what was copied whole; the set is partial."""
    peers = {
        "a": local_peer(collected(tmp_path / "a", "file")),
        "b": local_peer(collected(tmp_path / "b", *(f"file-{n}" for n in range(2000))), deadline_seconds=0.05),
    }
    pool = Pool(tmp_path, peers)

    made = pool.stage()

    assert made.record("b").verdict is Verdict.UNREACHABLE
    assert made.problems() == {"peers/b": ProblemKind.OTHER}
    staged(made.directory, "b")


def test_nobody_staged_in_the_last_try_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    """Unlike peers that are not ready: those need somebody to do something."""
    directory = collected(tmp_path / "a", *(f"file-{number}" for number in range(2000)))
    pool = Pool(tmp_path, {"a": local_peer(directory, deadline_seconds=0.001)})

    with pytest.raises(TemporaryError, match="no peer could be staged"):
        pool.stage()


def test_a_peer_is_staged_once_for_each_indicator(tmp_path: Path) -> None:
    """Cedar's fault: an indicator counted for ever, so that the next day brought the old files as new ones."""
    directory = collected(tmp_path / "a", "file")
    pool = Pool(tmp_path, {"a": local_peer(directory)})
    pool.acknowledge(pool.stage())

    with pytest.raises(NothingNew, match=r"a: nothing new: cback\.stage in .* of 2.* answers cback\.collect already"):
        pool.stage()

    (directory / "file").unlink()
    (directory / "fresh").touch()
    os.utime(directory / "cback.collect")
    assert set(staged(pool.stage().directory, "a")) == {"fresh"}


def test_a_peer_is_staged_again_where_that_is_asked_for(tmp_path: Path) -> None:
    """For those who want another copy of the same."""
    pool = Pool(tmp_path, {"a": local_peer(collected(tmp_path / "a", "file"), again=True)})
    pool.acknowledge(pool.stage())

    assert pool.stage().record("a").verdict is Verdict.STAGED


def test_a_full_disk_is_no_fault_of_a_peer(tmp_path: Path) -> None:
    """The whole run waits, and says what to do."""
    directory = collected(tmp_path / "a", "file")
    (directory / "large").write_bytes(PIECE * 8)
    with small_disk(tmp_path / "small", kibibytes=4096) as place:
        pool = Pool(place, {"a": local_peer(directory, ignore_failures="all")})

        with pytest.raises(TemporaryError, match="cannot write large into the set") as caught:
            pool.stage()

    assert caught.value.hint == "free some space"


def test_a_directory_that_is_swapped_for_a_link_leads_nowhere(tmp_path: Path) -> None:
    """Whoever may write in a collect directory must not have us read what only we may read."""
    directory = collected(tmp_path / "a", "sub/file", "other")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")

    def swap() -> None:
        (directory / "sub").rename(tmp_path / "aside")
        (directory / "sub").symlink_to(outside)
        (directory / "sub").unlink()
        (tmp_path / "aside").rename(directory / "sub")

    with meanwhile(swap):
        for number in range(5):
            made = Pool(tmp_path / str(number), {"a": local_peer(directory, links="keep")}).stage()
            assert b"secret" not in files_below(made.tree("peers") / "a").values()


def _change(directory: Path) -> None:
    (directory / "0-early").write_text("changed")
    (directory / "sub" / "early").write_text("changed")
    (directory / "sub" / "gone").unlink()
    (directory / "later").mkdir()
    (directory / "later" / "new").write_text("new")
