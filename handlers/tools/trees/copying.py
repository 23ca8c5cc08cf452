"""Makes the names of a tree anew below another directory: what the listing says of them, with the tree's content.

Every name is reached step by step from the top of either tree, and no step follows a symbolic link; nothing that exists
is opened for writing or replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from handlers.contract import Progress, printable
from handlers.errors import IntegrityError, PermanentError, TemporaryError
from handlers.tools.deep_tree import NO_DIRECTORY
from handlers.tools.dressing import Dress, attributes_of, by_descriptor, dress, dress_unopened
from handlers.tools.tar.extract import Unset
from handlers.tools.trees.mtree import TOP, TYPES, Item
from handlers.tools.trees.reading import LOOK, PIECE_BYTES, Pulse
from handlers.tools.trees.steps import Steps, split

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM})
_DAMAGED = frozenset({errno.ENOENT, errno.ENXIO, errno.EIO, errno.EUCLEAN, errno.EBADMSG}) | NO_DIRECTORY
"""What reading says where the tree is not what was committed."""
_FORMATS = {word: kind for kind, word in TYPES.items()}
_ZEROS = bytes(PIECE_BYTES)
_HASHED_AHEAD = 2


class Copying:
    """One restore on its way; takes the names in the order of the listing. Close it."""

    def __init__(
        self, tree: int, target: int, checkpoint: Callable[[], None], report: Callable[[Progress], None]
    ) -> None:
        """`tree` and `target` are the open tops."""
        self._tree = Steps(tree)
        self._target = Steps(target)
        self._sharing = Steps(target)
        self._pulse = Pulse(checkpoint, lambda _: report(self.progress()))
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="tree-hash")
        self._inside: list[tuple[bytes, Dress]] = []
        """Directories that are not complete: the one where we are, and those above."""
        self._closed: list[tuple[bytes, int]] = []
        """Directories that their owner, who is not root, must not enter, with their modes."""
        self._as_root = os.geteuid() == 0
        self._bytes_out = 0
        self.files = 0
        self.bytes_read = 0
        self.strangers = 0
        """Names whose owner could not be restored."""
        self.unset = Unset()

    def progress(self) -> Progress:
        """How far it is."""
        return Progress(files=self.files, bytes_in=self.bytes_read, bytes_out=self._bytes_out)

    def close(self) -> None:
        """Let go of threads and directories."""
        self._hashing.shutdown(cancel_futures=True)
        for steps in (self._tree, self._target, self._sharing):
            steps.close()

    def top(self, item: Item) -> None:
        """Let the target become the top of the tree, once all is in it."""
        with _reading(item.path):
            attributes = attributes_of(self._tree.to(TOP))
        self._inside.append((TOP, _dress(item, attributes)))

    def take(self, item: Item, shares: bytes | None) -> None:
        """Make one name; `shares` is an earlier name of the same file."""
        self._pulse.beat()
        self._leave(item.path)
        directory, name = split(item.path)
        try:
            if shares is not None:
                above, shared = split(shares)
                source = self._sharing.to(above)
                os.link(shared, name, src_dir_fd=source, dst_dir_fd=self._target.to(directory), follow_symlinks=False)
            elif item.type == "dir":
                self._directory(item, name)
            elif item.type == "file":
                self._file(item, name)
            else:
                self._other(item, name)
        except OSError as error:
            raise _failure(item.path, error) from error
        self.files += 1
        self.strangers += not self._as_root and item.uid != os.geteuid()

    def finish(self) -> None:
        """Complete the directories that are left."""
        self._leave(None)
        for path, mode in reversed(self._closed):
            try:
                os.fchmod(self._target.to(path), mode)
            except OSError as error:
                raise _failure(path, error) from error
        self._pulse.beat(now=True)

    def _leave(self, path: bytes | None) -> None:
        """Give the directories that the path is not in what would have changed while they were filled."""
        while self._inside:
            directory, about = self._inside[-1]
            if path is not None and (directory == TOP or path.startswith(directory + b"/")):
                return
            self._inside.pop()
            if not self._as_root and about.mode & stat.S_IRWXU != stat.S_IRWXU:
                self._closed.append((directory, about.mode))
                about = about._replace(mode=about.mode | stat.S_IRWXU)
            try:
                dress(self._target.to(directory), about, self.unset.note)
            except OSError as error:
                raise _failure(directory, error) from error

    def _directory(self, item: Item, name: bytes) -> None:
        with _reading(item.path):
            attributes = attributes_of(self._tree.to(item.path))
        os.mkdir(name, 0o700, dir_fd=self._target.to(split(item.path)[0]))
        self._inside.append((item.path, _dress(item, attributes)))

    def _file(self, item: Item, name: bytes) -> None:
        directory, _ = split(item.path)
        with _reading(item.path):
            source = os.open(name, LOOK, dir_fd=self._tree.to(directory))
        try:
            with _reading(item.path):
                about = os.fstat(source)
                attributes = attributes_of(source)
            if not stat.S_ISREG(about.st_mode) or about.st_size != item.size:
                raise IntegrityError(
                    f"cannot restore {printable(item.path)!r}: the set has {about.st_size} bytes of it, not {item.size}"
                )
            file = os.open(name, _CREATE, 0o600, dir_fd=self._target.to(directory))
            try:
                self._copy(source, file, item, about)
                dress(file, _dress(item, attributes), self.unset.note)
            finally:
                os.close(file)
        finally:
            os.close(source)

    def _copy(self, source: int, file: int, item: Item, about: os.stat_result) -> None:
        """Copy the content, holes as holes. Raises IntegrityError unless it is what was listed."""
        digest = hashlib.sha256()
        hashing: deque[Future[None]] = deque()
        for offset, piece, is_hole in _pieces(source, about, item.path):
            if len(piece) < PIECE_BYTES:
                while hashing:
                    hashing.popleft().result()
                digest.update(piece)
            else:
                hashing.append(self._hashing.submit(digest.update, piece))
                if len(hashing) > _HASHED_AHEAD:
                    hashing.popleft().result()
            if not is_hole:
                _write(file, piece, offset)
                self.bytes_read += len(piece)
                self._pulse.count(len(piece))
            self._bytes_out += len(piece)
            self._pulse.beat()
        os.ftruncate(file, item.size)
        while hashing:
            hashing.popleft().result()
        if item.sha256 is not None and digest.hexdigest() != item.sha256:
            raise IntegrityError(
                f"cannot restore {printable(item.path)!r}: it has SHA-256 {digest.hexdigest()}, "
                f"its listing says {item.sha256}"
            )

    def _other(self, item: Item, name: bytes) -> None:
        """A link, a pipe, a socket or a device."""
        directory, _ = split(item.path)
        with _reading(item.path):
            there = self._tree.to(directory)
            found = os.stat(name, dir_fd=there, follow_symlinks=False)
            attributes = attributes_of(by_descriptor(there, name))
        kind = _FORMATS[item.type]
        if stat.S_IFMT(found.st_mode) != kind:
            raise IntegrityError(f"cannot restore {printable(item.path)!r}: it is no {item.type} any more")
        at = self._target.to(directory)
        if item.link is not None:
            os.symlink(item.link, name, dir_fd=at)
        else:
            os.mknod(name, kind | 0o600, os.makedev(*(item.device or (0, 0))), dir_fd=at)
        dress_unopened(at, name, _dress(item, attributes), self.unset.note, is_link=item.type == "link")


def _dress(item: Item, attributes: dict[str, bytes]) -> Dress:
    return Dress(item.path, item.mode, item.uid, item.gid, item.mtime_ns, attributes)


def _pieces(source: int, about: os.stat_result, path: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """The content in order: where, what, whether it is a hole. Fewer bytes than its size if it becomes shorter."""
    at = 0
    while at < about.st_size:
        with _reading(path):
            begin, end = _data(source, at, about)
        while at < begin:
            piece = _ZEROS[: begin - at]
            yield at, piece, True
            at += len(piece)
        while at < end:
            with _reading(path):
                piece = os.pread(source, min(PIECE_BYTES, end - at), at)
            if not piece:
                return
            yield at, piece, False
            at += len(piece)


def _data(source: int, at: int, about: os.stat_result) -> tuple[int, int]:
    """Begin and end of the next bytes that are no hole; the size of the file for both where only a hole is left."""
    size = about.st_size
    if about.st_blocks * 512 >= size:
        return at, size
    try:
        begin = os.lseek(source, at, os.SEEK_DATA)
        return min(begin, size), min(os.lseek(source, begin, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno == errno.EINVAL:
            return at, size  # this file system knows no holes
        raise


def _write(file: int, piece: bytes, offset: int) -> None:
    rest = memoryview(piece)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest = rest[written:]
        offset += written


@contextmanager
def _reading(path: bytes) -> Iterator[None]:
    """What fails within is the tree's fault, or that of who may not read it."""
    try:
        yield
    except OSError as error:
        words = f"cannot restore {printable(path)!r}: the set's own file cannot be read: {error.strerror}"
        if error.errno in _DAMAGED:
            raise IntegrityError(words) from error
        if error.errno in _REFUSED:
            raise PermanentError(words, hint="do this as the user that the files belong to") from error
        raise TemporaryError(words) from error


def _failure(path: bytes, error: OSError) -> TemporaryError | PermanentError:
    if error.errno in _FULL:
        return TemporaryError(
            f"no room for what is restored: {printable(path)!r}: {error.strerror}", hint="make room below the target"
        )
    return PermanentError(f"cannot restore {printable(path)!r}: {error.strerror}")
