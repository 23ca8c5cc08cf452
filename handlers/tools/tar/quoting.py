"""Undoes GNU tar's quoting style `c`, in which its listing and its messages have names."""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_MEANING = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\\": b"\\",
    b'"': b'"',
    b"?": b"?",
    # Only in messages, where a colon ends the name.
    b":": b":",
    b" ": b" ",
}


def unquoted(quoted: bytes) -> bytes:
    """The name that this stands for, without the quotes around it. Raises ValueError for an unknown escape."""
    return _ESCAPE.sub(_plain, quoted) if b"\\" in quoted else quoted


def _plain(found: re.Match[bytes]) -> bytes:
    escape = found[1]
    if len(escape) == 3:
        return bytes([int(escape, 8) & 0xFF])
    meaning = _MEANING.get(escape)
    if meaning is None:
        raise ValueError(f"unknown escape {found[0]!r}")
    return meaning
