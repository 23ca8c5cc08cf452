"""Feeds an archive to GNU tar, which unpacks it below one directory; without GNU tar, to our own code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from handlers.contract import Control, printable
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.confine import confined
from handlers.tools.process import PIPE, Ended, Program
from handlers.tools.tar.engine import has_gnu_tar
from handlers.tools.tar.unpack import unpack

# "Wrote only" is how GNU tar says that a file did not fit.
_FULL = ("No space left on device", "Disk quota exceeded", ": Wrote only ")


_ATTRIBUTE = re.compile(rb"[^:]*: l?setxattr(?:at)?: Cannot set (.*)")
_LIST = re.compile(rb"[^:]*: acl_set_file_at: Cannot set (.*)")


class Unset:
    """What could not be set on files that are otherwise restored. GNU tar ends with exit code 0 all the same."""

    def __init__(self) -> None:
        self.attributes = 0
        self.lists = 0
        """Access control lists. Where the file system has none GNU tar counts files that had none, too."""
        self.first = ""
        """The first of them in GNU tar's words."""

    def hear(self, line: bytes) -> None:
        """One line of GNU tar's stderr."""
        attribute, access_list = _ATTRIBUTE.fullmatch(line), _LIST.fullmatch(line)
        self.attributes += attribute is not None
        self.lists += access_list is not None
        if found := attribute or access_list:
            self.first = self.first or printable(found[1])

    def note(self, attribute: str, words: str) -> None:
        """One that our own code could not set."""
        is_list = attribute.startswith("system.posix_acl_")
        self.lists += is_list
        self.attributes += not is_list
        self.first = self.first or words


def extract(
    chunks: Iterable[bytes | memoryview], target: Path, control: Control, *, incremental: bool, by_gnu: bool = True
) -> Unset:
    """Unpack the archive below target; on return GNU tar has ended well, but may have left something unset.

    `incremental` deletes what the lists of its directories do not have. Without GNU tar, or not `by_gnu`, our own code
    does it, which cannot delete: target has to be empty. Where the kernel allows it, GNU tar cannot change files
    anywhere else. What the chunks raise passes through, and ends GNU tar. Raises TemporaryError when the disk is full,
    PermanentError with the end of GNU tar's messages when it failed otherwise.
    """
    unset = Unset()
    if not (by_gnu and has_gnu_tar()):
        unpack(chunks, target, control, unset.note)
        return unset
    target = target.resolve()
    argv = confined(_argv(target, incremental=incremental), target)
    with Program(argv, stdin=PIPE, checkpoint=control.checkpoint, on_error_line=unset.hear) as tar:
        # When it no longer reads it has failed, and says why.
        with suppress(BrokenPipeError):
            for chunk in chunks:
                control.checkpoint()
                tar.write(chunk)
        ended = tar.wait()
    if ended.code != 0:
        raise _failure(ended)
    return unset


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
