"""Does in an indicator's directory what is to be done once the outcome is known.

The directory may belong to somebody hostile: everything happens in the one directory that was opened, no link is
followed, and nothing that was there is given to anybody. If we die at any point, doing it all again is right.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from loguru import logger

from config.indicators import Afterwards
from handlers.errors import PermanentError
from worker.intake.indicator_sighting import moment
from worker.intake.spool_dirs import kept_name, move

IsIt = Callable[[os.stat_result], bool]
"""Whether a file is the indicator that is answered, and not a later one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """What is done, ready to be done."""

    write: str | None
    owner: tuple[int, int] | None
    mode: int
    indicator: Literal["leave", "move", "delete"]
    move_to: str
    only_after: str | None = None
    """A file that has to be there, not older than the indicator, for anything to be done."""

    @classmethod
    def of(cls, afterwards: Afterwards) -> Acts:
        """As configured; raises PermanentError for an owner that this machine does not know."""
        return cls(
            write=afterwards.write,
            owner=None if afterwards.owner is None else _owner(afterwards.owner),
            mode=int(afterwards.mode, 8),
            indicator=afterwards.indicator,
            move_to=afterwards.move_to,
        )

    @property
    def once_answered(self) -> Acts:
        """The same where somebody else writes the file, for those directories that are to have it."""
        return replace(self, write=None, only_after=self.write)

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return self.write is not None or self.indicator != "leave"


@dataclass(frozen=True, slots=True)
class Own:
    """The names that files of ours have for an instant; nobody else's, so what a crash left of them can be told."""

    intake: str

    @property
    def fresh(self) -> str:
        """A file until it is whole."""
        return f".{self.intake}.holdfast.new"

    @property
    def aside(self) -> str:
        """An indicator that is taken away."""
        return f".{self.intake}.holdfast.old"


def carry_out(acts: Acts, directory: int, *, indicator: str, is_it: IsIt, line: bytes, own: Own) -> bool:
    """Do it, durably on return; False where the indicator is not there any more, or is a later one: nothing is done.

    `line` is the content of the file that is written. Raises OSError; what was done until then is done again at the
    next time.
    """
    found = _status(directory, indicator)
    if found is None or not is_it(found):
        return False
    if acts.only_after is not None and not is_newer(directory, acts.only_after, found):
        return False
    # The file first: an indicator that is gone is answered for whoever comes after us.
    if acts.write is not None:
        _write(acts, directory, acts.write, line, own.fresh)
    if acts.indicator != "leave":
        kept = f"{indicator}.{moment(found.st_mtime_ns)}"
        _take_away(directory, indicator, is_it, own.aside, acts.move_to if acts.indicator == "move" else None, kept)
    os.fsync(directory)
    return True


def is_newer(directory: int, name: str, than: os.stat_result) -> bool:
    """Whether there is a regular file of this name that is not older. Raises OSError."""
    found = _status(directory, name)
    return found is not None and found.st_mtime_ns >= than.st_mtime_ns


def put_back(directory: int, indicator: str, own: Own) -> None:
    """Undo what a crash left half done: the indicator is there again, to be answered once more, or to ask."""
    with suppress(OSError):
        if _status(directory, own.aside) is not None:
            _return(directory, own.aside, indicator)
            logger.info("indicator_put_back", indicator=indicator, next="it is answered once more")


def _write(acts: Acts, directory: int, name: str, line: bytes, fresh: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(fresh, flags, 0o600, dir_fd=directory)
    try:
        with os.fdopen(file, "wb") as written:
            written.write(line)
            written.flush()
            if acts.owner is not None:
                os.fchown(file, *acts.owner)
            os.fchmod(file, acts.mode)
            os.fsync(file)
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with suppress(OSError):
            os.unlink(fresh, dir_fd=directory)
        raise


def _take_away(directory: int, indicator: str, is_it: IsIt, aside: str, move_to: str | None, kept: str) -> None:
    """Remove the indicator, or move it; one that was touched in the same instant comes back, and asks again."""
    # Another name first, a look second: nobody can put another file there in between. If we die here, `put_back`.
    os.rename(indicator, aside, src_dir_fd=directory, dst_dir_fd=directory)
    found = _status(directory, aside)
    if found is not None and not is_it(found):
        _return(directory, aside, indicator)
    elif move_to is None:
        os.unlink(aside, dir_fd=directory)
    else:
        try:
            _keep(directory, aside, move_to, indicator, kept)
        except OSError:
            _return(directory, aside, indicator)
            raise


def _return(directory: int, aside: str, indicator: str) -> None:
    here = _path(directory)
    try:
        move(here / aside, here / indicator)
    except FileExistsError:
        # Touched once more since: that one asks for all of them.
        os.unlink(aside, dir_fd=directory)


def _keep(directory: int, aside: str, move_to: str, indicator: str, kept: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(move_to, 0o755, dir_fd=directory)
    target = os.open(move_to, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        for name in (indicator, *(kept_name(kept, turn) for turn in range(12))):
            try:
                move(_path(directory) / aside, _path(target) / name)
            except FileExistsError:
                continue
            os.fsync(target)
            return
        raise FileExistsError(errno.EEXIST, f"{indicator} and a dozen of names like it are taken", move_to)
    finally:
        os.close(target)


def _path(directory: int) -> Path:
    """A way to the directory that nobody can lead elsewhere."""
    return Path(f"/proc/self/fd/{directory}")


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _owner(text: str) -> tuple[int, int]:
    user, _, group = text.partition(":")
    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise PermanentError(
            f"indicators: owner {text!r} is not known on this machine: {error.args[0]}",
            hint="name a user and a group of this machine, or give their numbers",
        ) from error
    return uid, gid
