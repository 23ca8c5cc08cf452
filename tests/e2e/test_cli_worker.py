"""`holdfast run`, `request`, `status` and `doctor`: a worker, and those who talk to it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workshop import Workshop, wait_for


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    """A place of its own; workers that a test leaves running are ended."""
    made = Workshop(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A place with a worker, for tests that do not mind each other."""
    made = Workshop(tmp_path_factory.mktemp("served"))
    made.start_worker()
    yield made
    made.close()


def test_a_request_is_followed_to_its_outcome(served: Workshop) -> None:
    """Its id first, then the same summary as that of `backup`."""
    done = served.run("request", "web", "--wait", "--timeout", "30")

    first, *rest = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert first.startswith("/holdfast/workshop/cli ")
    assert rest[0].startswith("succeeded: plan web ")


def test_the_same_id_is_done_once(served: Workshop) -> None:
    """The second time it is a duplicate, with the first one's exit code."""
    first = served.lines("request", "web", "--id", "monday", "--wait", "--timeout", "30")[-1]

    second = served.lines("request", "web", "--id", "monday", "--wait", "--timeout", "30")[-1]

    assert (first["outcome"], second["outcome"], second["original"]) == ("succeeded", "duplicate", "succeeded")
    assert first["backup_id"] == second["backup_id"]


def test_the_same_id_for_something_else_is_a_conflict(served: Workshop) -> None:
    """Exit code 5; the first one stands."""
    served.lines("request", "web", "--id", "tuesday", "--wait", "--timeout", "30")

    done = served.run("request", "web", "--id", "tuesday", "--level", "full", "--wait", "--timeout", "30")

    assert done.returncode == 5
    assert "error: another request has the id" in done.stderr


def test_what_is_not_allowed_is_refused(served: Workshop) -> None:
    """An unknown plan, a deadline that has passed."""
    unknown = served.run("request", "nonsense", "--wait", "--timeout", "30")
    late = served.run("request", "web", "--not-after", "2020-01-01T00:00:00Z", "--wait", "--timeout", "30")

    assert (unknown.returncode, late.returncode) == (4, 4)
    assert "no plan 'nonsense'" in unknown.stderr
    assert "deadline" in late.stderr


def test_a_verification_can_be_asked_for(served: Workshop) -> None:
    """The newest set is read again by the worker."""
    served.lines("request", "web", "--wait", "--timeout", "30")

    line = served.lines("request", "web", "--operation", "verify", "--wait", "--timeout", "30")[-1]

    assert (line["outcome"], line["operation"], line["verified"]) == ("succeeded", "verify", "checksums")


def test_status_works_beside_a_worker(served: Workshop) -> None:
    """The plan's newest set is there."""
    served.lines("request", "web", "--wait", "--timeout", "30")

    done = served.run("status")
    (line,) = served.lines("status")

    assert done.returncode == 0
    assert "running   nothing" in done.stdout
    assert line["plans"][0]["newest"] is not None
    assert line["unfinished"] == 0


def test_a_request_that_nobody_takes_is_given_up_not_lost(workshop: Workshop) -> None:
    """Waiting ends with 7; a worker that comes later does it."""
    workshop.start_worker()
    workshop.close()

    done = workshop.run("request", "web", "--wait", "--timeout", "0.3")
    workshop.start_worker()

    assert done.returncode == 7
    assert "error: no outcome within 0.3 s" in done.stderr
    wait_for(workshop.sets)


