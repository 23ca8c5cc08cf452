"""Tells why files are not in one level of a chain although the subject had them, by its part about problems."""

from __future__ import annotations

import orjson

from handlers.contract import ProblemKind, printable
from handlers.tools.tar.index import lines_of
from handlers.tools.tar.lookup import TOP, parent_of, uppers
from handlers.tools.tar.stored_set import TarSet

_REASONS = frozenset(
    {
        ProblemKind.UNREADABLE,
        ProblemKind.VANISHED,
        ProblemKind.CHANGED,
        ProblemKind.SOCKET,
        ProblemKind.UNKNOWN_TYPE,
    }
)
_CLOSED = frozenset({ProblemKind.UNREADABLE, ProblemKind.VANISHED})
"""What keeps all in a directory out of a level; one that merely changed was read."""

_MAX_REASONS = 100_000
"""Files of which is remembered why they are missing."""


class Troubles:
    """The problems of one level, read when something is asked first. Memory is bounded."""

    def __init__(self, level: TarSet) -> None:
        self._level = level
        self._reasons: dict[str, ProblemKind] | None = None
        self._directories: set[str] = set()
        self._too_many = False
        self._parent: bytes | None = None
        self._closed: ProblemKind | None = None

    def __bool__(self) -> bool:
        """Whether the level has any problem; reads nothing."""
        return self._level.problems() is not None

    def reason(self, path: bytes) -> ProblemKind | None:
        """Why this path is not in the level; only to be asked where it is not."""
        return self._known().get(_text(path)) if self else None

    def reason_above(self, path: bytes) -> ProblemKind | None:
        """The same, also because a directory above could not be read; cheap for paths that come by directory."""
        parent = parent_of(path)
        if parent != self._parent:
            found = (self.reason(upper) for upper in (parent, *uppers(parent)))
            self._parent, self._closed = parent, next((reason for reason in found if reason in _CLOSED), None)
        return self.reason(path) or self._closed

    def concerns(self, directory: bytes) -> bool:
        """Whether the directory itself, or anything in it, may not be in the level as it should be."""
        known = self._known() if self else {}
        return self._too_many or (bool(known or self._directories) and _text(directory) in self._directories)

    def _known(self) -> dict[str, ProblemKind]:
        if self._reasons is None:
            self._reasons = {}
            for line in lines_of(self._level.problems() or ()):
                problem = orjson.loads(line)
                kind, path = ProblemKind(problem["kind"]), problem["path"]
                if kind is ProblemKind.RENAMED:
                    continue
                if len(self._directories) >= 2 * _MAX_REASONS or len(self._reasons) >= _MAX_REASONS:
                    self._too_many = True
                    break
                self._directories |= {path, path.rpartition("/")[0] or TOP.decode()}
                if kind in _REASONS:
                    self._reasons[path] = kind
        return self._reasons


def _text(path: bytes) -> str:
    text = path.decode("ascii", "replace")
    return text if path.isascii() and text.isprintable() and "\\" not in text else printable(path)
