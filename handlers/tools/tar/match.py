"""Tells what the exclude patterns of a plan leave out, exactly as GNU tar does; see `TarOptions.exclude`.

GNU tar asks fnmatch(3) in the C locale, with FNM_LEADING_DIR. Here each pattern becomes a regular expression over
bytes, so that the answer does not depend on the C library (musl knows other rules) or on the locale of the process.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable
from typing import NamedTuple

from handlers.errors import PermanentError

_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, [*range(32), 127])),
    "digit": string.digits,
    "graph": "".join(map(chr, range(33, 127))),
    "lower": string.ascii_lowercase,
    "print": "".join(map(chr, range(32, 127))),
    "punct": string.punctuation,
    "space": " \t\n\v\f\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}
"""What is in the character classes of the C locale."""


class Spelled(NamedTuple):
    """One of our patterns in GNU tar's words."""

    anchored: bool
    across: bool
    """Whether its wildcards match a slash."""
    variants: tuple[str, ...]
    """Any of them matches a name that starts with `./`."""


def spelled(pattern: str) -> Spelled:
    """What GNU tar, or `Excluded`, is told of this pattern."""
    anchored = pattern.startswith("/")
    inner = pattern.strip("/") + ("/*" if pattern.endswith("/") else "")
    variants = {f"./{variant}" if anchored else variant: None for variant in (inner, inner.replace("/**/", "/"))}
    return Spelled(anchored, "**" in pattern, tuple(variants))


def leaves_nothing(pattern: str) -> bool:
    """Whether this pattern leaves out the top directory itself, with all that is in it."""
    try:
        return Excluded([pattern])(b".")
    except PermanentError:
        return False


class Excluded:
    """All patterns of a plan as one question. Raises PermanentError for one that only GNU tar understands."""

    def __init__(self, patterns: Iterable[str]) -> None:
        kinds: dict[bool, list[bytes]] = {True: [], False: []}
        for pattern in patterns:
            anchored, across, variants = spelled(pattern)
            for variant in variants:
                kinds[anchored].append(_expression(os.fsencode(variant), across=across))
        ways = [(b"", kinds[True]), (b"(?:.*/)??", kinds[False])]
        expression = b"|".join(start + b"(?:" + b"|".join(found) + b")" for start, found in ways if found)
        self._expression = re.compile(b"(?:" + expression + b")(?:/|\\Z)", re.DOTALL) if expression else None

    def __call__(self, name: bytes) -> bool:
        """Whether this member is left out; its name is `.` or starts with `./`."""
        return self._expression is not None and self._expression.match(name) is not None


def _expression(pattern: bytes, *, across: bool) -> bytes:
    """The pattern as a regular expression, up to where the name, or one of the directories above it, ends."""
    if not _has_wildcards(pattern):
        # GNU tar looks such names up: a backslash at the end is then one.
        return re.escape(re.sub(rb"\\(.)", rb"\1", pattern, flags=re.DOTALL))
    one = b"." if across else b"[^/]"
    out = b""
    at = 0
    while at < len(pattern):
        byte = pattern[at : at + 1]
        at += 1
        if byte == b"*":
            out += b"" if out.endswith(one + b"*") else one + b"*"
        elif byte == b"?":
            out += one
        elif byte == b"[":
            bracket = _Bracket(pattern, at)
            found, at = (b"\\[", at) if bracket.open else (bracket.expression(slash=across), bracket.at)
            out += found
        elif byte == b"\\":
            # fnmatch finds nothing at all for a lone one at the end.
            out += re.escape(pattern[at : at + 1]) if at < len(pattern) else b"(?!)"
            at += 1
        else:
            out += re.escape(byte)
    return out


def _has_wildcards(pattern: bytes) -> bool:
    return re.search(rb"[?*\[]", re.sub(rb"\\.", b"", pattern, flags=re.DOTALL)) is not None


class _Bracket:
    """The bytes between brackets, read from behind the `[`."""

    def __init__(self, pattern: bytes, at: int) -> None:
        self._pattern = pattern
        self.at = at
        self._bytes: set[int] = set()
        self.open = False
        """There is no `]`: the `[` means itself."""
        self._negated = pattern[at : at + 1] in {b"!", b"^"}
        if self._negated:
            self.at += 1
        first = True
        while first or pattern[self.at : self.at + 1] != b"]":
            if self.at >= len(pattern):
                self.open = True
                return
            first = False
            self._item()
        self.at += 1

    def expression(self, *, slash: bool) -> bytes:
        """One byte of the set."""
        chosen = (set(range(256)) - self._bytes) if self._negated else self._bytes
        chosen = chosen if slash else chosen - {ord("/")}
        return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(chosen)) + b"]" if chosen else b"(?!)"

    def _item(self) -> None:
        """A class, a range or a single byte."""
        pattern = self._pattern
        named = re.compile(rb"\[:([a-y]*):\]").match(pattern, self.at)
        if named is not None:
            members = _CLASSES.get(named[1].decode())
            if members is None:
                raise _unclear(pattern)
            self._bytes.update(members.encode())
            self.at = named.end()
            return
        start = self._byte()
        following = pattern[self.at : self.at + 2]
        if following[:1] == b"-" and following[1:] not in {b"", b"]"}:
            self.at += 1
            self._bytes.update(range(start, self._byte() + 1))
        else:
            self._bytes.add(start)

    def _byte(self) -> int:
        pattern = self._pattern
        if pattern[self.at : self.at + 2] in {b"[.", b"[="}:
            found = re.compile(rb"\[([.=])(.)\1\]", re.DOTALL).match(pattern, self.at)
            if found is None:
                raise _unclear(pattern)
            self.at = found.end()
            return ord(found[2])
        if pattern[self.at : self.at + 1] == b"\\" and self.at + 1 < len(pattern):
            self.at += 1
        self.at += 1
        return pattern[self.at - 1]


def _unclear(pattern: bytes) -> PermanentError:
    return PermanentError(
        f"exclude: {os.fsdecode(pattern)!r} has brackets that only GNU tar understands",
        hint="put the characters themselves between the brackets, or install GNU tar",
    )
