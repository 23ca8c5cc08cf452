"""What is looked at without writing anything: checks, and the dry run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.server import free_port
from tests.services.sshd import Sshd
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.pool import Pool, collected
from tests.workshop.staged import local_peer, remote_peer

pytestmark = pytest.mark.service("sshd")


def test_a_dry_run_tells_of_each_peer_whether_it_is_ready(tmp_path: Path, sshd: Sshd) -> None:
    """How much there is to fetch, or why nothing is; nothing is written anywhere."""
    ready = collected(tmp_path / "ready", "1", "sub/2")
    peers = {
        "here": local_peer(ready),
        "there": remote_peer(ready, sshd, ignore_failures="all"),
        "bare": remote_peer(collected(tmp_path / "bare", "1", indicator=None), sshd),
        "gone": remote_peer(ready, sshd, port=free_port()),
        "missing": local_peer(tmp_path / "missing"),
    }
    pool = Pool(tmp_path, peers)
    before = sorted(ready.rglob("*"))

    told = pool.handler.prepare(pool.job()).describe()["peers"]

    assert isinstance(told, dict)
    sizes = {"files": 3, "bytes": len("content of 1content of sub/2")}
    assert told["here"] == {"required": True, "ready": True, **sizes}
    assert told["there"] == {"required": False, "ready": True, **sizes}
    assert told["bare"] == {"required": True, "ready": False, "reason": f"{tmp_path}/bare has no cback.collect"}
    assert told["gone"]["reason"].startswith("no connection with 127.0.0.1")
    assert "No such file" in told["missing"]["reason"]
    assert sorted(ready.rglob("*")) == before


def test_a_check_finds_what_would_keep_peers_from_being_staged(tmp_path: Path, sshd: Sshd) -> None:
    """Everything at once, connecting to nobody."""
    open_key = tmp_path / "key"
    open_key.write_bytes(sshd.key.read_bytes())
    open_key.chmod(0o644)
    good = collected(tmp_path / "good")
    peers = {
        "good": local_peer(good),
        "there": remote_peer(good, sshd),
        "missing": local_peer(tmp_path / "missing"),
        "open": remote_peer(good, sshd, identity_file=str(open_key)),
        "unknown": remote_peer(good, sshd, host="192.0.2.1"),
        "strange": local_peer(good, indicator_owner="nosuchuser:nogroup"),
    }
    pool = Pool(tmp_path, peers, done_indicator="/nowhere/done", owner="nosuchuser:nogroup")

    said = "\n".join(pool.handler.check(pool.options))

    for words in (
        "peer missing: collect directory",
        f"peer open: identity file {open_key} is open to others",
        f"peer unknown: {sshd.known_hosts} has no key of 192.0.2.1",
        "peer strange: there is no such user",
        "done_indicator /nowhere/done cannot be written",
        "there is no such user or group on this machine: nosuchuser:nogroup",
    ):
        assert words in said
    assert "peer good" not in said
    assert "peer there" not in said


@needs_another_user
def test_a_check_finds_a_directory_in_which_nobody_can_be_told() -> None:
    """The set would be made, and the peer would wait for ever."""
    with open_directory() as place:
        directory = collected(place / "a", "file")
        directory.chmod(0o755)
        (place / "store").mkdir()
        with nobody():
            pool = Pool(place, {"a": local_peer(directory)})

            (said,) = pool.handler.check(pool.options)

    assert said == f"peer a: cback.stage cannot be written: {directory} is not writable"
