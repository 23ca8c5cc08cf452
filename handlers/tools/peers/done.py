"""The small file of this machine that says that a whole run is done."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from handlers.errors import PermanentError
from handlers.tools.peers.indicators import ENTER, content, put

_ONE_AT_A_TIME = threading.Lock()
"""All peers of a run begin it, in threads of their own."""


def begin(path: Path, line: bytes) -> None:
    """Remove the indicator, and remember which run it is from now on that may write it.

    Safe to repeat. Raises PermanentError.
    """
    try:
        directory = os.open(path.parent, ENTER)
    except FileNotFoundError:
        return  # whoever is to write the indicator says so
    except OSError as error:
        raise PermanentError(f"done_indicator {path} cannot be removed: {error.strerror}") from error
    try:
        # If we die between the two, the indicator still tells of the last run; nothing of the new one is there.
        with _ONE_AT_A_TIME:
            if content(directory, _run_of(path), len(line) + 1) != line:
                put(directory, _run_of(path), line, None, "0644")
        with suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=directory)
    except OSError as error:
        raise PermanentError(f"done_indicator {path} cannot be removed: {error.strerror}") from error
    finally:
        os.close(directory)


def write(path: Path, line: bytes) -> str | None:
    """Write the indicator, unless another run has begun since; why that cannot be, or None. Safe to repeat."""
    try:
        directory = os.open(path.parent, ENTER)
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}"
    try:
        if not _is_last(directory, path, line) or content(directory, path.name, len(line) + 1) == line:
            return None
        put(directory, path.name, line, None, "0644")
        if not _is_last(directory, path, line):  # it has begun in this moment
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=directory)
    except (OSError, PermanentError) as error:
        told = error.strerror if isinstance(error, OSError) else error.message
        return f"{path} cannot be written: {told}"
    finally:
        os.close(directory)
    return None


def _run_of(path: Path) -> str:
    return f".{path.name}.run"


def _is_last(directory: int, path: Path, line: bytes) -> bool:
    return content(directory, _run_of(path), len(line) + 1) in {None, line}
