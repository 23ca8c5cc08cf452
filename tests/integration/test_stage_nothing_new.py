"""A peer is staged once for each time it announces something; a run in which nobody does makes no set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.errors import NothingNew, PermanentError
from handlers.tools.peers.verdicts import Verdict
from tests.services.sshd import Sshd
from tests.workshop.pool import Pool, collected, options_of
from tests.workshop.staged import local_peer, remote_peer
from tests.workshop.tar_levels import Recorder


@pytest.fixture(params=["local", pytest.param("remote", marks=pytest.mark.service("sshd"))])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Pool:
    """A plan with one peer, of either kind, in the directory `a`, that was staged and told."""
    directory = collected(tmp_path / "a", "file")
    if request.param == "local":
        peer = local_peer(directory)
    else:
        peer = remote_peer(directory, request.getfixturevalue("sshd"))
    pool = Pool(tmp_path, {"a": peer})
    assert pool.acknowledge(pool.stage()) == []
    return pool


def test_which_indicator_was_answered_is_not_told_by_clocks(told: Pool, tmp_path: Path) -> None:
    """A clock that was wrong when the peer was told, or when it collected, changes nothing."""
    collect, stage = tmp_path / "a" / "cback.collect", tmp_path / "a" / "cback.stage"
    os.utime(stage, (1, 1))
    with pytest.raises(NothingNew, match=r"a: nothing new: cback\.stage in .* of 1970-01-01 00:00:01Z answers"):
        told.stage()

    os.utime(stage)
    os.utime(collect, (2, 2))
    assert told.stage().record("a").verdict is Verdict.STAGED


def test_the_time_of_a_mark_of_others_counts(told: Pool, tmp_path: Path) -> None:
    """CedarBackup3 writes an empty one."""
    collect, stage = tmp_path / "a" / "cback.collect", tmp_path / "a" / "cback.stage"
    stage.write_bytes(b"")
    os.utime(collect, (5, 5))
    os.utime(stage, (6, 6))
    with pytest.raises(NothingNew):
        told.stage()

    os.utime(stage, (4, 4))
    assert told.stage().record("a").verdict is Verdict.STAGED


def test_a_run_goes_on_without_peers_that_have_nothing_new(tmp_path: Path) -> None:
    """It is no loss, and keeps nobody from being done."""
    places = {name: collected(tmp_path / name, "file") for name in ("a", "b")}
    peers = {name: local_peer(place) for name, place in places.items()}
    pool = Pool(tmp_path, peers, done_indicator=str(tmp_path / "done"))
    pool.acknowledge(pool.stage())
    os.utime(places["a"] / "cback.collect")

    made = pool.stage()

    assert not (tmp_path / "done").exists()
    assert [made.record(name).verdict for name in peers] == [Verdict.STAGED, Verdict.NOTHING_NEW]
    assert made.problems() == {}
    assert not (made.tree("peers") / "b").exists()
    assert pool.acknowledge(made) == []
    assert (tmp_path / "done").read_text() == "pool/set-2\n"
    assert (places["b"] / "cback.stage").read_text().startswith("pool/set-1\n")


def test_where_nobody_has_anything_new_there_is_no_set(tmp_path: Path) -> None:
    """The run that is done stays done, whatever ails those whom nobody needs."""
    peers = {"a": local_peer(collected(tmp_path / "a", "file"))}
    done = str(tmp_path / "done")
    pool = Pool(tmp_path, peers, done_indicator=done)
    pool.acknowledge(pool.stage())
    missing = local_peer(tmp_path / "missing", ignore_failures="all")
    pool.options = options_of({**peers, "b": missing}, done_indicator=done)

    with pytest.raises(NothingNew, match=r"a: nothing new: .* answers cback.collect already; b: "):
        pool.stage()

    assert (tmp_path / "done").read_text() == "pool/set-1\n"
    pool.options = options_of({**peers, "b": local_peer(tmp_path / "missing")}, done_indicator=done)
    with pytest.raises(PermanentError, match="no peer could be staged: a: nothing new"):
        pool.stage()
    assert not (tmp_path / "done").exists()


def test_an_older_set_is_not_done_once_a_newer_run_has_begun(tmp_path: Path) -> None:
    """Its worker died before it could tell, and does so now."""
    peers = {"a": local_peer(collected(tmp_path / "a", "file"), collect_indicator=None)}
    pool = Pool(tmp_path, peers, done_indicator=str(tmp_path / "done"))
    first, second = pool.stage(), pool.stage()

    assert pool.acknowledge(first) == []
    assert not (tmp_path / "done").exists()
    assert pool.acknowledge(second) == []
    assert (tmp_path / "done").read_text() == "pool/set-2\n"


class Starting(Recorder):
    """A control that starts a server when it was asked often enough whether to go on."""

    def __init__(self, server: Sshd, after: int) -> None:
        super().__init__()
        self._server = server
        self._left = after

    def checkpoint(self) -> None:
        """Start it, at the right moment."""
        self._left -= 1
        if not self._left:
            self._server.start()


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A server that a test may stop."""
    server = Sshd(tmp_path / "own")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.service("sshd")
def test_a_peer_that_is_away_for_a_moment_is_told_all_the_same(tmp_path: Path, own_sshd: Sshd) -> None:
    """Its sshd is restarted just when the set is there."""
    directory = collected(tmp_path / "a", "file")
    pool = Pool(tmp_path, {"a": remote_peer(directory, own_sshd)})
    made = pool.stage()
    own_sshd.stop()
    pool.control = Starting(own_sshd, after=3)

    assert pool.acknowledge(made) == []
    assert (directory / "cback.stage").read_text().startswith("pool/set-1\n")
