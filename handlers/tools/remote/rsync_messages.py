"""Reads what rsync says: names it could not copy, how far it is, what its exit code means."""

from __future__ import annotations

import re

from handlers.contract import MAX_LISTED_PROBLEMS, ProblemKind
from handlers.errors import HoldfastError, PermanentError, TemporaryError
from handlers.tools.remote.copied import CopyProblem, TargetFull

LOSSES = (23, 24, 25)
"""Exit codes of a copy that came to its end and left something behind."""

# Source: rsync(1), "EXIT VALUES", and its errcode.h.
_PERMANENT = {
    1: "it does not know one of the options",
    2: "the two versions do not understand each other",
    3: "no such file or directory",
    4: "one of the two sides cannot do what is asked",
    126: "the program there may not be run",
}
_TEMPORARY = {
    5: "the other side refuses to start",
    6: "cannot write its log",
    10: "the connection failed",
    11: "cannot read or write files",
    12: "the connection was cut, or the other side ended",
    13: "its own messages went wrong",
    14: "its own processes lost each other",
    15: "a sibling crashed",
    16: "ended by a signal",
    19: "ended by a signal",
    20: "ended by a signal",
    21: "its processes lost each other",
    22: "not enough memory",
    30: "nothing came for too long",
    35: "the daemon does not answer",
}

_ESCAPE = re.compile(rb"\\#([0-7]{3})")
_QUOTED = re.compile(rb'^rsync: (?:\[(\w+)(?:=[^\]]*)?\] )?([^"]*)"(.*)"\)?(.*?): ([^":]+) \((\d+)\)(?: \(in .*\))?$')
_VANISHED = re.compile(rb'^(?:rsync: )?(?:\[\w+\] )?file has vanished: "(.*)"(?: \(in .*\))?$')
_UNVERIFIED = re.compile(rb"^ERROR: (.*) failed verification -- update (?:discarded|put into partial-dir|retained)\.$")
_NOT_REGULAR = re.compile(rb'^(?:\[\w+\] )?skipping non-regular file "(.*)"$')
_UNSAFE = re.compile(rb'^(?:\[\w+\] )?ignoring unsafe symlink "?(.*?)"? -> ".*"$')
_PROGRESS = re.compile(rb"^ *([0-9]{1,19}) +[0-9]+% .*?(?:\((?:xfr|xfer)#([0-9]{1,19}), .*\))?$")
_CHANGE_DIRECTORY = re.compile(rb'change_dir "(.*)" failed: ([^"]+) \(\d+\)')

_ENOENT, _NO_SPACE = 2, (27, 28, 122)
_MAX_DETAIL = 500


class NoRsyncThere(PermanentError):
    """The peer has no rsync, or not where we look for it."""


class Messages:
    """Hears rsync's two outputs line by line; what it understood is in its attributes."""

    def __init__(self, roots: tuple[bytes, ...]) -> None:
        """`roots` are the directories below which names are told without them."""
        self.problems: list[CopyProblem] = []
        self.problem_count = 0
        self.bytes_received = 0
        self.files = 0
        self.disk_full: str | None = None
        self.no_directory: str | None = None
        self._roots = tuple(root.rstrip(b"/") + b"/" for root in roots)

    def hear_error(self, line: bytes) -> None:
        """One line of stderr."""
        if found := _VANISHED.match(line):
            self._add(found[1], ProblemKind.VANISHED, "vanished while it was copied")
        elif found := _UNVERIFIED.match(line):
            self._add(found[1], ProblemKind.CHANGED, "arrived other than it was sent: it changes meanwhile")
        elif found := _CHANGE_DIRECTORY.search(line):
            self.no_directory = f"{plain(found[1])!r}: {found[2].decode()}"
        elif found := _QUOTED.match(line):
            side, action, path, more, error, number = found.groups()
            if int(number) in _NO_SPACE and side != b"sender":
                self.disk_full = _text(line)
            detail = b"%s%s: %s" % (action.strip(b' ("'), more, error)
            self._add(path, _kind(side, action, int(number)), _text(detail))

    def hear(self, line: bytes) -> bool:
        """One line of stdout; whether it told of progress."""
        if found := _PROGRESS.match(line):
            self.bytes_received = int(found[1])
            self.files = int(found[2]) if found[2] else self.files
            return True
        if found := _NOT_REGULAR.match(line):
            self._add(found[1], ProblemKind.UNKNOWN_TYPE, "neither a file nor anything else that is copied")
        elif found := _UNSAFE.match(line):
            self._add(found[1], ProblemKind.UNKNOWN_TYPE, "a symbolic link that points out of the tree")
        return False

    def _add(self, path: bytes, kind: ProblemKind, detail: str) -> None:
        self.problem_count += 1
        if len(self.problems) < MAX_LISTED_PROBLEMS:
            self.problems.append(CopyProblem(path=self._below(plain(path)), kind=kind, detail=detail))

    def _below(self, path: bytes) -> bytes:
        for root in self._roots:
            if path.startswith(root):
                return path.removeprefix(root) or b"."
            if path + b"/" == root:
                return b"."
        return path


def plain(name: bytes) -> bytes:
    """The name as it is: rsync writes what is not printable ASCII as `\\#ooo`."""
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), name)


def trouble(code: int, said: str, heard: Messages, where: str) -> HoldfastError:
    """The word for an exit code that is neither success nor one of LOSSES. Not for ssh's own troubles."""
    if heard.no_directory is not None:
        return PermanentError(f"rsync cannot enter {heard.no_directory} on {where}")
    if heard.disk_full is not None:
        return TargetFull(f"rsync from {where}: {heard.disk_full}", hint="free some space")
    if code == 127 or (code == 12 and re.search(r"rsync: (?:command )?not found|rsync: No such file", said)):
        return NoRsyncThere(f"{where} has no rsync", hint="install rsync there, or configure where it is")
    if code == 2 and "is your shell clean?" in said:
        return PermanentError(
            f"rsync from {where}: something there writes into the connection",
            hint="its login scripts must print nothing for commands: ssh HOST true",
        )
    if code in _PERMANENT:
        return PermanentError(f"rsync from {where}: {_PERMANENT[code]} (exit code {code})", hint=said or None)
    told = _TEMPORARY.get(code, "it failed")
    return TemporaryError(f"rsync from {where}: {told} (exit code {code})", hint=said or None)


def _kind(side: bytes | None, action: bytes, number: int) -> ProblemKind:
    if number == _ENOENT and (side == b"sender" or b"link_stat" in action):
        return ProblemKind.VANISHED
    reading = (b"send_files failed to open", b"opendir", b"readlink_stat", b"link_stat", b"read errors", b"readlink")
    if side == b"sender" or any(word in action for word in reading):
        return ProblemKind.UNREADABLE
    return ProblemKind.OTHER


def _text(line: bytes) -> str:
    return line[:_MAX_DETAIL].decode("utf-8", "backslashreplace")
