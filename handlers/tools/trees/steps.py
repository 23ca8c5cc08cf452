"""Reaches one place of a tree after the other, whatever somebody does to the tree meanwhile."""

from __future__ import annotations

import os

from handlers.tools.deep_tree import Way
from handlers.tools.trees.mtree import TOP


class Steps:
    """An open directory of a tree: the last one that was asked for. No step to it follows a symbolic link.

    Cheap for directories that are near to each other. Close it.
    """

    def __init__(self, top: int) -> None:
        """`top` is the caller's and stays open."""
        self._way = Way(top)

    def to(self, directory: bytes) -> int:
        """The open directory, until the next one is asked for; `.` is the top. Raises OSError where there is none."""
        names = [] if directory == TOP else directory.split(b"/")
        here = self._way.steps
        common = 0
        for ours, wanted in zip(here, names, strict=False):
            if ours != wanted:
                break
            common += 1
        for _ in range(len(here) - common):
            self._way.leave()
        for name in names[common:]:
            self._way.enter(name, os.fstat)
        return self._way.here

    def close(self) -> None:
        """Let go of all directories."""
        self._way.close()


def split(path: bytes) -> tuple[bytes, bytes]:
    """The directory that a path is in, and its name there; the top is in itself."""
    directory, _, name = path.rpartition(b"/")
    return directory or TOP, name
