"""What is left when an expiry dies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def test_death_at_any_system_call_of_an_expiry_leaves_only_what_can_be_restored(tmp_path: Path) -> None:
    """SIGKILL between any two removals and anywhere else: no set loses what it builds on, the next expiry ends it."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults.expiring", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        cwd=PROJECT,
    )

    assert result.returncode == 0, result.stderr
    deaths, left = result.stdout.strip().split(" ", 1)
    assert int(deaths) >= 60
    assert left == "[1, 2, 3]"
