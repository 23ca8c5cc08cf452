"""What several of these tests start with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.journal.memory import MemoryJournal
from worker.journal.protocol import Journal
from worker.journal.sqlite import SqliteJournal


@pytest.fixture(params=["sqlite", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    """Each journal in turn."""
    makers: dict[str, Callable[[], Journal]] = {
        "sqlite": lambda: SqliteJournal(tmp_path / "journal.db"),
        "memory": MemoryJournal,
    }
    made = makers[request.param]()
    yield made
    made.close()
