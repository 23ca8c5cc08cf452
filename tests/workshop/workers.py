"""Real worker processes, each with a configuration of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

HOLDFAST = Path(sys.executable).with_name("holdfast")


def wait_for(
    done: Callable[[], bool], *, seconds: float = 60, what: str = "it", told: Callable[[], object] = lambda: ""
) -> None:
    """Until it is so; fails the test where that takes too long, and tells how things stand then."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}: {told()}"
        time.sleep(0.01)


class Worker:
    """`holdfast run` as a process, with one plan `web`; starts, dies and starts again on the same state."""

    def __init__(self, place: Path, subject: Path, store: Path, **settings: Any) -> None:
        self.place = place
        self.store = store
        place.mkdir(parents=True, exist_ok=True)
        store.mkdir(parents=True, exist_ok=True)
        self.config = place / "config.yaml"
        self.spool = place / "state" / "spool"
        self.log = place / "log"
        options = settings.pop("options", {})
        document = {
            "node": place.name,
            "state_dir": str(place / "state"),
            "drain_seconds": 5,
            "lease_seconds": 5,
            "retry": {"attempts": 3, "first_delay_seconds": 0.2, "max_delay_seconds": 1},
            "log": {"level": "debug", "format": "json"},
            "stores": {"disk": {"kind": "local", "path": str(store)}},
            "plans": {"web": {"handler": "tar", "options": {"root": str(subject), **options}}},
            **settings,
        }
        self.config.write_bytes(orjson.dumps(document))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns when it says that it runs."""
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([HOLDFAST, "--config", self.config, "run"], stdout=log, stderr=log)
        wait_for(lambda: b'"worker_started"' in self.log.read_bytes()[before:] or self.ended, what="worker_started")
        assert not self.ended, self.log.read_text()

    def start_quietly(self) -> None:
        """Start it without waiting: its log level keeps it from telling when it runs."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([HOLDFAST, "--config", self.config, "run"], stdout=log, stderr=log)

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        return self.process.wait(60)

    def ask(self, request_id: str, **more: object) -> None:
        """Put a request into the spool, as any program may."""
        file = self.spool / "tmp" / f"{request_id}.json"
        file.write_bytes(orjson.dumps({"id": request_id, "plan": "web", **more}))
        file.rename(self.spool / "new" / file.name)

    def events(self, request_id: str | None = None) -> list[dict[str, Any]]:
        """The events in the spool, of one request or of all."""
        found = [orjson.loads(file.read_bytes()) for file in sorted((self.spool / "events").glob("*.json"))]
        return [event for event in found if request_id in (None, event["data"].get("request_id"))]

    def outcomes(self, request_id: str | None = None) -> list[str]:
        """The last words of the events that end a request."""
        words = [event["data"]["outcome"] for event in self.events(request_id)]
        return [word for word in words if word not in {"started", "progress"}]

    def wait_outcome(self, request_id: str, *, count: int = 1, seconds: float = 60) -> dict[str, Any]:
        """The last event of a request, once it has that many outcomes."""
        wait_for(
            lambda: len(self.outcomes(request_id)) >= count or self.ended,
            seconds=seconds,
            what=f"the outcome of {request_id}",
        )
        assert len(self.outcomes(request_id)) >= count, self.log.read_text()
        return self.events(request_id)[-1]["data"]  # type: ignore[no-any-return]

    def sets(self) -> list[Path]:
        """The directories of committed sets."""
        return sorted(manifest.parent for manifest in self.store.glob("*/*/manifest.json"))

    def leftovers(self) -> list[Path]:
        """Whatever lies about that belongs to no committed set and no running work."""
        places = [
            self.store / ".holdfast" / "drafts",
            self.store / ".holdfast" / "expired",
            self.place / "state" / "scratch",
        ]
        return [path for place in places if place.exists() for path in place.rglob("*") if path.is_file()]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Another command with the same configuration."""
        return subprocess.run([HOLDFAST, "--config", self.config, *arguments], capture_output=True, timeout=120)


Hire = Callable[..., Worker]
"""Makes a worker that is gone after the test: the fixture `hire`."""
