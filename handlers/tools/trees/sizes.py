"""Adds up the sizes of files, each once however many names it has, in bounded memory."""

from __future__ import annotations

from itertools import groupby

from handlers.tools.sorted_lines import SortedLines, by_key

_RUN_BYTES = 8 << 20


class Sizes:
    """The sizes so far; close it."""

    def __init__(self) -> None:
        self._alone = 0
        self._shared = SortedLines(run_bytes=_RUN_BYTES)

    def add(self, inode: int | None, size_bytes: int) -> None:
        """One more name of a file; None for one that has no other name."""
        if inode is None:
            self._alone += size_bytes
        else:
            self._shared.add(b"%d" % inode, b"%d" % size_bytes)

    def total(self) -> int:
        """Of all files that were added, each once."""
        return self._alone + sum(int(next(lines)[1]) for _, lines in groupby(self._shared, key=by_key))

    def close(self) -> None:
        """Let go of the temporary file."""
        self._shared.close()
