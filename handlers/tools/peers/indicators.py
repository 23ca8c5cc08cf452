"""The small files by which a peer says that its directory is complete, and is told that it was staged."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from handlers.errors import PermanentError
from handlers.tools.peers.entering import cannot
from handlers.tools.peers.options import LocalPeer, RemotePeer, owner_of

KNOWN = frozenset({"cback.collect", "cback.stage", "cback.store", "cback.encrypt", "cback.split", "cback.failed"})
"""Names that are an indicator wherever they are found. Other names that begin with `cback.` are files of the peer's."""

ANSWERS = "answers "
"""Begins the line of a stage indicator that names the collect indicator."""

_MAX_LINES_BYTES = 4096
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Ready:
    """The peer's directory is complete."""

    identity: str | None
    """Which indicator says so; another one, or the same one touched, has another text. None where none is needed."""


@dataclass(frozen=True, slots=True)
class NotReady:
    """There is nothing to stage."""

    reason: str


@dataclass(frozen=True, slots=True)
class Answered(NotReady):
    """What there is was announced before the peer was told last."""


def names_of(peer: LocalPeer | RemotePeer) -> frozenset[bytes]:
    """What is an indicator in the peer's collect directory, and not one of its files."""
    own = {name for name in (peer.collect_indicator, peer.stage_indicator) if name is not None}
    return frozenset(os.fsencode(name) for name in KNOWN | own | {_fresh(name) for name in own})


def look(peer: LocalPeer, directory: int) -> Ready | NotReady:
    """Whether the peer, whose open collect directory this is, has announced something, and something new. Reads only.

    Raises PermanentError where an indicator cannot be looked at, TemporaryError where it may be later.
    """
    if peer.collect_indicator is None:
        return Ready(None)
    collected = _about(directory, peer.collect_indicator)
    if collected is None:
        return NotReady(f"{peer.collect_directory} has no {peer.collect_indicator}")
    if peer.stage_indicator is not None and not peer.again:
        staged = _about(directory, peer.stage_indicator)
        if staged is not None and _is_answer(directory, peer.stage_indicator, staged, collected):
            return Answered(nothing_new(peer, staged.st_mtime_ns))
    return Ready(_identity(collected))


def nothing_new(peer: LocalPeer | RemotePeer, told_ns: int | None) -> str:
    """The reason why a peer is not ready whose indicator was answered already, then."""
    when = ""
    if told_ns is not None:
        with suppress(ValueError, OverflowError, OSError):  # a peer's clock may say anything
            when = f" of {datetime.fromtimestamp(told_ns // 10**9, UTC):%Y-%m-%d %H:%M:%SZ}"
    where = f"{peer.stage_indicator} in {peer.collect_directory}"
    return f"nothing new: {where}{when} answers {peer.collect_indicator} already"


def answer(line: bytes, identity: str | None) -> bytes:
    """What a stage indicator says: which set it is, and which collect indicator it answers."""
    return line if identity is None else line + ANSWERS.encode() + identity.encode() + b"\n"


def tell(peer: LocalPeer, identity: str | None, line: bytes, made: datetime) -> str | None:
    """Write the stage indicator with this line, in one step, while the collect indicator is still that one.

    Where there is none, while nobody has written a stage indicator since the set was `made`. Returns why the peer could
    not be told; None where it was, or there is nothing to tell. Safe to repeat.
    """
    if peer.stage_indicator is None:
        return None
    line = answer(line, None if identity is None else _answered(identity))
    try:
        directory = _opened(peer.collect_directory)
    except PermanentError as error:
        return error.message
    try:
        if content(directory, peer.stage_indicator, len(line) + 1) == line:
            return None
        if identity is None and _is_newer(directory, peer.stage_indicator, made):
            return None
        if not _is_still(directory, peer, identity):
            return f"{peer.collect_indicator} in {peer.collect_directory} is not the one that was staged"
        fresh = _written(directory, peer.stage_indicator, line, peer.indicator_owner, peer.indicator_mode)
        # As late as can be: who touches it from here on is told of what was staged a moment ago.
        if not _is_still(directory, peer, identity):
            os.unlink(fresh, dir_fd=directory)
            return f"{peer.collect_indicator} in {peer.collect_directory} is not the one that was staged"
        os.rename(fresh, peer.stage_indicator, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except OSError as error:
        return f"{peer.stage_indicator} cannot be written in {peer.collect_directory}: {error.strerror}"
    except PermanentError as error:
        return error.message
    finally:
        os.close(directory)
    return None


def put(directory: int, name: str, line: bytes, owner: str | None, mode: str) -> None:
    """Write a file in one step, durable. Raises OSError, PermanentError."""
    os.rename(_written(directory, name, line, owner, mode), name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _fresh(name: str) -> str:
    return f".{name}.holdfast"


def _opened(directory: Path) -> int:
    try:
        return os.open(directory, ENTER)
    except OSError as error:
        raise PermanentError(f"collect directory {directory}: {error.strerror}") from error


def _about(directory: int, name: str) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot(f"{name} cannot be looked at", error) from error
    return found if stat.S_ISREG(found.st_mode) else None


def _identity(about: os.stat_result) -> str:
    return f"{about.st_dev}:{about.st_ino}:{about.st_mtime_ns}"


def _answered(identity: str) -> str:
    """Without the device, whose number may be another one after a restart of the machine."""
    return identity.partition(":")[2]


def _is_answer(directory: int, name: str, staged: os.stat_result, collected: os.stat_result) -> bool:
    """Whether a stage indicator answers that collect indicator; one that does not say which goes by its time."""
    said = content(directory, name, _MAX_LINES_BYTES) or b""
    named = [line.removeprefix(ANSWERS.encode()) for line in said.splitlines() if line.startswith(ANSWERS.encode())]
    if named:
        return _answered(_identity(collected)).encode() in named
    return staged.st_mtime_ns > collected.st_mtime_ns


def _is_newer(directory: int, name: str, than: datetime) -> bool:
    found = _about(directory, name)
    return found is not None and found.st_mtime > than.timestamp()


def _is_still(directory: int, peer: LocalPeer, identity: str | None) -> bool:
    if identity is None or peer.collect_indicator is None:
        return True
    found = _about(directory, peer.collect_indicator)
    return found is not None and _identity(found) == identity


def content(directory: int, name: str, length: int) -> bytes | None:
    """The first bytes of a regular file; None where there is none that can be read."""
    try:
        descriptor = os.open(name, _READ, dir_fd=directory)
    except OSError:
        return None
    try:
        return os.read(descriptor, length) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _written(directory: int, name: str, line: bytes, owner: str | None, mode: str) -> str:
    """A new file beside it with all that it is to have, durable. After OSError or PermanentError nothing is left."""
    uid, gid = (-1, -1) if owner is None else owner_of(owner)
    fresh = _fresh(name)
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=directory)  # of a worker that died here
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        os.write(descriptor, line)
        if owner is not None:
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, int(mode, 8))
        os.fsync(descriptor)
    except OSError:
        os.unlink(fresh, dir_fd=directory)
        raise
    finally:
        os.close(descriptor)
    return fresh
