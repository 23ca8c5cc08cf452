"""A running worker's rules: how a test changes them, and where it sees them kept."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from tests.workshop.workers import Worker

CLOSED = "mon 03:00-03:01"
"""Hours in which hardly any test runs."""


def log_of(worker: Worker, name: str) -> list[dict[str, Any]]:
    """The lines of one event in the worker's log."""
    lines = (orjson.loads(line) for line in worker.log.read_bytes().splitlines() if line.startswith(b"{"))
    return [line for line in lines if line.get("event", line.get("message")) == name]


def plans(subject: Path, **named: dict[str, Any]) -> dict[str, Any]:
    """Plans of one subject."""
    return {name: {"handler": "tar", "options": {"root": str(subject)}, **more} for name, more in named.items()}


def change(worker: Worker, alter: Callable[[dict[str, Any]], object]) -> None:
    """Alter the configuration file, and tell the worker."""
    document = orjson.loads(worker.config.read_bytes())
    alter(document)
    worker.config.write_bytes(orjson.dumps(document))
    assert worker.process is not None
    worker.process.send_signal(signal.SIGHUP)


def ready(worker: Worker) -> bool:
    """What `holdfast status --ready` says."""
    return worker.run("status", "--ready").returncode == 0
