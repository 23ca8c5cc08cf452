"""What `holdfast requests` of a worker says, and settings under which requests are soon parked."""

from __future__ import annotations

import json
from typing import Any

from tests.workshop.workers import Worker

ONCE = {"attempts": 1, "first_delay_seconds": 0.2, "patience_seconds": 0}
"""The first temporary error ends a request."""


def lines(worker: Worker, *arguments: str, expect: int = 0) -> list[dict[str, Any]]:
    """The JSON lines of a `requests` command."""
    done = worker.run("requests", *arguments, "--json")
    assert done.returncode == expect, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def states(worker: Worker, *arguments: str) -> dict[str, str]:
    """The requests of a list with their states."""
    return {line["request_id"]: line["state"] for line in lines(worker, "list", *arguments)}
