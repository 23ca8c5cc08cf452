"""Knows which state directory this is, so that a worker recognises what its former process left in a store."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from handlers.errors import PermanentError
from handlers.tools.atomic import fsync_directory, write_durable

FILE = "state-id"
_DIGITS = 32


def state_id(state_dir: Path) -> str:
    """The random name of this state directory; made at the first call, the same ever after, for all processes.

    Raises PermanentError where the directory cannot be used.
    """
    path = state_dir / FILE
    try:
        found = _read(path)
        if found is None:
            _make(path)
            found = _read(path)
    except OSError as error:
        raise PermanentError(
            f"{path} cannot be read or made: {error.strerror}",
            hint="look at the disk of state_dir: room, rights, health",
        ) from error
    if found is None:
        raise PermanentError(f"{path} does not hold {_DIGITS} hexadecimal digits", hint="remove it; it is made again")
    return found


def _read(path: Path) -> str | None:
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return None
    return text.decode() if len(text) == _DIGITS and text.isalnum() and text.isascii() else None


def _make(path: Path) -> None:
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_durable(fresh, f"{secrets.token_hex(_DIGITS // 2)}\n".encode(), mode=0o600)
    try:
        # Unlike a rename, a link leaves the name alone that another process of ours made in this very moment.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    fsync_directory(path.parent)
