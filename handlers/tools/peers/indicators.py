"""The small files by which a peer says that its directory is complete, and is told that it was staged."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from handlers.errors import PermanentError
from handlers.tools.peers.options import LocalPeer, RemotePeer, owner_of

KNOWN = frozenset({"cback.collect", "cback.stage", "cback.store", "cback.encrypt", "cback.split"})
"""Names that are an indicator wherever they are found. Other names that begin with `cback.` are files of the peer's."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Ready:
    """The peer's directory is complete."""

    identity: str | None
    """Which indicator says so; another one, or the same one touched, has another text. None where none is needed."""


@dataclass(frozen=True, slots=True)
class NotReady:
    """There is nothing to stage."""

    reason: str


def names_of(peer: LocalPeer | RemotePeer) -> frozenset[bytes]:
    """What is an indicator in the peer's collect directory, and not one of its files."""
    own = {name for name in (peer.collect_indicator, peer.stage_indicator) if name is not None}
    return frozenset(os.fsencode(name) for name in KNOWN | own | {_fresh(name) for name in own})


def look(peer: LocalPeer) -> Ready | NotReady:
    """Whether the peer has announced something, and something new. Reads only.

    Raises PermanentError for a directory that is not there, or may not be entered.
    """
    directory = _opened(peer.collect_directory)
    try:
        if peer.collect_indicator is None:
            return Ready(None)
        collected = _about(directory, peer.collect_indicator)
        if collected is None:
            return NotReady(f"{peer.collect_directory} has no {peer.collect_indicator}")
        if peer.stage_indicator is not None and not peer.again:
            staged = _about(directory, peer.stage_indicator)
            if staged is not None and staged.st_mtime_ns > collected.st_mtime_ns:
                return NotReady(nothing_new(peer))
        return Ready(_identity(collected))
    finally:
        os.close(directory)


def nothing_new(peer: LocalPeer | RemotePeer) -> str:
    """The reason why a peer is not ready whose indicator was answered already."""
    return f"nothing new: {peer.stage_indicator} in {peer.collect_directory} is newer than {peer.collect_indicator}"


def tell(peer: LocalPeer, identity: str | None, line: bytes, made: datetime) -> str | None:
    """Write the stage indicator with this line, in one step, while the collect indicator is still that one.

    Where there is none, while nobody has written a stage indicator since the set was `made`. Returns why the peer could
    not be told; None where it was, or there is nothing to tell. Safe to repeat.
    """
    if peer.stage_indicator is None:
        return None
    try:
        directory = _opened(peer.collect_directory)
    except PermanentError as error:
        return error.message
    try:
        if _content(directory, peer.stage_indicator, len(line) + 1) == line:
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


def write_done(path: Path, line: bytes, made: datetime) -> str | None:
    """Write the indicator of a whole run, unless somebody did since the set was `made`; why that cannot be, or None."""
    try:
        directory = os.open(path.parent, _ENTER)
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}"
    try:
        if _is_newer(directory, path.name, made):
            return None  # ours already, or that of a later run
        fresh = _written(directory, path.name, line, None, "0644")
        os.rename(fresh, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except OSError as error:
        return f"{path} cannot be written: {error.strerror}"
    except PermanentError as error:
        return error.message
    finally:
        os.close(directory)
    return None


def _fresh(name: str) -> str:
    return f".{name}.holdfast"


def _opened(directory: Path) -> int:
    try:
        return os.open(directory, _ENTER)
    except OSError as error:
        raise PermanentError(f"collect directory {directory}: {error.strerror}") from error


def _about(directory: int, name: str) -> os.stat_result | None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PermanentError(f"{name} cannot be looked at: {error.strerror}") from error
    return found if stat.S_ISREG(found.st_mode) else None


def _identity(about: os.stat_result) -> str:
    return f"{about.st_dev}:{about.st_ino}:{about.st_mtime_ns}"


def _is_newer(directory: int, name: str, than: datetime) -> bool:
    found = _about(directory, name)
    return found is not None and found.st_mtime > than.timestamp()


def _is_still(directory: int, peer: LocalPeer, identity: str | None) -> bool:
    if identity is None or peer.collect_indicator is None:
        return True
    found = _about(directory, peer.collect_indicator)
    return found is not None and _identity(found) == identity


def _content(directory: int, name: str, length: int) -> bytes | None:
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
