"""Writes the two parts that list a tree: for `sha256sum -c`, and for `mtree` or `bsdtar`."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from handlers.contract import FileProblem, Part, PartWriter, ProblemKind, Tree, printable
from handlers.errors import TemporaryError
from handlers.tools.codecs import Codec
from handlers.tools.framed_part import coded
from handlers.tools.frames import FrameWriter
from handlers.tools.trees.mtree import HEADER, TYPES, Item, item_of, items, line
from handlers.tools.trees.reading import LOOK, Asked, Content, Pulse, read_in_order
from handlers.tools.trees.sizes import Sizes
from handlers.tools.trees.walk import NO_MORE_FILES, Found, open_top, walk

__all__ = ["Item", "Listed", "items", "mtree_name", "sums_name", "write"]

Known = Callable[[bytes, os.stat_result], str | None]
"""The SHA-256 of the regular file at this path, with these attributes, if it is known: the file is not read then."""

_FRAME_BYTES = 512 << 10
_WRITE_BYTES = 64 << 10
_NOT_THE_FILE = {
    errno.ENOENT: ProblemKind.VANISHED,
    errno.ELOOP: ProblemKind.CHANGED,
    errno.ENXIO: ProblemKind.CHANGED,
    errno.ENOTDIR: ProblemKind.CHANGED,
}
"""What opening says where the name is gone, or is no regular file any more."""
_REMEMBERED = 50_000
"""Files with several names whose SHA-256 is remembered until all of the names were seen. Where more are open at once
the oldest is forgotten, and read again at its next name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What was written."""

    files: int
    """Names below the top of the tree, directories included."""
    size_bytes: int
    """Of the regular files, each hard-linked one once."""
    parts: tuple[Part, ...]

    def tree(self, name: str) -> Tree:
        """The record of the tree for `Produced.trees`."""
        return Tree(name=name, files=self.files, size_bytes=self.size_bytes, listing=mtree_name(name))


def mtree_name(name: str) -> str:
    """The part with the attributes of all that is in a tree of this name."""
    return f"{name}.mtree.zst"


def sums_name(name: str) -> str:
    """The part with the SHA-256 of each regular file."""
    return f"{name}.sha256.zst"


def nothing_known(path: bytes, about: os.stat_result) -> str | None:
    """Let every file be read."""
    return None


def write(
    tree: Path,
    name: str,
    open_part: Callable[[str], PartWriter],
    *,
    known: Known = nothing_known,
    problem: Callable[[FileProblem], None],
    checkpoint: Callable[[], None],
    report: Callable[[int], None],
) -> Listed:
    """List all that is in a tree, in the order of its names; both parts are closed on return.

    Files are read once, whatever number of names they have, and not at all where `known` knows their SHA-256. Nothing
    is followed, nothing but regular files is opened. `problem` is told what is not in the listing as it should be, and
    may raise: CHANGED for a file that changed while it was read (listed as it was last read) or was replaced (left
    out), UNREADABLE for a file (listed without SHA-256) or a directory (listed without what is in it). `report` is
    told how many more bytes were read. Memory grows with the depth alone.

    Raises TemporaryError where the tree itself cannot be read, and what `open_part`, its parts and callables raise.
    """
    with ExitStack() as stack:
        try:
            top = open_top(tree)
            stack.callback(os.close, top)
        except OSError as error:
            raise TemporaryError(f"cannot read {tree}: {error.strerror}") from error
        parts = [_Lines(open_part(part), stack) for part in (sums_name(name), mtree_name(name))]
        sums, attributes = parts
        writing = _Writing(os.fsencode(name) + b"/", sums, attributes, known, problem)
        stack.enter_context(closing(writing))
        attributes.add(HEADER)
        pulse = Pulse(checkpoint, report)
        asked = stack.enter_context(closing(writing.asked(top)))
        read = stack.enter_context(closing(read_in_order(asked, pulse)))
        try:
            for found, content in read:
                writing.take(found, content)
        except OSError as error:
            raise TemporaryError(f"cannot list {tree}: {error.strerror or error}") from error
        return Listed(
            files=writing.files,
            size_bytes=writing.size_bytes(),
            parts=tuple(part.close(checkpoint) for part in parts),
        )


class _Lines:
    """One part being written, in larger pieces."""

    def __init__(self, out: PartWriter, stack: ExitStack) -> None:
        self._out = out
        self._writer = stack.enter_context(
            FrameWriter(out, codec=Codec.ZSTD, threads=1, frame_bytes=_FRAME_BYTES),
        )
        self._pending = bytearray()

    def add(self, text: bytes) -> None:
        self._pending += text
        if len(self._pending) >= _WRITE_BYTES:
            self._writer.write(self._pending)
            self._pending.clear()

    def close(self, checkpoint: Callable[[], None]) -> Part:
        self._writer.write(self._pending, checkpoint=checkpoint)
        self._writer.close(checkpoint=checkpoint)
        return coded(self._out.close(), Codec.ZSTD)


class _Named(NamedTuple):
    """One name on its way into the listing."""

    path: bytes
    about: os.stat_result
    link: bytes | None = None
    sha256: str | None = None
    error: OSError | None = None
    """Why nothing is known of what is in it."""
    again: bool = False
    """Whether it is one more name of a file that was asked for already."""


class _Shared:
    """The files with several names that were read, until their last name."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[int, int], tuple[int, Content | OSError | None]] = OrderedDict()

    def ask(self, about: os.stat_result) -> bool:
        """Whether this is one more name of a file that is known; otherwise it will be."""
        if about.st_nlink < 2:
            return False
        key = about.st_dev, about.st_ino
        if key in self._read:
            return True
        self._read[key] = about.st_nlink, None
        if len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        return False

    def forget(self, about: os.stat_result) -> None:
        """Have the file read at its next name: it could not be at the one before."""
        self._read.pop((about.st_dev, about.st_ino), None)

    def answer(self, about: os.stat_result, content: Content | OSError | None) -> Content | OSError | None:
        """What was read of the file, now or under an earlier name."""
        key = about.st_dev, about.st_ino
        if about.st_nlink < 2 or key not in self._read:
            return content
        left, earlier = self._read.pop(key)
        content = content or earlier
        if left > 1:
            self._read[key] = left - 1, content
        return content


