"""Feeds an archive to GNU tar, which unpacks it below one directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from handlers.contract import Control
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.confine import confined
from handlers.tools.process import PIPE, Ended, Program

# "Wrote only" is how GNU tar says that a file did not fit.
_FULL = ("No space left on device", "Disk quota exceeded", ": Wrote only ")


def extract(chunks: Iterable[bytes | memoryview], target: Path, control: Control, *, incremental: bool) -> None:
    """Unpack the archive below target; on return GNU tar has ended well.

    `incremental` deletes what the lists of its directories do not have. Where the kernel allows it, GNU tar cannot
    change files anywhere else. What the chunks raise passes through, and ends GNU tar. Raises TemporaryError when the
    disk is full, PermanentError with the end of GNU tar's messages when it failed otherwise.
    """
    target = target.resolve()
    argv = confined(_argv(target, incremental=incremental), target)
    with Program(argv, stdin=PIPE, checkpoint=control.checkpoint) as tar:
        # When it no longer reads it has failed, and says why.
        with suppress(BrokenPipeError):
            for chunk in chunks:
                control.checkpoint()
                tar.write(chunk)
        ended = tar.wait()
    if ended.code != 0:
        raise _failure(ended)


def _argv(target: Path, *, incremental: bool) -> list[str]:
    argv = [
        "tar",
        "--extract",
        "--file=-",
        f"--directory={target}",
        "--numeric-owner",
        "--preserve-permissions",
        "--delay-directory-restore",
        "--acls",
        "--xattrs",
        # Fewer, larger reads; the archive's own record size does not matter.
        "--blocking-factor=512",
        # A file from the future, or from before 1970, is as it was.
        "--warning=no-timestamp",
    ]
    if os.geteuid() == 0:
        # Without this only user.* comes back, and file capabilities are lost.
        argv.append("--xattrs-include=*")
    if incremental:
        argv.append("--listed-incremental=/dev/null")
    return argv


def _failure(ended: Ended) -> PermanentError | TemporaryError:
    if any(words in ended.stderr for words in _FULL):
        return TemporaryError(f"no room for what is restored: {ended.stderr}", hint="make room below the target")
    if ended.killed_by is not None:
        return TemporaryError(f"GNU tar was ended by {ended.killed_by} while it restored: {ended.stderr}")
    return PermanentError(f"GNU tar ended with exit code {ended.code} while it restored: {ended.stderr}")
