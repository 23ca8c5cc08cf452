"""Remembers which files we put into a directory, so that they can be removed by name when they are old.

One list for each day in `.kept/`, a line for each file: name, inode, time of change. Nothing is ever removed because of
how its name looks: only what a list names, and only while it is still the file that was put there.
"""

from __future__ import annotations

import json
import os
from datetime import date, datetime, timedelta
from pathlib import Path

LISTS = ".kept"


class Ledger:
    """The lists of one directory; several workers may write and tidy at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lists = directory / LISTS

    def record(self, name: str, file: os.stat_result, *, now: datetime) -> None:
        """Note that this file is about to get this name in the directory.

        Record first, move then: if we die between, a list names a file that is not there. A line lost in a power cut
        leaves one file to a person; it costs no fsync here.
        """
        self._lists.mkdir(mode=0o750, exist_ok=True)
        line = json.dumps([name, file.st_ino, file.st_mtime_ns]) + "\n"
        with (self._lists / now.date().isoformat()).open("a", encoding="ascii") as day:
            day.write(line)

    def tidy(self, *, keep: timedelta, now: datetime) -> int:
        """Remove what was recorded longer ago, up to a day later than that; says how many files went."""
        last = (now - keep).date()
        removed = 0
        try:
            days = sorted(entry.name for entry in os.scandir(self._lists) if entry.is_file(follow_symlinks=False))
        except FileNotFoundError:
            return 0
        for day in days:
            if _is_before(day, last):
                removed += self._remove(self._lists / day)
        return removed

    def _remove(self, day: Path) -> int:
        removed = 0
        try:
            with day.open(encoding="ascii", errors="replace") as lines:
                for line in lines:
                    removed += self._remove_listed(line)
        except FileNotFoundError:
            return removed  # another worker was faster
        # The list goes last: if we die half way, the rest is removed the next time.
        day.unlink(missing_ok=True)
        return removed

    def _remove_listed(self, line: str) -> bool:
        try:
            name, inode, changed = json.loads(line)
        except (ValueError, TypeError):
            return False  # half a line, from a full disk or a power cut
        if not isinstance(name, str) or name in {"", ".", ".."} or "/" in name or "\0" in name:
            return False
        path = self._directory / name
        try:
            found = path.lstat()
            if (found.st_ino, found.st_mtime_ns) != (inode, changed):
                return False
            path.unlink()
        except (FileNotFoundError, IsADirectoryError):
            return False
        return True


def _is_before(day: str, last: date) -> bool:
    try:
        return date.fromisoformat(day) < last
    except ValueError:
        return False
