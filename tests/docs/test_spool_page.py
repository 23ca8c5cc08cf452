"""The page for producers keeps its word: each of its snippets is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from worker.events import EventData, Word, event
from worker.intake.delivery import Delivery, Gate, Settlement
from worker.intake.spool import SpoolIntake
from worker.intake.wire import BackupRequest, RequestId, parse
from worker.journal.protocol import Announcement, Caller
from worker.spool_events import SpoolEvents

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spool.md"
PATIENCE = 20.0


def snippets() -> list[tuple[str, str]]:
    return re.findall(r"^```(sh|python)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def snippet(language: str, containing: str) -> str:
    (found,) = [text for kind, text in snippets() if kind == language and containing in text]
    return found


def run(language: str, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = ["sh", "-eu"] if language == "sh" else [sys.executable, "-"]
    return subprocess.run(
        program, input=text, env={**os.environ, **environment}, text=True, capture_output=True, timeout=PATIENCE
    )


class Worker:
    """Takes requests and answers each with an outcome."""

    def __init__(self, spool: Path) -> None:
        self.requests: list[BackupRequest] = []
        self._came = threading.Semaphore(0)
        self._events = SpoolEvents(spool, keep_events_days=1)
        self._intake = SpoolIntake(spool, worker="w", scan_seconds=30, keep_done_days=1, max_request_bytes=10_000)
        gate = Gate(deliver=self._deliver, room=lambda: 1)
        self._thread = threading.Thread(target=self._intake.run, args=(gate,))
        self._thread.start()

    def _deliver(self, delivery: Delivery) -> None:
        request = parse(delivery.body, message_id=delivery.message_id)
        data = EventData(outcome=Word.PARTIAL, exit_code=3, request_id=request.request_id, plan=request.data.plan)
        body = event(data, event_id=request.request_id, node="n", now=datetime.now(UTC)).encode()
        self._events.send(
            Announcement(
                event_id=request.request_id,
                sink="spool",
                caller=Caller(),
                body=body,
                request_id=RequestId(request.request_id),
            )
        )
        delivery.settle(Settlement.ACCEPT)
        self.requests.append(request)
        self._came.release()

    def next(self) -> BackupRequest:
        """The request that came since the last call."""
        assert self._came.acquire(timeout=PATIENCE)
        return self.requests[-1]

    def stop(self) -> None:
        """End it."""
        self._intake.close()
        self._thread.join(PATIENCE)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def worker(spool: Path) -> Iterator[Worker]:
    running = Worker(spool)
    yield running
    running.stop()


@pytest.mark.parametrize(("language", "containing"), [("sh", '"id": "%s"'), ("python", "before the upgrade")])
def test_a_request_is_put_in_as_the_page_says(spool: Path, worker: Worker, language: str, containing: str) -> None:
    """It arrives with the id of its body, and nothing is left in tmp/."""
    done = run(language, snippet(language, containing), SPOOL=str(spool))

    assert (done.returncode, done.stderr) == (0, "")
    request = worker.next()
    assert request.data.plan == "photos"
    assert request.request_id.startswith("photos-")
    assert list((spool / "tmp").iterdir()) == []


def test_the_name_is_the_id_and_the_events_are_found_by_it(spool: Path, worker: Worker) -> None:
    """The three snippets that belong together: no id in the body, looking for events, waiting for the outcome."""
    put = run("sh", snippet("sh", "photos-2026-11-21.json"), SPOOL=str(spool))
    assert (put.returncode, put.stderr) == (0, "")
    assert worker.next().request_id == "photos-2026-11-21"

    looked = run("sh", snippet("sh", "cut -c 1-16"), SPOOL=str(spool))
    waited = run("python", snippet("python", "time.sleep"), SPOOL=str(spool))

    assert "-partial-photos-" in looked.stdout
    assert '"outcome":"partial"' in looked.stdout
    assert (waited.stdout, waited.returncode) == ("partial\n", 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_directories_prepared_as_the_page_says_are_used_as_they_are(spool: Path) -> None:
    """The worker adds what is missing and changes no permission that the operator chose."""
    done = run("sh", snippet("sh", "install -d"), SPOOL=str(spool), WORKER="root", PRODUCERS="daemon")

    worker = Worker(spool)
    put = run("sh", snippet("sh", "photos-2026-11-21.json"), SPOOL=str(spool))

    assert (done.returncode, done.stderr, put.returncode) == (0, "", 0)
    assert worker.next().request_id == "photos-2026-11-21"
    worker.stop()
    assert (spool / "new").stat().st_mode & 0o7777 == 0o1730
    assert (spool / "cur").stat().st_mode & 0o7777 == 0o750


def test_every_snippet_of_the_page_is_run_here() -> None:
    """A new one wants a test of its own."""
    assert [language for language, _ in snippets()] == ["sh", "python", "sh", "sh", "python", "sh"]
