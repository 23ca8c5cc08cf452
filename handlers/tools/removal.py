"""Removes directory trees, whatever their modes, even while others remove them too."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def remove_tree(path: Path) -> None:
    """Remove path with everything below it; gone already, or gone half way, is fine. Raises OSError.

    Directories that their owner may not write (a restored tree has such) are made writable first. Never follows a link.
    """
    while path.is_dir() and not path.is_symlink():
        try:
            shutil.rmtree(path, onerror=_make_way)
        except FileNotFoundError:
            # Somebody else removed an entry that we had listed; what is left is for the next round.
            continue
    path.unlink(missing_ok=True)


def remove_below(directory: Path) -> None:
    """Remove what is in a directory, and leave it there, empty. Raises OSError."""
    for child in list(directory.iterdir()):
        remove_tree(child)


def _make_way(
    remove: Callable[..., object], name: str, caught: tuple[type[BaseException], BaseException, object]
) -> None:
    """Once more, after the directories on the way may be written; what still fails is raised."""
    error = caught[1]
    if not isinstance(error, PermissionError):
        raise error
    path = Path(name)
    for directory in (path.parent, path):
        with suppress(OSError):
            mode = directory.lstat().st_mode
            if stat.S_ISDIR(mode):
                directory.chmod(stat.S_IMODE(mode) | stat.S_IRWXU)
    if remove in {os.unlink, os.remove}:
        path.unlink(missing_ok=True)
    elif path.is_dir() and not path.is_symlink():
        remove_tree(path)
