"""Opens the collect directory of a local peer, and tells what may pass from what somebody has to change."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.deep_tree import ENTER, NO_DIRECTORY

AWAY = frozenset({errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOTCONN})
"""What a network file system answers while its server is away."""


def entered(directory: Path) -> int:
    """The directory, open; a link in its place is not followed.

    Raises PermanentError, TemporaryError where it may be there later.
    """
    try:
        return os.open(directory, ENTER)
    except OSError as error:
        hint = None
        if error.errno in NO_DIRECTORY and directory.is_symlink():
            hint = "it is a symbolic link: name the directory itself"
        raise cannot(f"collect directory {directory}", error, hint=hint) from error


def cannot(what: str, error: OSError, *, hint: str | None = None) -> PermanentError | TemporaryError:
    """What to raise where the top of a peer, or its indicator, cannot be read."""
    message = f"{what}: {error.strerror}"
    # Network file systems that are mounted `soft` say EIO.
    if error.errno in AWAY or error.errno == errno.EIO:
        return TemporaryError(message, hint=hint)
    return PermanentError(message, hint=hint)
