"""Removes directory trees that others may be removing at the same time."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove path with everything below it; gone already, or gone half way, is fine. Raises OSError."""
    while path.is_dir() and not path.is_symlink():
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            # Somebody else removed an entry that we had listed; what is left is for the next round.
            continue
    path.unlink(missing_ok=True)
