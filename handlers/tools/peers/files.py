"""Takes one file of a local peer into the set: its bytes are hashed while they go by."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from handlers.contract import ProblemKind, printable
from handlers.errors import PermanentError
from handlers.tools.peers.pulse import OurDisk, Pulse

LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""How to open what should be a regular file, without waiting should it be a pipe by now."""
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

PIECE_BYTES = 1 << 20
_PIECES = 3
"""Of a large file that are in memory: one is read or written while others are hashed."""
_LARGE_BYTES = 8 << 20
_TRIES = 3
_STRAY_BITS = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
NOT_HERE = frozenset({errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.EFBIG, errno.EOPNOTSUPP})
"""What a file system answers that does not take such a name, or such a size."""
_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK}) | NOT_HERE
_NOT_THE_FILE = {
    errno.ENOENT: ProblemKind.VANISHED,
    errno.ELOOP: ProblemKind.CHANGED,
    errno.ENXIO: ProblemKind.CHANGED,
    errno.ENOTDIR: ProblemKind.CHANGED,
}


class NotTaken(Exception):
    """A name of the peer's that is not in the set as it should be."""

    def __init__(self, kind: ProblemKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class NotPossible(NotTaken):
    """A name of the peer's that the file system of the set does not take, however often one tries."""

    def __init__(self, error: OSError) -> None:
        super().__init__(ProblemKind.OTHER, f"the file system of the set does not take it: {error.strerror}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """What staged files and directories look like."""

    owner: tuple[int, int] | None = None
    """User and group; None to keep what they have, as far as we may."""
    mode: int | None = None
    directory_mode: int | None = None

    def file_mode(self, about: os.stat_result) -> int:
        """Of a file that is like this at its peer. Its owner may always read it, or nobody could verify the set."""
        return stat.S_IMODE(about.st_mode) & 0o777 | stat.S_IRUSR if self.mode is None else self.mode

    def directory(self, about: os.stat_result) -> int:
        """Of a directory that is like this at its peer."""
        if self.directory_mode is not None:
            return self.directory_mode
        return stat.S_IMODE(about.st_mode) & 0o777 | stat.S_IRUSR | stat.S_IXUSR

    def owner_of(self, about: os.stat_result) -> tuple[int, int]:
        """Of what belongs to these at its peer; -1 leaves it as it is."""
        if self.owner is not None:
            return self.owner
        return (about.st_uid, about.st_gid) if os.geteuid() == 0 else (-1, -1)


@dataclass(frozen=True, slots=True)
class Taken:
    """A file that is in the set now."""

    about: os.stat_result
    """As it was at its peer."""
    sha256: bytes
    again: int
    """How often it had to be read once more."""
    settled: bool
    """False where it changed each time it was read."""


class our_disk:  # noqa: N801  # read as a word; a generator's context costs as much as the system calls inside
    """Inside, what goes wrong is no fault of the peer: OSError becomes OurDisk."""

    __slots__ = ("_name",)

    def __init__(self, name: bytes) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            hint = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else None
            raise OurDisk(f"cannot write {printable(self._name)} into the set: {error.strerror}", hint=hint) from error


class our_place(our_disk):  # noqa: N801
    """The same while one name of the peer is written; what only that name or its size causes becomes NotPossible."""

    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError) and error.errno in NOT_HERE:
            raise NotPossible(error) from error
        super().__exit__(kind, error, trace)


def no_right(error: PermissionError) -> PermanentError:
    """What to raise where the owner or the mode of something staged cannot be set."""
    hint = "does its file system keep owners and modes?"
    if os.geteuid() != 0:
        hint = "only root can give files away: leave `owner` out, or run the worker as root"
    return PermanentError(f"owner and mode of what is staged cannot be set: {error.strerror}", hint=hint)


def take(at: int, to: int, name: bytes, dress: Dress, pulse: Pulse) -> Taken:
    """Copy a regular file from the open directory `at` into `to`, where there is none of that name.

    Raises NotTaken where it cannot be read, OurDisk where it cannot be written; nothing is left then.
    """
    source = _opened(at, name)
    try:
        with our_place(name):
            target = os.open(name, _MAKE, 0o600, dir_fd=to)
        try:
            taken = _copied(source, target, name, pulse)
            with our_place(name):
                put_on(target, taken.about, dress)
            return taken
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=to)
            raise
        finally:
            os.close(target)
    finally:
        os.close(source)


def link(at: int, to: int, name: bytes, pulse: Pulse) -> Taken | None:
    """Link a regular file from the open directory `at` into `to`, and hash it; None where it has to be copied.

    Raises NotTaken where it cannot be read.
    """
    try:
        os.link(name, name, src_dir_fd=at, dst_dir_fd=to, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_LINK:
            return None
        if error.errno in _NOT_THE_FILE:
            raise NotTaken(_NOT_THE_FILE[error.errno], "it went away while it was staged") from error
        raise OurDisk(f"cannot link {printable(name)} into the set: {error.strerror}") from error
    try:
        # The name in the set: nobody but us can have put something else there since.
        descriptor = _opened(to, name)
        try:
            about = os.fstat(descriptor)
            if about.st_mode & _STRAY_BITS:
                os.unlink(name, dir_fd=to)
                return None
            return _read(descriptor, pulse)
        finally:
            os.close(descriptor)
    except NotTaken:
        with suppress(OSError):
            os.unlink(name, dir_fd=to)
        raise


def same(at: int, to: int, name: bytes, dress: Dress, pulse: Pulse) -> Taken | None:
    """The file in `to` that somebody has copied from `at` before, if its content is the same; otherwise None.

    Raises NotTaken where the one in `at` cannot be read.
    """
    source = _opened(at, name)
    try:
        taken = _read(source, pulse)
    finally:
        os.close(source)
    try:
        target = _opened(to, name)
    except NotTaken:
        return None
    try:
        if not taken.settled or _read(target, pulse).sha256 != taken.sha256:
            return None
        with our_disk(name):
            put_on(target, taken.about, dress)
        return taken
    except NotTaken:
        return None
    finally:
        os.close(target)


def put_on(descriptor: int, about: os.stat_result, dress: Dress, *, is_directory: bool = False) -> None:
    """Give an open file or directory of the set owner, mode and time. Raises OSError, PermanentError."""
    uid, gid = dress.owner_of(about)
    try:
        if (uid, gid) != (-1, -1):
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, dress.directory(about) if is_directory else dress.file_mode(about))
    except PermissionError as error:
        raise no_right(error) from error
    os.utime(descriptor, ns=(about.st_atime_ns, about.st_mtime_ns))


def _opened(at: int, name: bytes) -> int:
    try:
        return os.open(name, LOOK, dir_fd=at)
    except OSError as error:
        kind = _NOT_THE_FILE.get(error.errno or 0)
        if kind is None:
            raise NotTaken(ProblemKind.UNREADABLE, f"cannot open: {error.strerror}") from error
        raise NotTaken(kind, "it went away while it was staged") from error


def _copied(source: int, target: int, name: bytes, pulse: Pulse) -> Taken:
    for attempt in range(_TRIES):
        before = _regular(source)
        if attempt:
            with our_place(name):
                os.ftruncate(target, 0)
                os.lseek(target, 0, os.SEEK_SET)
        sha256, size = _pumped(source, target, before, name, pulse)
        after = _regular(source)
        if _version(before) == _version(after) and size == after.st_size:
            return Taken(after, sha256, attempt, settled=True)
    return Taken(after, sha256, _TRIES - 1, settled=False)


def _read(source: int, pulse: Pulse) -> Taken:
    for attempt in range(_TRIES):
        before = _regular(source)
        sha256, size = _pumped(source, None, before, b"", pulse)
        after = _regular(source)
        if _version(before) == _version(after) and size == after.st_size:
            return Taken(after, sha256, attempt, settled=True)
    return Taken(after, sha256, _TRIES - 1, settled=False)


def _regular(descriptor: int) -> os.stat_result:
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        raise NotTaken(ProblemKind.CHANGED, "it became something else while it was staged")
    return about


def _version(about: os.stat_result) -> tuple[int, int]:
    return about.st_size, about.st_mtime_ns


def _pumped(source: int, target: int | None, about: os.stat_result, name: bytes, pulse: Pulse) -> tuple[bytes, int]:
    """The SHA-256 of all that is in the file, and how many bytes that were; written to the target on the way.

    Of a file that grows meanwhile one byte more is read than it had, and no further: it could grow for ever.
    """
    if about.st_size >= _LARGE_BYTES:
        return _pumped_large(source, target, about, name, pulse)
    digest = hashlib.sha256()
    at = 0
    while at <= about.st_size:
        wanted = min(about.st_size + 1 - at, PIECE_BYTES)
        piece = _pread(source, wanted, at)
        if target is not None and piece:
            with our_place(name):
                _write(target, piece)
        digest.update(piece)
        at += len(piece)
        pulse.went_by(len(piece))
        if not piece or (len(piece) < wanted and at >= about.st_size):
            break
    return digest.digest(), at


def _pumped_large(
    source: int, target: int | None, about: os.stat_result, name: bytes, pulse: Pulse
) -> tuple[bytes, int]:
    """One thread reads and writes, another one hashes. Where the file has holes, so has the copy."""
    digest = hashlib.sha256()
    has_holes = about.st_blocks * 512 < about.st_size
    buffers = [memoryview(bytearray(PIECE_BYTES)) for _ in range(_PIECES)]
    hashing: list[Future[None] | None] = [None] * _PIECES
    at = turn = 0
    with ThreadPoolExecutor(1, thread_name_prefix="stage-hash") as hasher:
        while at <= about.st_size:
            pulse.beat()
            if (before := hashing[turn]) is not None:
                before.result()
            count = _preadv(source, buffers[turn][: about.st_size + 1 - at], at)
            if not count:
                break
            piece = buffers[turn][:count]
            hashing[turn] = hasher.submit(digest.update, piece)
            if target is not None:
                with our_place(name):
                    if has_holes and not piece[0] and piece == _ZEROS[:count]:
                        os.lseek(target, count, os.SEEK_CUR)
                    else:
                        _write(target, piece)
            at += count
            turn = (turn + 1) % _PIECES
            pulse.went_by(count)
    if target is not None and has_holes:
        with our_place(name):
            os.ftruncate(target, at)
    return digest.digest(), at


_ZEROS = memoryview(bytes(PIECE_BYTES))


def _pread(source: int, count: int, at: int) -> bytes:
    try:
        return os.pread(source, count, at)
    except OSError as error:
        raise NotTaken(ProblemKind.UNREADABLE, f"cannot read at byte {at}: {error.strerror}") from error


def _preadv(source: int, buffer: memoryview, at: int) -> int:
    try:
        return os.preadv(source, [buffer], at)
    except OSError as error:
        raise NotTaken(ProblemKind.UNREADABLE, f"cannot read at byte {at}: {error.strerror}") from error


def _write(target: int, piece: bytes | memoryview) -> None:
    written = os.write(target, piece)
    while written < len(piece):
        written += os.write(target, piece[written:])
