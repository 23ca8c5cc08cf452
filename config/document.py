"""YAML 1.2 text, as a tree of plain values that remembers its lines."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from config.problems import Location, Origins, Report

MAX_DEPTH: Final = 32
"""Levels a document may have."""

_NULL: Final = re.compile(r"~|null|Null|NULL|")
_BOOL: Final = re.compile(r"(?P<yes>true|True|TRUE)|false|False|FALSE")
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT_DIGITS: Final = 40
_INT_LIMIT: Final = 2**63
_QUOTE_IT: Final = "put a value that begins with * & or ! in quotes"
_QUOTED: Final = re.compile(r"'[^']{2,}'|\"[^\"]{2,}\"")


class PlainText(str):
    """Text that stood without quotes in the document."""

    __slots__ = ()


class ScalarRefused(ValueError):
    """A scalar that no setting can have; the message says why, without quoting it."""


def unusable_text(text: str) -> str | None:
    """Why no setting can have this text, None when it is fine."""
    if "\0" in text:
        return "has a NUL character in it"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "is not valid Unicode"
    return None


def plain_scalar(text: str) -> str | int | float | bool | None:
    """The value of unquoted text by the core schema of YAML 1.2 (`no` is text there, `010` is ten).

    Raises ScalarRefused for numbers that are not finite or do not fit into 64 bits.
    """
    if _NULL.fullmatch(text):
        return None
    if match := _BOOL.fullmatch(text):
        return match["yes"] is not None
    if _INT.fullmatch(text):
        if len(text) > _INT_DIGITS or abs(number := int(text, _base(text))) >= _INT_LIMIT:
            raise ScalarRefused("is too large a number")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ScalarRefused("is not a finite number")
    if _FLOAT.fullmatch(text):
        if not math.isfinite(fraction := float(text)):
            raise ScalarRefused("is too large a number")
        return fraction
    return PlainText(text)


def _base(text: str) -> int:
    return {"0o": 8, "0x": 16}.get(text[:2], 10)


class _Syntax(Exception):  # ends the reading; its text is a problem, not a failure of ours
    """The text cannot be read beyond this line (counted from 0)."""

    def __init__(self, message: str, line: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint


class _Reader:
    """Builds the values of one document from its parser's events."""

    def __init__(self, text: str, where: str, lines: bool, base: Location, report: Report) -> None:
        self._events = _events(text)
        self._where = where
        self._lines = lines
        self._base = base
        self._report = report
        self.origins = Origins(where)

    def place(self, line: int) -> str:
        return f"{self._where}:{line + 1}" if self._lines else self._where

    def document(self) -> object:
        value: object = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Syntax("has more than one document", event.start_mark.line, "remove the --- line")
                if event.version not in (None, (1, 2)):
                    raise _Syntax("is not YAML 1.2", event.start_mark.line, "remove the %YAML line")
                value = self._value(next(self._events), self._base, 0)
        return value

    def _value(self, event: Event, location: Location, depth: int) -> object:
        line = event.start_mark.line
        if depth > MAX_DEPTH:
            raise _Syntax(f"is nested more than {MAX_DEPTH} levels deep", line)
        if isinstance(event, AliasEvent):
            self._refuse(location, line, "is an alias", f"aliases are not supported; {_QUOTE_IT}")
            return None
        assert isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent)
        scalar = isinstance(event, ScalarEvent)
        if event.anchor is not None:
            self._refuse(location, line, "has an anchor", f"not supported; {_QUOTE_IT}", silences=scalar)
        if event.tag is not None:
            self._refuse(location, line, "has a tag", f"not supported; {_QUOTE_IT}", silences=scalar)
        if isinstance(event, MappingStartEvent):
            return self._mapping(location, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(location, depth)
        return self._scalar(event, location)

    def _scalar(self, event: ScalarEvent, location: Location) -> object:
        if reason := unusable_text(event.value):
            self._refuse(location, event.start_mark.line, reason, None)
            return None
        if not event.implicit[0]:
            return str(event.value)
        try:
            return plain_scalar(event.value)
        except ScalarRefused as refused:
            self._refuse(location, event.start_mark.line, str(refused), "in quotes it is text")
            return None

    def _sequence(self, location: Location, depth: int) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            inner = (*location, len(values))
            self.origins.record(inner, self.place(event.start_mark.line))
            values.append(self._value(event, inner, depth + 1))
        return values

    def _mapping(self, location: Location, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        first: dict[str, int] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            line = event.start_mark.line
            key = self._key(event, location)
            if key is None:
                self._skip(next(self._events))
                continue
            inner = (*location, key)
            if key in first:
                hint = f"it is also on line {first[key] + 1}" if self._lines else None
                self._refuse(inner, line, "is given twice", hint, silences=False)
                self._skip(next(self._events))
                continue
            first[key] = line
            self.origins.record(inner, self.place(line))
            values[key] = self._value(next(self._events), inner, depth + 1)
        return values

    def _key(self, event: Event, location: Location) -> str | None:
        """The key, None when it has been refused."""
        line = event.start_mark.line
        if not isinstance(event, ScalarEvent):
            self._skip(event)
            self._refuse(location, line, "has a key that is no text", "write name: value", silences=False)
            return None
        inner = (*location, event.value)
        if event.anchor is not None or event.tag is not None:
            self._refuse(inner, line, "is a key with an anchor or a tag", "remove it", silences=False)
            return None
        if reason := unusable_text(event.value):
            self._refuse(inner, line, f"is a key that {reason}", None, silences=False)
            return None
        if event.implicit[0] and not _is_text(event.value):
            self._refuse(inner, line, "is a key that is no text", "put it in quotes", silences=False)
            return None
        return str(event.value)

    def _skip(self, event: Event) -> None:
        """Pass over the value that begins with this event."""
        open_collections = 0
        while True:
            if isinstance(event, MappingStartEvent | SequenceStartEvent):
                open_collections += 1
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                open_collections -= 1
            if open_collections == 0:
                return
            event = next(self._events)

    def _refuse(self, location: Location, line: int, message: str, hint: str | None, *, silences: bool = True) -> None:
        self._report.add(location, message, where=self.place(line), hint=hint, silences=silences)


def _is_text(plain: str) -> bool:
    try:
        return isinstance(plain_scalar(plain), str)
    except ScalarRefused:
        return False


def _events(text: str) -> Iterator[Event]:
    """The parser's events; every way in which it fails is a _Syntax that quotes nothing of the text."""
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # Its own text shows the line, which may hold a secret; long quoted pieces of its summary may be one.
        message = _QUOTED.sub("...", error.problem or "cannot be read")
        failure = _Syntax(f"is not YAML: {message}", mark.line if mark else 0)
    except YAMLError:
        failure = _Syntax("is not YAML: it has a control character in it", 0)
    except (OverflowError, ValueError, IndexError, AttributeError, AssertionError):
        # What the scanner stumbles over in malformed escapes and directives without calling it a syntax error.
        failure = _Syntax("is not YAML: malformed escape or directive", 0)
    else:
        return
    raise failure


def read_document(
    text: str, *, where: str, report: Report, lines: bool = True, at: Location = ()
) -> tuple[object, Origins]:
    """The value of a YAML document, with where each of its keys stands; None for an empty one.

    Values are None, bool, int, float, str, list, dict with text as keys; unquoted text is a `PlainText`. What is
    wrong goes into the report, each thing with its line; no problem quotes a value, for it may be a secret.
    `lines` says whether line numbers mean anything; `at` is where the value belongs in the tree.
    """
    reader = _Reader(text, where, lines, at, report)
    value: object = None
    try:
        value = reader.document()
    except _Syntax as syntax:
        report.add(at, str(syntax), where=reader.place(syntax.line), hint=syntax.hint)
    return value, reader.origins
