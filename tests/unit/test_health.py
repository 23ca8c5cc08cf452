"""The worker's word about itself."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handlers.errors import PermanentError
from worker.health import FILE, FILE_BYTES, HealthFile, look

WRITES_AND_DIES = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from worker.health import HealthFile
HealthFile(Path(sys.argv[1]), "n1", datetime.now(UTC)).beat([])
os.kill(os.getpid(), 9)
"""
STARTED = datetime(2026, 11, 21, tzinfo=UTC)


def now() -> datetime:
    """The time of the file system's clock."""
    return datetime.now(UTC)


def test_where_no_worker_runs_there_is_nothing_to_see(tmp_path: Path) -> None:
    """Neither before the first nor after a good end."""
    assert look(tmp_path, now=now()) is None

    health = HealthFile(tmp_path, "n1", STARTED)
    health.beat([])
    health.close()

    assert look(tmp_path, now=now()) is None


def test_a_worker_tells_that_it_is_ready(tmp_path: Path) -> None:
    """And who it is."""
    HealthFile(tmp_path, "n1", STARTED).beat([])

    seen = look(tmp_path, now=now() + timedelta(seconds=7))

    assert seen is not None
    health, age = seen
    assert (health.pid, health.node, health.started, health.ready) == (os.getpid(), "n1", STARTED, True)
    assert timedelta(seconds=6) < age < timedelta(seconds=60)


def test_what_keeps_it_from_its_work_is_told(tmp_path: Path) -> None:
    """However long and many, the file keeps its size: it is written where no room is left."""
    file = HealthFile(tmp_path, "n1", STARTED)
    sizes = set()
    for causes in ([], ["store disk is away"], ["ä" * 1000] * 50, []):
        file.beat(causes)
        sizes.add((tmp_path / FILE).stat().st_size)
        seen = look(tmp_path, now=now())
        assert seen is not None
        assert seen[0].ready == (not causes)

    assert sizes == {FILE_BYTES}


def test_a_state_directory_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / FILE).mkdir()

    with pytest.raises(PermanentError, match=FILE):
        HealthFile(tmp_path, "n1", STARTED)


def test_the_end_of_one_worker_does_not_silence_another(tmp_path: Path) -> None:
    """One that is being replaced may overlap with the next; and somebody may tidy up."""
    first, second = HealthFile(tmp_path, "n1", STARTED), HealthFile(tmp_path, "n2", STARTED)
    first.close()
    second.beat([])
    assert look(tmp_path, now=now()) is not None
    (tmp_path / FILE).unlink()

    second.beat([])

    seen = look(tmp_path, now=now())
    assert seen is not None
    assert seen[0].node == "n2"


def test_a_worker_that_starts_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Whatever a dead one left."""
    HealthFile(tmp_path, "n1", STARTED)

    seen = look(tmp_path, now=now())

    assert seen is not None
    assert seen[0].causes == ("it is starting",)


def test_the_word_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    """Where it can be seen that it is dead: in the same container, since the same start of the machine."""
    done = subprocess.run(
        [sys.executable, "-c", WRITES_AND_DIES, str(tmp_path)], capture_output=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == -9, done.stderr
    assert (tmp_path / FILE).exists()

    assert look(tmp_path, now=now()) is None


def test_names_that_are_no_text_are_told_all_the_same(tmp_path: Path) -> None:
    """A cause may quote the name of a file."""
    file = HealthFile(tmp_path, "n1", STARTED)

    file.beat(["store \udcff is away"])

    seen = look(tmp_path, now=now())
    assert seen is not None
    assert not seen[0].ready