def test_ctrl_c_stops_the_waiting_not_the_request(workshop: Workshop) -> None:
    """Exit code 130, and the request is still there."""
    workshop.start_worker()
    workshop.close()
    waiting = workshop.start("request", "web", "--wait", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert waiting.stdout is not None
    waiting.stdout.readline()

    waiting.send_signal(signal.SIGINT)
    _, complaint = waiting.communicate(timeout=20)

    assert waiting.returncode == 130
    assert b"Traceback" not in complaint
    assert len(list((workshop.top / "state" / "spool" / "new").iterdir())) == 1


def test_a_request_without_a_spool_says_what_is_missing(workshop: Workshop) -> None:
    """A worker makes it when it starts."""
    done = workshop.run("request", "web")

    assert done.returncode == 1
    assert "there is no spool" in done.stderr
    assert "hint: " in done.stderr


def test_a_queue_that_is_not_configured_is_told(workshop: Workshop) -> None:
    """Instead of going elsewhere in silence."""
    done = workshop.run("request", "web", "--to", "queue")

    assert done.returncode == 1
    assert "no queue is configured" in done.stderr


def test_a_worker_without_intake_does_not_start(workshop: Workshop) -> None:
    """Nobody could ask it for anything."""
    workshop.config.write_text(workshop.config.read_text().replace("{scan_seconds: 1}", "{enabled: false}"))

    done = workshop.run("run")

    assert done.returncode == 1
    assert "no intake is configured" in done.stderr


def test_a_worker_with_a_wrong_configuration_does_not_start(workshop: Workshop) -> None:
    """Exit code 2, before anything is touched."""
    workshop.configure("  other: {handler: nonsense}\n")

    done = workshop.run("run")

    assert done.returncode == 2
    assert "no such handler is installed" in done.stderr
    assert not (workshop.top / "state").exists()


def test_a_worker_logs_lines_of_json_and_sweeps_its_stores(workshop: Workshop) -> None:
    """Each line parses; SIGTERM ends it with 0."""
    worker = workshop.start_worker()

    worker.send_signal(signal.SIGTERM)
    code = worker.wait(20)

    lines = [json.loads(line) for line in workshop.log.read_text().splitlines()]
    swept = [line for line in lines if line["event"] == "store_swept"]
    assert code == 0
    assert [(line["store"], line["removed"]) for line in swept] == [("main", 0)]


def test_status_tells_what_waits_and_why(workshop: Workshop) -> None:
    """A request that is tried again, with its error."""
    config = workshop.config.read_text().replace("first_delay_seconds: 0.1", "first_delay_seconds: 600")
    workshop.config.write_text(config)
    workshop.start_worker()
    workshop.store.rmdir()
    workshop.run("request", "web")

    wait_for(lambda: any(entry["retry_at"] for entry in workshop.lines("status")[0]["waiting"]))
    done = workshop.run("status")

    (waiting,) = workshop.lines("status")[0]["waiting"]
    assert "store main" in waiting["last_error"]
    assert "looked at again" in done.stdout
    assert "1 accepted" in done.stdout


def test_status_without_any_worker_says_so(workshop: Workshop) -> None:
    """And makes no journal."""
    done = workshop.run("status")

    assert done.returncode == 0
    assert "no worker has run" in done.stdout
    assert not (workshop.top / "state").exists()


def test_doctor_is_content_with_a_good_place(served: Workshop) -> None:
    """Every check is named; none fails."""
    done = served.run("doctor")
    found = _verdicts(served.lines("doctor"))

    assert done.returncode == 0, done.stdout
    assert set(found.values()) <= {"OK", "WARN"}
    assert {"packages", "tar", "configuration", "state directory", "file system", "journal", "spool"} <= found.keys()
    assert {"store main", "clock and main", "drafts in main", "plan web"} <= found.keys()


def test_doctor_finds_what_is_wrong(workshop: Workshop) -> None:
    """Each fault at its check; exit code 1."""
    workshop.configure("  gone: {handler: tar, options: {root: /nonexistent/subject}}\n")
    (workshop.top / "state").mkdir()
    (workshop.top / "state" / "journal.sqlite3").write_bytes(b"no journal" * 1000)
    workshop.store.rmdir()

    found = _verdicts(workshop.lines("doctor", expect=1))

    assert found["plan gone"] == found["journal"] == found["store main"] == "FAIL"
    assert found["plan web"] == "OK"


def test_doctor_warns_of_leftovers_and_of_the_future(workshop: Workshop) -> None:
    """A dead worker's draft, a set from a clock that is ahead."""
    made = workshop.backup()
    manifest = workshop.store / "web" / made / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text(manifest.read_text().replace('"finished": "20', '"finished": "21'))
    (workshop.store / ".holdfast" / "drafts" / "left.owner").touch()

    found = _verdicts(workshop.lines("doctor"))

    assert found["clock and main"] == found["drafts in main"] == "WARN"


def test_doctor_with_a_wrong_configuration_tells_its_problems(workshop: Workshop) -> None:
    """What needs no configuration is checked all the same."""
    workshop.config.write_text("nonsense: 1\n")

    found = _verdicts(workshop.lines("doctor", expect=1))

    assert found["configuration"] == "FAIL"
    assert found["packages"] == "OK"


def test_a_request_of_another_program_is_as_good(served: Workshop) -> None:
    """Plain JSON, written and renamed, is all there is to it."""
    spool = served.top / "state" / "spool"
    draft = spool / "tmp" / "by-hand.json"
    draft.write_text(json.dumps({"id": "by-hand-1", "plan": "web", "reason": "a shell script"}))

    draft.rename(spool / "new" / "by-hand.json")

    wait_for(lambda: any(line["request_id"] == "by-hand-1" for line in served.lines("list")))


def _verdicts(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {line["check"]: line["verdict"] for line in lines}
