"""Writes the headers of archive members in the dialect that GNU tar's posix format has, and `tar_format` reads.

Not `tarfile.TarInfo.tobuf`: that marks names which are no UTF-8 with a keyword GNU tar does not know, and its times
are floats, which lose nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

BLOCK = 512

FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO = (b"%d" % kind for kind in range(7))
_EXTENDED = b"x"

Record = tuple[bytes, bytes]
"""Keyword and value of an extended header."""

_FIELDS = struct.Struct("100s 8s 8s 8s 12s 12s 8s 1s 100s 8s 32s 32s 8s 8s 155s 12x")
_NAME_BYTES = 100
_LARGEST_ID = 0o7777777
_LARGEST_NUMBER = 0o77777777777
_BILLION = 1_000_000_000


class Facts(NamedTuple):
    """What the header of a member tells besides its name."""

    mode: int
    """Permission bits with set-id and sticky bits."""
    uid: int
    gid: int
    mtime_ns: int


def member_header(
    name: bytes,
    kind: bytes,
    facts: Facts,
    *,
    size: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    records: Sequence[Record] = (),
    sparse_size: int | None = None,
) -> bytes:
    """All header blocks of a member, an extended header first where it needs one.

    `size` is that of the data that follows. With `sparse_size`, the size of a sparse file as restored, the data begins
    with the file's map (format 1.0).
    """
    extended: list[Record] = []
    if sparse_size is not None:
        extended = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name)]
        extended.append((b"GNU.sparse.realsize", b"%d" % sparse_size))
        name = _beside(name, b"GNUSparseFile.0")[:_NAME_BYTES]
    elif len(name) > _NAME_BYTES or not name.isascii():
        extended.append((b"path", name))
    if len(link) > _NAME_BYTES or not link.isascii():
        extended.append((b"linkpath", link))
    seconds, fraction = divmod(facts.mtime_ns, _BILLION)
    if fraction or not 0 <= seconds <= _LARGEST_NUMBER:
        extended.append((b"mtime", decimal_time(facts.mtime_ns)))
    for keyword, number, largest in (
        (b"uid", facts.uid, _LARGEST_ID),
        (b"gid", facts.gid, _LARGEST_ID),
        (b"size", size, _LARGEST_NUMBER),
    ):
        if number > largest:
            extended.append((keyword, b"%d" % number))
    extended += records
    block = _block(name, kind, facts, size=size, link=link, device=device)
    if not extended:
        return block
    body = b"".join(_record(keyword, value) for keyword, value in extended)
    return b"".join(
        (
            _block(_beside(name, b"PaxHeaders"), _EXTENDED, Facts(0o644, 0, 0, facts.mtime_ns), size=len(body)),
            body,
            bytes(-len(body) % BLOCK),
            block,
        )
    )


def sparse_map(regions: Sequence[tuple[int, int]]) -> bytes:
    """The map of a sparse file: offset and length of each region that follows it."""
    numbers = [len(regions), *(number for region in regions for number in region)]
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + bytes(-len(text) % BLOCK)


def decimal_time(time_ns: int) -> bytes:
    """Seconds since 1970-01-01 to the nanosecond."""
    sign = b"-" if time_ns < 0 else b""
    seconds, fraction = divmod(abs(time_ns), _BILLION)
    if not fraction:
        return b"%s%d" % (sign, seconds)
    return b"%s%d.%s" % (sign, seconds, (b"%09d" % fraction).rstrip(b"0"))


def _record(keyword: bytes, value: bytes) -> bytes:
    """`length keyword=value`, where the length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)


def _beside(name: bytes, directory: bytes) -> bytes:
    """The name that GNU tar gives to what belongs to a member."""
    upper, _, own = name.rstrip(b"/").rpartition(b"/")
    return b"/".join((upper or b".", directory, own))


def _block(
    name: bytes, kind: bytes, facts: Facts, *, size: int, link: bytes = b"", device: tuple[int, int] = (0, 0)
) -> bytes:
    """One header; what does not fit is told by the extended one, and is 0 or cut here."""
    seconds = facts.mtime_ns // _BILLION
    fields = [
        name,
        b"%07o" % facts.mode,
        b"%07o" % (facts.uid if facts.uid <= _LARGEST_ID else 0),
        b"%07o" % (facts.gid if facts.gid <= _LARGEST_ID else 0),
        b"%011o" % (size if size <= _LARGEST_NUMBER else 0),
        b"%011o" % (seconds if 0 <= seconds <= _LARGEST_NUMBER else 0),
        b" " * 8,
        kind,
        link,
        b"ustar\x0000",
        b"",
        b"",
        b"%07o" % device[0],
        b"%07o" % device[1],
        b"",
    ]
    block = _FIELDS.pack(*fields)
    fields[6] = b"%06o\0 " % sum(block)
    return _FIELDS.pack(*fields)