class _Writing:
    """What has been listed so far."""

    def __init__(
        self, prefix: bytes, sums: _Lines, attributes: _Lines, known: Known, problem: Callable[[FileProblem], None]
    ) -> None:
        self._prefix = prefix
        self._sums = sums
        self._attributes = attributes
        self._known = known
        self._problem = problem
        self._shared = _Shared()
        self._sizes = Sizes()
        self.files = -1  # the top is none

    def asked(self, top: int) -> Generator[Asked[_Named], None, None]:
        """Every name in order, with the open file where that has to be read."""
        for found in walk(top):
            kind = stat.S_IFMT(found.about.st_mode)
            if kind == stat.S_IFREG:
                one = self._file(found)
            elif kind == stat.S_IFLNK:
                one = self._link(found)
            elif kind in TYPES:
                one = Asked(_Named(found.path, found.about, error=found.error), found.about, None)
            else:
                one = None
                self._tell(ProblemKind.UNKNOWN_TYPE, found.path, "it is of no type that a listing knows")
            if one is not None:
                yield one

    def take(self, named: _Named, content: Content | OSError | None) -> None:
        """List one name, once its content is known. Raises OSError where this process has no files left to open."""
        about, sha256 = named.about, named.sha256
        if stat.S_ISREG(about.st_mode) and sha256 is None:
            content = self._shared.answer(about, content if named.error is None else named.error)
            if isinstance(content, Content):
                if content.changed:
                    self._tell(ProblemKind.CHANGED, named.path, "file changed while it was listed")
                if not content.sha256:
                    return
                about, sha256 = content.about, content.sha256
        error = content if isinstance(content, OSError) else named.error
        if error is not None:
            self._tell(ProblemKind.UNREADABLE, named.path, f"cannot read: {error.strerror}")
        self.files += 1
        item = item_of(named.path, about, link=named.link, sha256=sha256)
        self._attributes.add(line(item))
        if item.type == "file":
            self._sizes.add(item.inode, about.st_size)
            if sha256 is not None:
                self._sums.add(_sum_line(self._prefix + named.path, sha256))

    def size_bytes(self) -> int:
        """Bytes of all files so far, each once."""
        return self._sizes.total()

    def close(self) -> None:
        self._sizes.close()

    def _file(self, found: Found) -> Asked[_Named] | None:
        path, about = found.path, found.about
        sha256 = self._known(path, about)
        if sha256 is not None:
            return Asked(_Named(path, about, sha256=sha256), about, None)
        if self._shared.ask(about):
            return Asked(_Named(path, about), about, None)
        try:
            return Asked(_Named(path, about), about, os.open(found.name, LOOK, dir_fd=found.at))
        except OSError as error:
            if error.errno in _NOT_THE_FILE:
                self._shared.forget(about)
                self._tell(_NOT_THE_FILE[error.errno], path, "file was replaced or removed while it was listed")
                return None
            if error.errno in NO_MORE_FILES:
                raise
            return Asked(_Named(path, about, error=error), about, None)

    def _link(self, found: Found) -> Asked[_Named] | None:
        try:
            link = os.readlink(found.name, dir_fd=found.at)
        except OSError as error:
            self._tell(
                _NOT_THE_FILE.get(error.errno or 0, ProblemKind.CHANGED), found.path, "link was replaced or removed"
            )
            return None
        return Asked(_Named(found.path, found.about, link=link), found.about, None)

    def _tell(self, kind: ProblemKind, path: bytes, detail: str) -> None:
        self._problem(FileProblem(kind=kind, path=printable(path), detail=detail))


def _sum_line(path: bytes, sha256: str) -> bytes:
    r"""As coreutils 9 has it: a name with a backslash, or the end of a line in it, is escaped, and the line says so."""
    if b"\\" not in path and b"\n" not in path and b"\r" not in path:
        return b"%b  %b\n" % (sha256.encode(), path)
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return b"\\%b  %b\n" % (sha256.encode(), escaped)
