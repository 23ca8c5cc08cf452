"""Hears what GNU tar says while it archives, and keeps account of it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from handlers.contract import FileProblem, ProblemKind
from handlers.tools.problem_log import ProblemLog
from handlers.tools.tar import program as tar
from handlers.tools.tar.lost import MAX_LOST, Lost
from handlers.tools.tar.quoting import unquoted

_DIRECTORY = re.compile(rb'block \d+: d[^"\n]*"((?:[^"\\\n]|\\.)*)"\n')
_OTHER = re.compile(rb'block \d+: [^d"\n][^"\n]*"((?:[^"\\\n]|\\.)*)"')
"""A line of the listing that has a directory, and one that has something else. Nothing within a name looks like
it: quotes in names are escaped."""

_NEAR_BYTES = 256 << 10
"""So far behind the last directory of the listing lines are read as if they belonged to the first pass."""

_REPLACED = "A symbolic link took the place of a directory on the way to it"


class Listener:
    """For one run of tar; called in one thread."""

    def __init__(self, log: ProblemLog, wanted: Sequence[bytes], root: Path) -> None:
        """`wanted` are the names of the plan, as tar is given them."""
        self.log = log
        self.lost = Lost()
        self.fatal: tar.Fatal | None = None
        self.unknown: str | None = None
        self._root = root
        self._wanted = set(wanted)
        self._missing: set[tuple[bytes, ProblemKind]] = set()

    def hear(self, line: bytes) -> None:
        """One line of stderr."""
        match tar.meaning(line):
            case tar.OfFile() as said:
                self._file(said)
            case tar.Fatal() as fatal:
                self.fatal = self.fatal or fatal
            case tar.Unknown(text=text):
                self.unknown = text
                self.log.add(FileProblem(kind=ProblemKind.OTHER, path="", detail=text))
            case tar.Noise():
                pass

    def _file(self, said: tar.OfFile) -> None:
        problem, name = said.problem, said.name
        kind, detail = problem.kind, problem.detail
        if said.missing and name in self._wanted:
            # What the plan names has to be there; what was merely found may go away again.
            kind = ProblemKind.UNREADABLE
        elif said.missing and kind is ProblemKind.UNREADABLE and self._leads_elsewhere(name):
            kind, detail = ProblemKind.CHANGED, f"{_REPLACED}: {detail}"
        # Tar comes to a directory up to three times: when it looks around, for itself, and for the files in it.
        if said.missing and (name, kind) in self._missing:
            return
        if said.missing and len(self._missing) < MAX_LOST:
            self._missing.add((name, kind))
        if kind.is_tried_again:
            # Where it changed while it was read, but was read, what tar noted of a directory is right.
            self.lost.add(name, with_its_names=said.missing or kind is ProblemKind.OTHER)
        self.log.add(FileProblem(kind=kind, path=problem.path, detail=detail))

    def _leads_elsewhere(self, name: bytes) -> bool:
        """Whether there is a symbolic link on the way to this name, which tar saw as a directory: see `tar_reach`."""
        path = os.fsencode(self._root)
        for step in name.split(b"/")[1:-1]:
            path += b"/" + step
            try:
                if stat.S_ISLNK(os.lstat(path).st_mode):
                    return True
            except OSError:
                return False
        return False


class Directories:
    """What tar archives in its first pass, from its listing as it comes in pieces: the directories.

    Where something else has taken the name of one by then, tar archives that, without a word.
    """

    def __init__(self) -> None:
        self.names: set[bytes] = set()
        """The members that are directories, as tar knows them, for instance `./dir`."""
        self.others: set[bytes] = set()
        """Members of other types, at least all of the first pass."""
        self._rest = b""
        self._since_directory = 0

    def read(self, piece: bytes) -> None:
        """The next piece of the listing."""
        head, newline, tail = piece.rpartition(b"\n")
        if not newline:
            self._rest += piece
            return
        lines = self._rest + head + newline
        self._rest = tail
        found = _DIRECTORY.findall(lines)
        self.names.update(map(_name, found))
        self._since_directory = 0 if found else self._since_directory + len(lines)
        # To take all files apart would cost more than all the rest that we do with the listing.
        if self._since_directory < _NEAR_BYTES:
            self.others.update(map(_name, _OTHER.findall(lines)))


def _name(quoted: bytes) -> bytes:
    return unquoted(quoted).rstrip(b"/")
