"""What several of these tests start with."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "subject"
    root.mkdir()
    (root / "page").write_text("hello")
    return root
