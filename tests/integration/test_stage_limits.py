"""What a peer may offer at most, and what our own file system takes."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.peers.verdicts import Verdict
from tests.services.sshd import Sshd
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.pool import Pool, collected
from tests.workshop.staged import local_peer, remote_peer, staged

MIB = 1 << 20


@contextmanager
def files_below(size_bytes: int) -> Iterator[None]:
    """Inside, no file may become larger; the system says EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_peer_with_more_bytes_than_allowed_has_failed(tmp_path: Path) -> None:
    """Nothing of it is in the set; the others are staged."""
    directory = collected(tmp_path / "a", "1", "sub/2")
    (directory / "sub" / "large").write_bytes(bytes(MIB))
    peers = {"a": local_peer(directory, max_bytes=MIB), "b": local_peer(collected(tmp_path / "b", "file"))}
    pool = Pool(tmp_path, peers)

    made = pool.stage()

    assert made.record("a").verdict is Verdict.FAILED
    assert made.record("a").reason == (
        "its files have more than 1048576 bytes (clear its collect directory, or raise max_bytes)"
    )
    assert not (made.tree("peers") / "a").exists()
    assert set(staged(made.directory, "b")) == {"file"}


def test_a_file_beyond_the_limit_is_not_even_begun(tmp_path: Path) -> None:
    """It may be larger than our disk: this one is, if its hole counts."""
    directory = collected(tmp_path / "a")
    with (directory / "large").open("wb") as file:
        file.truncate(1 << 40)
    pool = Pool(tmp_path, {"a": local_peer(directory, max_bytes=MIB, deadline_seconds=60)})

    with pytest.raises(PermanentError, match="its files have more than 1048576 bytes"):
        pool.stage()


def test_a_peer_with_as_many_bytes_as_allowed_is_staged(tmp_path: Path) -> None:
    """Also by a retry, which counts what is there already."""
    directory = collected(tmp_path / "a", "1", "2")
    size = sum(path.stat().st_size for path in directory.iterdir())
    late = tmp_path / "late"
    peers = {"a": local_peer(directory, max_bytes=size), "b": local_peer(late, deadline_seconds=0.001)}
    pool = Pool(tmp_path, peers)
    collected(late, *(f"file-{number}" for number in range(500)))
    with pytest.raises(TemporaryError, match=r"1 of 2 peers may come back: b"):
        pool.stage(last_try=False)

    assert pool.stage().record("a").verdict is Verdict.STAGED


@pytest.mark.service("sshd")
@pytest.mark.parametrize("transfer", ["rsync", "scp"])
def test_nothing_is_fetched_from_a_peer_that_lists_more_than_allowed(tmp_path: Path, sshd: Sshd, transfer: str) -> None:
    """Its own list says so beforehand."""
    directory = collected(tmp_path / "a", "1", "sub/2")
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    peer = remote_peer(directory, sshd, transfer=transfer, max_bytes=size)
    assert Pool(tmp_path, {"a": peer}).stage().record("a").verdict is Verdict.STAGED
    pool = Pool(tmp_path / "less", {"a": {**peer, "max_bytes": size - 1, "again": True}})

    with pytest.raises(PermanentError, match=f"its files have more than {size - 1} bytes"):
        pool.stage()

    assert not any(report.bytes_in for report in pool.control.reports)


@pytest.mark.service("sshd")
def test_holes_in_the_files_of_a_remote_peer_take_no_room(tmp_path: Path, sshd: Sshd) -> None:
    """The image of a disk of terabytes may hold little."""
    directory = collected(tmp_path / "a")
    with (directory / "image").open("wb") as file:
        file.seek(8 * MIB)
        file.write(b"middle")
        file.truncate(24 * MIB)
    pool = Pool(tmp_path, {"a": remote_peer(directory, sshd, transfer="rsync")})

    made = pool.stage()

    image = staged(made.directory, "a")["image"]
    assert image.stat().st_size == 24 * MIB
    assert image.stat().st_blocks * 512 < 2 * MIB
    assert made.record("a").verdict is Verdict.STAGED


def test_a_file_that_our_file_system_does_not_take_is_named(tmp_path: Path) -> None:
    """The rest of its peer is there, and all of the others."""
    directory = collected(tmp_path / "a", "sub/small")
    (directory / "large").write_bytes(bytes(2 * MIB))
    pool = Pool(tmp_path, {"a": local_peer(directory), "b": local_peer(collected(tmp_path / "b", "file"))})

    with files_below(MIB):
        made = pool.stage()

    assert made.problems()["peers/a/large"] is ProblemKind.OTHER
    assert set(staged(made.directory, "a")) == {"sub/small"}
    assert made.record("a").verdict is Verdict.INCOMPLETE
    assert made.record("b").verdict is Verdict.STAGED


@needs_another_user
def test_an_owner_that_cannot_be_given_fails_at_once() -> None:
    """No retry helps a worker that is not root; the hint says what does."""
    with open_directory() as place, nobody():
        pool = Pool(place, {"a": local_peer(collected(place / "a", "file"))}, owner="12:34")

        with pytest.raises(PermanentError, match="only root can give files away"):
            pool.stage()


def test_a_collect_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """What was looked at is what is staged."""
    collected(tmp_path / "a", "file")
    (tmp_path / "link").symlink_to(tmp_path / "a")

    with pytest.raises(PermanentError, match="it is a symbolic link: name the directory itself"):
        Pool(tmp_path, {"a": local_peer(tmp_path / "link")}).stage()
