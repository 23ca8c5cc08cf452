"""What several of these tests start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workshop.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A worker's inside."""
    return Bench(tmp_path)
