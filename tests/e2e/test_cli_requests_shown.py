"""`holdfast requests list` and `show`: looking over them, few or many, and what is no command."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson

from tests.workshop.requests import ONCE, lines
from tests.workshop.workers import HOLDFAST, Hire, Worker, wait_for
from worker.intake.wire import BackupRequest, RequestData
from worker.journal.sqlite import SqliteJournal


def test_commands_that_make_no_sense_say_so(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """One clear error with a hint; the exit code tells of what kind."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    before = worker.run("requests", "show", "r1")
    empty = worker.run("requests", "list")
    worker.start()
    worker.ask("r1")
    worker.wait_outcome("r1")

    expected = {
        ("show", "unknown"): 2,
        ("requeue", "unknown"): 2,
        ("drop", "unknown", "--yes"): 2,
        ("requeue",): 2,
        ("requeue", "r1", "--all-parked"): 2,
        ("requeue", "r1", "--plan", "web"): 2,
        ("drop", "--all-waiting", "--yes"): 2,
        ("drop", "r1", "--plan", "web", "--yes"): 2,
        ("requeue", "r1"): 1,
        ("drop", "r1", "--yes"): 1,
        ("list", "--state", "nonsense"): 2,
    }
    found = {arguments: worker.run("requests", *arguments) for arguments in expected}

    assert (before.returncode, empty.returncode) == (1, 0)
    assert b"there is no journal" in before.stderr
    assert {arguments: done.returncode for arguments, done in found.items()} == expected
    assert all(b"error: " in done.stderr and b"hint: " in done.stderr for done in found.values())
    assert not any(done.stdout for done in found.values())


def test_show_tells_all_about_one_request(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """What was asked, how far it is, what became of it, and where its set is."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE)
    worker.start()
    worker.ask("r1", reason="before the move", labels={"team": "shop"}, level="full")
    worker.wait_outcome("r1")
    wait_for(lambda: lines(worker, "show", "r1")[0]["announced"], what="the event to be crossed out")

    (line,) = lines(worker, "show", "r1")
    text = worker.run("requests", "show", "r1").stdout.decode()

    assert line["request"]["data"]["reason"] == "before the move"
    assert (line["state"], line["attempt"], line["intake"]) == ("succeeded", 1, "spool")
    assert line["set"].endswith(str(worker.sets()[0]))
    assert line["outcome_event"]["outcome"] == "succeeded"
    assert text.startswith("r1  succeeded\n")
    assert '"reason":"before the move"' in text
    assert str(worker.sets()[0]) in text


def test_events_that_nobody_took_and_a_broker_that_is_away_are_told(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """The list is there all the same, with exit code 0."""
    away = {"url": "amqp://127.0.0.1:1//", "connect_timeout_seconds": 1}
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", retry=ONCE, queue=away)
    made = worker.run("backup", "web")
    (worker.spool / "failed").mkdir(parents=True, exist_ok=True)
    for name in ("x.json", "x.json.reason", "y.json"):
        (worker.spool / "failed" / name).touch()

    done = worker.run("requests", "list", "--state", "done")
    (line,) = lines(worker, "list", "--state", "done")
    (shown,) = lines(worker, "show", line["request_id"])

    assert made.returncode == done.returncode == 0
    assert b"succeeded, unannounced" in done.stdout
    assert f"dead letters in {worker.spool / 'failed'}: 2".encode() in done.stderr
    assert b"dead letters in queue holdfast.requests.dead: not known: " in done.stderr
    assert line["announced"] is False
    assert {event["sink"] for event in shown["unsent_events"]} == {"queue"}


MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[2:], stdout=open(sys.argv[1], "wb"))
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_a_long_journal_is_listed_in_order_and_bounded_memory(hire: Hire, tmp_path: Path, subject: Path) -> None:
    """20,000 requests of 8 KiB each: 160 MiB that nobody holds at once."""
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    fill(worker.place / "state", 20_000)
    wanted = [f"r{number}" for number in range(20_000, 0, -1)]

    peak_few, few = measured(worker, tmp_path, "--state", "all", "--limit", "10")
    peak_all, everything = measured(worker, tmp_path, "--state", "all", "--limit", "0")
    peak_open, unfinished = measured(worker, tmp_path, "--limit", "0")
    cut = worker.run("requests", "list")

    assert few == wanted[:10]
    assert everything == wanted
    assert unfinished == [name for name in wanted if int(name[1:]) % 10 in {0, 1}]
    assert max(peak_all, peak_open) - peak_few < 32 << 10, (peak_few, peak_all, peak_open)
    assert cut.stdout.count(b"\n") == 51
    assert b"only the newest 50 are shown" in cut.stderr


def fill(state_dir: Path, count: int) -> None:
    """A journal with so many requests: of ten, one waits, one is parked, the others were done."""
    state_dir.mkdir(parents=True)
    path = state_dir / "journal.sqlite3"
    SqliteJournal(path).close()
    padding = "x" * 4096
    good = orjson.dumps({"outcome": "succeeded", "exit_code": 0, "error": padding})
    bad = orjson.dumps({"outcome": "failed", "exit_code": 7, "error": padding})

    def row(number: int) -> tuple[object, ...]:
        labels = {f"l{part}": "x" * 1000 for part in range(4)}
        request = BackupRequest(request_id=f"r{number}", data=RequestData(plan="web", labels=labels))
        outcome = {0: None, 1: bad}.get(number % 10, good)
        state = "accepted" if outcome is None else "announced"
        return (request.request_id, request.backup_id, request.model_dump_json(), state, outcome)

    with closing(sqlite3.connect(path)) as database:
        database.executemany(
            "INSERT INTO requests (request_id, plan, backup_id, request, intake, state, accepted, updated, outcome)"
            " VALUES (?, 'web', ?, ?, 'spool', ?, 1, 1, ?)",
            map(row, range(1, count + 1)),
        )
        database.commit()


def measured(worker: Worker, place: Path, *arguments: str) -> tuple[int, list[str]]:
    """The peak memory of a list in KiB, and the ids in it; a small process is its parent, whose size would count."""
    output = place / "listed"
    command = [str(HOLDFAST), "--config", str(worker.config), "requests", "list", *arguments]
    done = subprocess.run([sys.executable, "-c", MEASURED, str(output), *command], capture_output=True, check=True)
    code, peak = done.stdout.split()
    assert code == b"0", done.stderr
    rows = [line.split()[0] for line in output.read_text().splitlines()]
    return int(peak), [name for name in rows if name != "request"]
