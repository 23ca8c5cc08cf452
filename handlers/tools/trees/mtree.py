"""What a listing says of one name: a line of mtree(5), as NetBSD's mtree and libarchive's bsdtar read it.

    ./etc/my\\040hosts type=file mode=0644 uid=0 gid=0 size=7 time=1234567890.000000001 sha256digest=... tags=inode-12

Every name is a path from the top of the tree, which is `.` itself. Blanks, what is not printable ASCII, and what one of
the programs gives a meaning to is written as a backslash with three octal digits. Names with the same `tags` are one
file; an `inode` keyword, made for this, would keep NetBSD's mtree from reading the listing. The number of links is left
out: it changes as soon as another set shares the file.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from handlers.errors import IntegrityError
from handlers.tools.codecs import Codec
from handlers.tools.frame_reader import decompress_stream
from handlers.tools.text_lines import text_lines

HEADER = b"#mtree\n"
TOP = b"."

MAX_LINE_BYTES = 64 << 20
"""Directories may be nested so deep that a path takes megabytes."""

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}
"""The words of mtree(5)."""

_WORD = rb"((?:[A-Za-z0-9._+/,:@%-]|\\[0-3][0-7]{2})+)"
_LINE = re.compile(
    rb"(?:\.|\./" + _WORD + rb") type=(file|dir|link|fifo|char|block|socket) mode=([0-7]{4}) uid=(\d{1,10})"
    rb" gid=(\d{1,10})(?: size=(\d{1,19}))? time=(-?\d{1,18})\.(\d{9})(?: link=" + _WORD + rb")?"
    rb"(?: device=native,(\d{1,10}),(\d{1,10}))?(?: sha256digest=([0-9a-f]{64}))?(?: tags=inode-(\d{1,20}))?"
)
_ESCAPED = re.compile(rb"\\([0-7]{3})")
_PLAIN = re.compile(rb"[A-Za-z0-9._+/,:@%-]*")
_WORDS = [bytes([byte]) if _PLAIN.fullmatch(bytes([byte])) else b"\\%03o" % byte for byte in range(256)]
_BILLION = 1_000_000_000
_LARGEST_NUMBER = 2**32 - 1
"""Of users, groups and devices."""


class Item(NamedTuple):
    """One name of a tree. A plain tuple: there may be millions."""

    path: bytes
    """From the top of the tree, which is `.`."""
    type: str
    """One of the words in `TYPES`."""
    mode: int
    """The permission bits, with set-id and sticky bits."""
    uid: int
    gid: int
    size: int
    """Bytes of a regular file, holes included; 0 for every other type."""
    mtime_ns: int
    link: bytes | None = None
    """What a symbolic link says."""
    device: tuple[int, int] | None = None
    """Major and minor number."""
    sha256: str | None = None
    """Of a regular file; None where it could not be read."""
    inode: int | None = None
    """Names with the same number are one file. None where a file had one name only when it was listed."""


def order(path: bytes) -> bytes:
    """The key by which a listing is sorted: names bytewise, a directory before what is in it."""
    return b"" if path == TOP else path.replace(b"/", b"\0")


def item_of(path: bytes, about: os.stat_result, *, link: bytes | None, sha256: str | None) -> Item:
    """What there is to say of a name that is on the disk."""
    kind = TYPES[stat.S_IFMT(about.st_mode)]
    is_device = kind in {"char", "block"}
    return Item(
        path,
        kind,
        stat.S_IMODE(about.st_mode),
        about.st_uid,
        about.st_gid,
        about.st_size if kind == "file" else 0,
        about.st_mtime_ns,
        link,
        (os.major(about.st_rdev), os.minor(about.st_rdev)) if is_device else None,
        sha256,
        about.st_ino if about.st_nlink > 1 and kind != "dir" else None,
    )


def beginning(path: bytes) -> bytes:
    """How the line for a name begins, and no other line."""
    return b". " if path == TOP else b"./" + _escaped(path) + b" "


def line(item: Item) -> bytes:
    """The line of a listing for an item, with its end."""
    seconds, nanoseconds = divmod(item.mtime_ns, _BILLION)
    size = b" size=%d" % item.size if item.type == "file" else b""
    link = b"" if item.link is None else b" link=" + _escaped(item.link)
    device = b"" if item.device is None else b" device=native,%d,%d" % item.device
    sha256 = b"" if item.sha256 is None else b" sha256digest=" + item.sha256.encode()
    shared = b"" if item.inode is None else b" tags=inode-%d" % item.inode
    return b"%btype=%b mode=%04o uid=%d gid=%d%b time=%d.%09d%b%b%b%b\n" % (
        beginning(item.path),
        item.type.encode(),
        item.mode,
        item.uid,
        item.gid,
        size,
        seconds,
        nanoseconds,
        link,
        device,
        sha256,
        shared,
    )


def items(listing: Iterable[bytes]) -> Iterator[Item]:
    """What a stored listing says, in its order. Raises IntegrityError, naming the line, for what `line` never wrote.

    So a path never leads out of the tree, and each comes once, after the directory that it is in.
    """
    before: Item | None = None
    key = b""
    above: list[bytes] = []
    """The directories from the top to where we are, each as the beginning of the keys of what is in it."""
    for number, text in enumerate(text_lines(_stored(listing), what="listing", max_bytes=MAX_LINE_BYTES), start=1):
        if number == 1:
            if text + b"\n" != HEADER:
                raise IntegrityError(f"listing does not begin with {HEADER.decode().strip()}: {text[:60]!r}")
            continue
        found = item(text)
        if found is None or (before is None) != (found.path == TOP):
            raise IntegrityError(f"listing line {number} makes no sense: {text[:200]!r}")
        last, key = key, order(found.path)
        while above and not key.startswith(above[-1]):
            above.pop()
        if before is not None and (key <= last or key.count(b"\0") != len(above) - 1):
            raise IntegrityError(f"listing line {number} is out of order: {text[:200]!r}")
        if found.type == "dir":
            above.append(key + b"\0" if key else b"")
        before = found
        yield found
    if before is None:
        raise IntegrityError("listing is empty")


def _stored(listing: Iterable[bytes]) -> Iterator[bytes]:
    return decompress_stream(iter(listing), Codec.ZSTD)


def item(text: bytes) -> Item | None:
    """What a line says, given without its end; None for one that `line` never wrote."""
    found = _LINE.fullmatch(text)
    if found is None:
        return None
    name, kind, mode, uid, gid, size, seconds, fraction, link, major, minor, sha256, inode = found.groups()
    path = TOP if name is None else _unescaped(name)
    type_ = kind.decode()
    if (
        (size is None) == (type_ == "file")
        or (link is None) == (type_ == "link")
        or (major is None) == (type_ in {"char", "block"})
        or (sha256 is not None and type_ != "file")
        or max(int(uid), int(gid), int(major or 0), int(minor or 0)) > _LARGEST_NUMBER
        or not _is_inside(path, is_directory=type_ == "dir")
    ):
        return None
    return Item(
        path,
        type_,
        int(mode, 8),
        int(uid),
        int(gid),
        int(size or 0),
        int(seconds) * _BILLION + int(fraction),
        None if link is None else _unescaped(link),
        None if major is None else (int(major), int(minor)),
        None if sha256 is None else sha256.decode(),
        None if inode is None else int(inode),
    )


def _is_inside(path: bytes, *, is_directory: bool) -> bool:
    """Whether a path is one that a walk of a tree finds."""
    if path == TOP:
        return is_directory
    return b"\0" not in path and not any(step in {b"", b".", b".."} for step in path.split(b"/"))


def _escaped(name: bytes) -> bytes:
    return name if _PLAIN.fullmatch(name) else b"".join([_WORDS[byte] for byte in name])


def _unescaped(word: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), word) if b"\\" in word else word
