"""What the SQLite journal keeps when processes die, disks fill up and files are damaged."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handlers.errors import PermanentError
from tests.faults.small_disk import fill, remount, small_disk
from worker.intake.wire import BackupRequest, RequestData, RequestId
from worker.journal.protocol import Attached, Begun, JournalDamaged, JournalUnavailable
from worker.journal.sqlite import SqliteJournal
from worker.lifecycle import State

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from worker.intake.wire import BackupRequest, RequestData
from worker.journal.sqlite import SqliteJournal

path, prefix, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
journal = SqliteJournal(path)
for number in range(count):
    request = BackupRequest(request_id=f"{prefix}{number}", data=RequestData(plan="photos"))
    beginning = journal.begin(request, intake="queue", redelivered=False, now=datetime.now(UTC))
    print(request.request_id, type(beginning).__name__, flush=True)
journal.close()
"""


@contextmanager
def writer(path: Path, prefix: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that begins requests, and says so after each."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), prefix, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


def asked(name: str) -> BackupRequest:
    """A request of this name."""
    return BackupRequest(request_id=name, data=RequestData(plan="photos", reason="x" * 500))


def begin(journal: SqliteJournal, name: str) -> object:
    """Take a request in."""
    return journal.begin(asked(name), intake="queue", redelivered=False, now=NOW)


def begin_many(journal: SqliteJournal, accepted: list[str]) -> None:
    """Go on after `accepted`, adding each name that the journal took."""
    while len(accepted) < 100_000:
        name = f"r{len(accepted)}"
        begin(journal, name)
        accepted.append(name)


@pytest.mark.parametrize("after", [1, 50, 500])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, after: int) -> None:
    """Whatever a killed process had been told is in the journal is there, and the journal goes on."""
    path = tmp_path / "journal.db"

    with writer(path, "r", 1_000_000) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(after)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [line for line in process.stdout if line.endswith("\n")]

    with closing(SqliteJournal(path)) as journal:
        missing = [line for line in acknowledged if journal.entry(RequestId(line.split()[0])) is None]
        assert missing == []
        assert journal.unfinished() in {len(acknowledged), len(acknowledged) + 1}
        assert isinstance(begin(journal, "fresh"), Begun)


def test_two_processes_give_each_request_one_beginning(tmp_path: Path) -> None:
    """They make the file at the same time, write at the same time, and never both begin the same request."""
    path = tmp_path / "journal.db"

    with writer(path, "same", 300) as one, writer(path, "same", 300) as other, writer(path, "own", 300) as third:
        lines = [line.split() for process in (one, other, third) for line in process.stdout or ()]

    assert [process.returncode for process in (one, other, third)] == [0, 0, 0]
    assert len(lines) == 900
    assert sum(word == "Begun" for _, word in lines) == 600
    with closing(SqliteJournal(path)) as journal:
        assert journal.unfinished() == 600


def test_threads_share_one_journal(tmp_path: Path) -> None:
    """Eight threads that begin the same requests begin each of them once."""
    found: list[object] = []
    with closing(SqliteJournal(tmp_path / "journal.db")) as journal:

        def work() -> None:
            found.extend(begin(journal, f"r{number}") for number in range(50))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sum(isinstance(one, Begun) for one in found) == 50
        assert sum(isinstance(one, Attached) for one in found) == 350


def test_a_full_disk_promises_nothing_and_loses_nothing(tmp_path: Path) -> None:
    """Begin fails as long as there is no room; what was accepted before stays, and work goes on when there is room."""
    with small_disk(tmp_path / "disk", kibibytes=2048) as disk:
        path = disk / "journal.db"
        with closing(SqliteJournal(path)) as journal:
            accepted = [f"r{number}" for number in range(20) if begin(journal, f"r{number}")]
            ballast = fill(disk)
            with pytest.raises(JournalUnavailable) as refusal:
                begin_many(journal, accepted)

            assert "make room" in str(refusal.value)
            assert [name for name in accepted if journal.entry(RequestId(name)) is None] == []
            assert journal.unfinished() == len(accepted)
            with pytest.raises(JournalUnavailable):
                begin(journal, "still full")

            ballast.unlink()
            assert isinstance(begin(journal, f"r{len(accepted)}"), Begun)
            journal.advance(RequestId("r0"), State.STORED, now=NOW)
        with closing(SqliteJournal(path)) as journal:
            assert journal.unfinished() == len(accepted) + 1


