"""What people who tried it stumbled over, and do not any more."""

from __future__ import annotations

import shutil
from pathlib import Path

import orjson
import pytest

from tests.workshop.workers import Hire, Worker


@pytest.fixture
def worker(hire: Hire, tmp_path: Path) -> Worker:
    """Three levels of a small tree."""
    subject = tmp_path / "subject"
    subject.mkdir()
    made: Worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    for number in range(3):
        (subject / f"file-{number}").write_text(f"content {number}")
        assert made.run("backup", "web").returncode == 0
    return made


def in_order(worker: Worker) -> list[Path]:
    """The sets by level."""
    return sorted(worker.sets(), key=lambda made: orjson.loads((made / "manifest.json").read_bytes())["level"])


def test_damaged_newest_manifest_is_no_reason_to_restore_an_older_state(worker: Worker, tmp_path: Path) -> None:
    """Not without a word: the person names the set they want."""
    manifest = in_order(worker)[2] / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes() + b"x")

    done = worker.run("restore", "web", str(tmp_path / "restored"))

    assert done.returncode == 6
    assert b"name the set you mean" in done.stderr
    assert not (tmp_path / "restored").exists()


def test_set_without_its_parent_does_not_verify(worker: Worker) -> None:
    """It cannot be restored, whatever its own checksums say."""
    shutil.rmtree(in_order(worker)[1])

    done = worker.run("verify", "web")

    assert done.returncode == 6
    assert b"is missing" in done.stderr


def test_sets_that_build_on_a_damaged_one_are_told(worker: Worker) -> None:
    """`--all` says which."""
    (data,) = in_order(worker)[0].glob("data.tar*")
    data.chmod(0o600)
    data.write_bytes(b"x" + data.read_bytes()[1:])

    done = worker.run("verify", "web", "--all")

    assert done.returncode == 6
    assert done.stdout.count(b"damaged") == 3
    assert done.stderr.count(b"builds on") == 2


def test_missing_part_is_a_matter_of_integrity(worker: Worker) -> None:
    """It wakes a person."""
    (data,) = in_order(worker)[2].glob("data.tar*")
    data.unlink()

    assert worker.run("verify", "web").returncode == 6


def test_store_that_is_away_does_not_keep_others_from_working(worker: Worker, tmp_path: Path) -> None:
    """A plan's sets are in its own store."""
    config = orjson.loads(worker.config.read_bytes())
    config["stores"]["usb"] = {"kind": "local", "path": str(tmp_path / "unplugged")}
    config["plans"]["web"]["store"] = "disk"
    worker.config.write_bytes(orjson.dumps(config))

    assert worker.run("verify", "web").returncode == 0
    assert worker.run("list", "web").returncode == 0
    assert worker.run("restore", in_order(worker)[2].name, str(tmp_path / "restored")).returncode == 0


def test_restore_counts_what_is_there_afterwards(worker: Worker, tmp_path: Path) -> None:
    """Not the members of all levels."""
    done = worker.run("restore", "web", str(tmp_path / "restored"), "--json")

    assert orjson.loads(done.stdout.splitlines()[-1])["files"] == 3


def test_path_may_begin_with_a_slash(worker: Worker, tmp_path: Path) -> None:
    """As people type it for a plan of the root directory."""
    done = worker.run("restore", "web", str(tmp_path / "one"), "--path", "/file-1")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "file-1").read_text() == "content 1"


def test_dropped_exclude_pattern_brings_old_files_into_the_next_set(worker: Worker, tmp_path: Path) -> None:
    """They are as old as the first level, and were never in any."""
    subject = tmp_path / "subject"
    (subject / "cache").mkdir()
    (subject / "cache" / "old").write_text("old")
    config = orjson.loads(worker.config.read_bytes())
    config["plans"]["web"]["options"]["exclude"] = ["cache"]
    worker.config.write_bytes(orjson.dumps(config))
    assert worker.run("backup", "web").returncode == 0
    del config["plans"]["web"]["options"]["exclude"]
    worker.config.write_bytes(orjson.dumps(config))
    assert worker.run("backup", "web").returncode == 0

    assert worker.run("restore", "web", str(tmp_path / "restored")).returncode == 0

    assert (tmp_path / "restored" / "cache" / "old").read_text() == "old"


def test_problems_of_plans_are_told_together_with_all_others(worker: Worker) -> None:
    """All at once."""
    config = orjson.loads(worker.config.read_bytes())
    config["concurency"] = 3
    config["plans"]["web"]["options"]["exlude"] = []
    config["plans"]["db"] = {"handler": "tarr"}
    worker.config.write_bytes(orjson.dumps(config))

    done = worker.run("config", "check")

    assert done.returncode == 2
    for word in (b"concurency", b"exlude", b"tarr"):
        assert word in done.stderr


def test_command_beside_a_busy_worker_reports_its_own_backup(worker: Worker) -> None:
    """The worker must not take the request that somebody waits for."""
    worker.start()
    for number in range(3):
        worker.ask(f"r{number}", level="full")
        done = worker.run("backup", "web", "--json")

        assert done.returncode == 0, done.stderr
        assert orjson.loads(done.stdout.splitlines()[-1])["outcome"] == "succeeded"
    worker.wait_outcome("r2")


def test_deeply_nested_message_is_refused_and_the_worker_lives(worker: Worker) -> None:
    """It was one message that ended every worker."""
    worker.start()
    file = worker.spool / "tmp" / "nested.json"
    file.write_bytes(b'{"id":"x","plan":"web","z":' + b"[" * 300 + b"]" * 300 + b"}")
    file.rename(worker.spool / "new" / file.name)
    worker.ask("r1")

    assert worker.wait_outcome("r1")["outcome"] == "succeeded"
    assert "refused" in worker.outcomes()
    assert worker.stop() == 0


def test_lock_that_cannot_be_opened_stops_only_its_plan(worker: Worker) -> None:
    """Somebody was root once, for instance."""
    lock = worker.place / "state" / "locks" / "web.lock"
    lock.unlink()
    lock.mkdir()
    worker.start()
    worker.ask("r1")

    assert worker.run("status").returncode == 0
    assert not worker.ended
    lock.rmdir()
    assert worker.wait_outcome("r1")["outcome"] == "succeeded"
    assert worker.stop() == 0
