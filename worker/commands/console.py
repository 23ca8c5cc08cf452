"""Says things to people and scripts, each on its stream.

What a script wants goes to standard output, what a person should notice to standard error. A reader that went away is
no error: the rest is left unsaid, and the exit code still tells of the work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from pydantic import BaseModel

Style = Literal["", "good", "bad", "warn", "dim", "bold"]

_CODES: Mapping[Style, str] = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_OUTCOMES: Mapping[str, Style] = {
    "succeeded": "good",
    "duplicate": "good",
    "partial": "warn",
    "failed": "bad",
    "refused": "bad",
    "damaged": "bad",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of a table."""

    text: str
    style: Style = ""
    right: bool = False


@dataclass(slots=True)
class _Fault:
    """Why standard output could not be written, kept until the end."""

    error: OSError | None = None


_fault = _Fault()


def prepare() -> None:
    """Make the streams fit for any file name, whatever the locale; call once at start."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def out(text: str = "") -> None:
    """One line for standard output, as it is."""
    _write(sys.stdout, text)


def raw(data: bytes | bytearray) -> bool:
    """Bytes for standard output, as they are; False when nobody reads them any more, or they cannot be written."""
    stream = sys.stdout
    if stream is None:
        return False
    try:
        stream.buffer.write(data)
        stream.flush()
    except OSError as error:
        _failed(stream, error)
        return False
    return True


def note(text: str) -> None:
    """One line for standard error, as it is."""
    _write(sys.stderr, text)


def json_line(value: Mapping[str, object] | BaseModel) -> None:
    """One line of JSON on standard output."""
    import orjson
    from pydantic import BaseModel

    plain = value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else dict(value)
    out(orjson.dumps(plain, default=str).decode())


def error(message: str, hint: str | None = None) -> None:
    """The one block that tells what went wrong, with what may help."""
    note(f"{paint('error:', 'bad', sys.stderr)} {clean(message)}")
    if hint:
        note(f"{paint('hint:', 'warn', sys.stderr)} {clean(hint)}")


def fault() -> OSError | None:
    """What kept standard output from being written; None when all was well, or when the reader went away."""
    return _fault.error


def clean(text: str) -> str:
    """The text without what a terminal would obey: parts of it may come from a message or a file name."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


def paint(text: str, style: Style, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream shows colours."""
    code = _CODES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if code and _has_colours(stream or sys.stdout) else text


def outcome_style(word: str) -> Style:
    """The colour of an outcome."""
    return _OUTCOMES.get(word, "")


def fields(rows: Sequence[tuple[str, str]], indent: str = "  ") -> None:
    """Names with their values, one on a line, aligned; empty values are left out."""
    shown = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        head = paint(f"{name:<{width}}", "dim")
        lines = clean(value).split("\n")
        out(f"{indent}{head}  {lines[0]}")
        for line in lines[1:]:
            out(f"{indent}{' ' * width}  {line}")


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], indent: str = "") -> None:
    """Aligned columns; the last one is as wide as it likes."""
    texts = [[clean(cell.text) for cell in row] for row in rows]
    widths = [max(len(title), *(len(row[at]) for row in texts)) for at, title in enumerate(head)] if rows else []
    if rows:
        right = [cell.right for cell in rows[0]]
        titles = [
            f"{title:>{width}}" if on_right else f"{title:<{width}}"
            for title, width, on_right in zip(head, widths, right, strict=True)
        ]
        out(indent + paint("  ".join(titles).rstrip(), "dim"))
    for row, line in zip(rows, texts, strict=True):
        pieces = []
        for at, (cell, text) in enumerate(zip(row, line, strict=True)):
            last = at == len(row) - 1 and not cell.right
            padded = text if last else f"{text:>{widths[at]}}" if cell.right else f"{text:<{widths[at]}}"
            pieces.append(paint(padded, cell.style))
        out((indent + "  ".join(pieces)).rstrip())


def size(count: int) -> str:
    """Bytes as a person reads them."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def many(count: int, noun: str) -> str:
    """`1 file`, `2,000 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(span: timedelta) -> str:
    """A time span in its two largest units."""
    seconds = span.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, smaller, small_name in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {small_name}"
    return f"{seconds:.1f} s"


def when(moment: datetime) -> str:
    """A moment on this machine's clock."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def age(moment: datetime) -> str:
    """How long ago."""
    span = datetime.now(UTC) - moment
    return f"{duration(span)} ago" if span >= timedelta(0) else f"{duration(-span)} in the future"


def _has_colours(stream: TextIO | None) -> bool:
    return (
        stream is not None and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        return  # closed by whoever started us
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as error:
        _failed(stream, error)


def _failed(stream: TextIO, error: OSError) -> None:
    # Never an exception here: a backup must not fail because nobody reads its progress.
    if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
        _fault.error = error
    _silence(stream)


def _silence(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    finally:
        os.close(nowhere)
