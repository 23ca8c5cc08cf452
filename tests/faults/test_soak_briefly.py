"""The soak of `make soak`, in short, so that it does not rot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.run import Soak

SECONDS = 10
SEED = int(os.environ.get("SOAK_SEED", "20261121"))
"""Fixed, so that a failure is seen again; what happens when is left to the machine all the same."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("settle", ["journalled", "announced"])
def test_random_requests_changes_and_deaths_break_no_promise(tmp_path: Path, settle: str) -> None:
    """Every accepted request has one outcome, every success its set, every set restores, nothing is left over."""
    said: list[str] = []
    soak = Soak(tmp_path / "soak", seed=SEED, seconds=SECONDS, say=said.append, settle=settle)

    wrong = soak.run()

    assert wrong == [], said
    assert soak.compared, f"no set was made of a subject that stood still, so nothing was compared: {said}"
