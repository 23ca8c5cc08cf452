"""Cuts a stored text, which comes in chunks, into its lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from handlers.errors import IntegrityError


def text_lines(chunks: Iterable[bytes], *, what: str, max_bytes: int) -> Iterator[bytes]:
    """The lines without their ends, whatever the chunks. Raises IntegrityError, naming `what`, for an endless one."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > max_bytes:
            raise IntegrityError(f"{what} has an endless line: {rest[:60]!r}")
    if rest:
        raise IntegrityError(f"{what} is cut short in its last line: {rest[:60]!r}")
