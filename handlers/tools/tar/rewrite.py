"""Writes a member's headers anew where they must say something else than they did in the archive."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.tools.tar.archive_format import BLOCK, pax_records
from handlers.tools.tar.dumpdir import parse

_CHECKSUM = slice(148, 156)
_EXTENDED = 0x78


def rewritten(headers: bytes, changes: Mapping[bytes, bytes]) -> bytes:
    """The headers (extended one included, data not) with these records of the extended header set or added.

    The extended header wins over the plain one, which stays as it is.
    """
    member = headers[-BLOCK:]
    body = b"".join(_record(key, value) for key, value in {**records_of(headers), **changes}.items())
    extended = bytearray(headers[:BLOCK])
    if headers[156] != _EXTENDED:
        extended[0:100] = b"./PaxHeaders/added".ljust(100, b"\0")
        extended[157:257] = bytes(100)
        extended[345:500] = bytes(155)
        extended[156] = _EXTENDED
    extended[124:136] = b"%011o\0" % len(body)
    extended[_CHECKSUM] = b" " * 8
    extended[_CHECKSUM] = b"%06o\0 " % sum(extended)
    return bytes(extended) + body + bytes(-len(body) % BLOCK) + member


def records_of(headers: bytes) -> dict[bytes, bytes]:
    """Keyword with value of each record of a member's extended header; empty where it has none."""
    if headers[156] != _EXTENDED:
        return {}
    return dict(pax_records(headers[BLOCK : BLOCK + int(headers[124:135], 8)]))


def without_renames(headers: bytes) -> bytes:
    """The headers of a directory, whose list no longer tells of renamed directories."""
    return rewritten(headers, {b"GNU.dumpdir": parse(records_of(headers)[b"GNU.dumpdir"]).entries + b"\0"})


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
