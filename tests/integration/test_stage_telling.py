"""Peers are told that they were staged, but nothing that is not true."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from tests.services.sshd import Sshd
from tests.workshop.another_user import needs_another_user
from tests.workshop.pool import Pool, collected
from tests.workshop.staged import local_peer, remote_peer


@pytest.fixture(params=["local", pytest.param("remote", marks=pytest.mark.service("sshd"))])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Pool:
    """A plan with one peer, of either kind, in the directory `a`."""
    directory = collected(tmp_path / "a", "file")
    if request.param == "local":
        peer = local_peer(directory, indicator_mode="0640")
    else:
        sshd: Sshd = request.getfixturevalue("sshd")
        peer = remote_peer(directory, sshd, indicator_mode="0640")
    return Pool(tmp_path, {"a": peer}, done_indicator=str(tmp_path / "done"))


def test_a_peer_is_told_which_set_it_is_in(pool: Pool, tmp_path: Path) -> None:
    """One line, with the mode that was asked for; nothing else is left in its directory."""
    made = pool.stage()

    assert pool.acknowledge(made) == []
    mark = tmp_path / "a" / "cback.stage"
    assert mark.read_text().startswith("pool/set-1\n")
    assert stat.S_IMODE(mark.stat().st_mode) == 0o640
    assert sorted(path.name for path in mark.parent.iterdir()) == ["cback.collect", "cback.stage", "file"]
    assert (tmp_path / "done").read_text() == "pool/set-1\n"


def test_a_peer_that_has_collected_anew_is_not_told(pool: Pool, tmp_path: Path) -> None:
    """Its new files are in no set yet; a redelivery of the old request must not say so."""
    made = pool.stage()
    os.utime(tmp_path / "a" / "cback.collect", (time.time() + 5, time.time() + 5))

    (said,) = pool.acknowledge(made)

    assert said.startswith("peer a was not told that it was staged: cback.collect in")
    assert not (tmp_path / "a" / "cback.stage").exists()


def test_a_peer_whose_indicator_is_gone_is_not_told(pool: Pool, tmp_path: Path) -> None:
    """It has purged what was staged, or begun anew."""
    made = pool.stage()
    (tmp_path / "a" / "cback.collect").unlink()

    assert len(pool.acknowledge(made)) == 1
    assert not (tmp_path / "a" / "cback.stage").exists()


def test_telling_again_changes_nothing(pool: Pool, tmp_path: Path) -> None:
    """After a crash, or when the same request comes again."""
    made = pool.stage()
    pool.acknowledge(made)

    assert pool.acknowledge(made) == []
    assert (tmp_path / "a" / "cback.stage").read_text().startswith("pool/set-1\n")


def test_an_older_set_does_not_take_back_what_a_newer_one_has_told(tmp_path: Path) -> None:
    """Peers without a collect indicator, and the indicator of the whole run."""
    directory = collected(tmp_path / "a", "file", indicator=None)
    pool = Pool(tmp_path, {"a": local_peer(directory, collect_indicator=None)}, done_indicator=str(tmp_path / "done"))
    first, second = pool.stage(), pool.stage()
    pool.acknowledge(second)

    assert pool.acknowledge(first) == []
    assert (directory / "cback.stage").read_text().startswith("pool/set-2\n")
    assert (tmp_path / "done").read_text() == "pool/set-2\n"


def test_a_peer_that_cannot_be_told_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    """A sentence tells which one, and why."""
    peers = {name: local_peer(collected(tmp_path / name, "file")) for name in ("a", "b")}
    pool = Pool(tmp_path, peers)
    made = pool.stage()
    (tmp_path / "a" / "cback.stage").mkdir()

    (said,) = pool.acknowledge(made)

    assert said.startswith("peer a was not told")
    assert (tmp_path / "b" / "cback.stage").exists()


def test_a_link_in_the_place_of_the_stage_indicator_is_replaced(tmp_path: Path) -> None:
    """What it points to is another file's business."""
    directory = collected(tmp_path / "a", "file")
    (tmp_path / "precious").write_text("precious")
    (directory / "cback.stage").symlink_to(tmp_path / "precious")
    pool = Pool(tmp_path, {"a": local_peer(directory)})

    assert pool.acknowledge(pool.stage()) == []
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (directory / "cback.stage").is_symlink()


@needs_another_user
def test_the_stage_indicator_belongs_to_whom_the_peer_wants(tmp_path: Path) -> None:
    """By number or by name."""
    directory = collected(tmp_path / "a", "file")
    pool = Pool(tmp_path, {"a": local_peer(directory, indicator_owner="nobody:34")})

    pool.acknowledge(pool.stage())

    about = (directory / "cback.stage").stat()
    assert (about.st_uid, about.st_gid) == (65534, 34)


def test_a_set_whose_report_is_damaged_tells_nobody(tmp_path: Path) -> None:
    """And says so."""
    pool = Pool(tmp_path, {"a": local_peer(collected(tmp_path / "a", "file"))})
    made = pool.stage()
    report = made.directory / "peers.json"
    report.chmod(0o600)
    report.write_bytes(report.read_bytes().replace(b"staged", b"Staged"))

    (said,) = pool.acknowledge(made)

    assert said.startswith("no peer was told")
    assert not (tmp_path / "a" / "cback.stage").exists()
