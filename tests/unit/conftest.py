"""What several of these tests start with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workshop.bench import Bench
from tests.workshop.leases import Shop


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A worker's inside."""
    return Bench(tmp_path)


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A store nobody has used."""
    made = Shop()
    yield made
    made.store.away = made.store.deaf = False
    for lease in made.held:
        lease.release()