def test_a_full_disk_lets_no_journal_open(tmp_path: Path) -> None:
    """The error says what to do; nothing half-made keeps the next start from working."""
    with small_disk(tmp_path / "disk", kibibytes=512) as disk:
        ballast = fill(disk)

        with pytest.raises(JournalUnavailable):
            SqliteJournal(disk / "journal.db")

        ballast.unlink()
        with closing(SqliteJournal(disk / "journal.db")) as journal:
            assert isinstance(begin(journal, "a"), Begun)


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    """It is a matter of the disk, not of the file."""
    with small_disk(tmp_path / "disk", kibibytes=2048) as disk:
        path = disk / "journal.db"
        with closing(SqliteJournal(path)) as journal:
            begin(journal, "a")
        remount(disk, "ro")

        with pytest.raises(JournalUnavailable, match=str(path)):
            SqliteJournal(path)


def test_a_journal_that_is_locked_for_too_long_is_unavailable(tmp_path: Path) -> None:
    """The other one is to blame; afterwards it works."""
    path = tmp_path / "journal.db"
    with closing(SqliteJournal(path, busy_seconds=0.05)) as journal, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(JournalUnavailable, match="locked"):
            begin(journal, "a")
        assert journal.entry(RequestId("a")) is None

        other.rollback()
        assert isinstance(begin(journal, "a"), Begun)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """It is not made: it may be a disk that is not mounted."""
    with pytest.raises(JournalUnavailable, match="No such file or directory"):
        SqliteJournal(tmp_path / "missing" / "journal.db")

    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("content", [b"this is no database, " * 400, b"SQLite format 3\x00" + b"\xff" * 9000])
def test_a_file_that_is_no_database_is_damaged(tmp_path: Path, content: bytes) -> None:
    """The hint says how to go on; the file is left as it is."""
    path = tmp_path / "journal.db"
    path.write_bytes(content)

    with pytest.raises(JournalDamaged, match="hint: move it away"):
        SqliteJournal(path)

    assert path.read_bytes() == content


def test_a_torn_journal_is_damaged(tmp_path: Path) -> None:
    """Pages overwritten in the middle are noticed when they are read."""
    path = tmp_path / "journal.db"
    with closing(SqliteJournal(path)) as journal:
        for number in range(200):
            begin(journal, f"r{number}")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))

    with closing(SqliteJournal(path)) as journal, pytest.raises(JournalDamaged, match="hint: move it away"):
        journal.entries(limit=1000)


def test_an_entry_that_cannot_be_read_names_its_request(tmp_path: Path) -> None:
    """A bit that flipped in the request's JSON does not become another request."""
    path = tmp_path / "journal.db"
    with closing(SqliteJournal(path)) as journal:
        begin(journal, "a")
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE requests SET request = '{'")

    with closing(SqliteJournal(path)) as journal, pytest.raises(JournalDamaged, match="request a"):
        journal.entry(RequestId("a"))


def test_the_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A wrong path in the configuration does not put our tables into somebody else's file."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE theirs (x)")

    with pytest.raises(JournalDamaged, match="no journal"):
        SqliteJournal(path)

    with closing(sqlite3.connect(path)) as other:
        assert [name for (name,) in other.execute("SELECT name FROM sqlite_master")] == ["theirs"]


def test_a_newer_journal_is_refused_and_kept(tmp_path: Path) -> None:
    """It is not damaged: nobody is told to move it away."""
    path = tmp_path / "journal.db"
    with closing(SqliteJournal(path)) as journal:
        begin(journal, "a")
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=99")

    with pytest.raises(PermanentError, match="version 99") as refusal:
        SqliteJournal(path)

    assert not isinstance(refusal.value, JournalDamaged)
    with closing(sqlite3.connect(path)) as newer:
        assert newer.execute("SELECT request_id FROM requests").fetchall() == [("a",)]


def test_only_its_owner_can_read_the_journal(tmp_path: Path) -> None:
    """Requests carry names and labels that are nobody else's business."""
    with closing(SqliteJournal(tmp_path / "journal.db")) as journal:
        begin(journal, "a")

        modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}

    assert modes == {"journal.db": "0o600", "journal.db-wal": "0o600", "journal.db-shm": "0o600"}


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    """WAL without `synchronous=FULL` would lose the last requests in a power cut."""
    with closing(SqliteJournal(tmp_path / "journal.db")) as journal:
        (mode,) = journal._connection.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = journal._connection.execute("PRAGMA synchronous").fetchone()

    assert (mode, synchronous) == ("wal", 2)
