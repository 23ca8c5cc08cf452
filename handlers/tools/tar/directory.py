"""Knows one directory of a chain while its names are told: which levels have it, and what their lists say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from handlers.contract import ProblemKind
from handlers.tools.tar.dumpdir import Dumpdir
from handlers.tools.tar.lookup import TOP

NO_MORE = (b"", "")
"""Stands for a name behind the last one."""


class Directory:
    """A directory whose names are being told."""

    __slots__ = ("at", "heads", "lists", "path", "reason", "since", "troubled")

    def __init__(self, path: bytes, heads: Mapping[int, bytes]) -> None:
        self.path = path
        self.heads = heads
        """The line of each level that has it, the newest first."""
        self.at = next(iter(heads), None)
        """The level whose list counts; None where it is a member of none."""
        self.since = 0
        """The oldest level whose names may still be there."""
        self.lists: dict[int, Reading | None] = {}
        self.troubled: tuple[int, ...] = ()
        """Levels, the newest first, that may not have been able to look at what is in it."""
        self.reason: ProblemKind | None = None
        """Why it is as an older level has it, with all that is in it."""

    @property
    def is_gone(self) -> bool:
        """Whether it is not there any more."""
        return self.at is not None and self.at < self.since

    def holds(self, folder: bytes) -> bool:
        """Whether another directory, as keys have it, is below."""
        return (self.path == TOP and bool(folder)) or folder.startswith(self.path + b"/")

    def below(self, upper: Directory) -> bytes:
        """The name in a directory above that leads here."""
        start = 0 if upper.path == TOP else len(upper.path) + 1
        return self.path[start:].partition(b"/")[0]


class Reading:
    """Finds names in a list; quickly as long as they are asked in order."""

    def __init__(self, listed: Dumpdir) -> None:
        self._listed = listed
        self._states = listed.in_order()
        self._name, self._state = next(self._states, NO_MORE)
        self._passed = b""

    def state(self, name: bytes) -> str:
        """What became of a name; empty where the directory does not have it."""
        while self._state and self._name < name:
            self._passed = self._name
            self._name, self._state = next(self._states, NO_MORE)
        if self._state and self._name == name:
            return self._state
        return "" if self._passed < name else self._listed.state(name) or ""


def states_of(listed: Dumpdir | None, only: bytes | None) -> Iterator[tuple[bytes, str]]:
    """The names of a list, sorted; or only this one, if it is there."""
    if listed is None:
        return iter(())
    if only is None:
        return listed.in_order()
    state = listed.state(only)
    return iter(() if state is None else ((only, state),))
