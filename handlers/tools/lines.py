"""Cuts what a program prints into lines of a bounded length."""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_LINE_BYTES = 64 << 10
"""A longer line is cut: two file names, each byte quoted, are shorter."""


class Lines:
    """Takes the output piece by piece, hands on line by line, without the line's end."""

    def __init__(self, on_line: Callable[[bytes], None], *, ends: bytes = b"\n") -> None:
        """Any of the bytes `ends` ends a line."""
        self._on_line = on_line
        self._end = re.compile(b"[" + re.escape(ends) + b"]")
        self._rest = b""

    def take(self, piece: memoryview) -> None:
        """One more piece."""
        *lines, rest = self._end.split(self._rest + piece)
        self._rest = rest[:MAX_LINE_BYTES]
        for line in lines:
            self._on_line(line[:MAX_LINE_BYTES])

    def finish(self) -> None:
        """A last line may lack its end."""
        if self._rest:
            self._on_line(self._rest)
            self._rest = b""
