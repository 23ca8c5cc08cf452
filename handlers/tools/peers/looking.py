"""Looks whether what was taken of a peer is what it has."""

from __future__ import annotations

import os
import stat

from handlers.contract import ProblemKind
from handlers.tools.deep_tree import NO_DIRECTORY, Way
from handlers.tools.peers.files import our_disk, put_on
from handlers.tools.peers.side_by_side import Round, Sides, link_at, nothing, stat_at

_BETWEEN_BEATS = 64


class Looking(Round):
    """Looks whether all is as it was when it was taken; directories get their owner, mode and time."""

    def __init__(self, sides: Sides, *, last: bool) -> None:
        super().__init__(sides)
        self._last = last
        self.differences = 0
        # All walks meet the same names that are not taken.
        self.outcome.left_out.clear()

    def enter_target(self, target: Way, name: bytes, path: bytes) -> bool:
        """A directory that is missing in the set was not there before."""
        try:
            target.enter(name, nothing)
        except FileNotFoundError:
            self.differs(path, "it appeared while its peer was staged")
            return False
        except OSError as error:
            if error.errno not in NO_DIRECTORY:
                with our_disk(path):
                    raise
            self.differs(path, "it became something else while it was staged")
            return False
        self.outcome.files += 1
        return True

    def file(self, at: int, to: int, path: bytes, name: bytes) -> None:
        """Compare size and time."""
        try:
            about = os.stat(name, dir_fd=at, follow_symlinks=False)
        except OSError:
            return
        found = stat_at(to, name)
        kind, _ = self.outcome.problems.get(path + name, (None, ""))
        if found is None:
            if kind is not ProblemKind.UNREADABLE:
                self.differs(path + name, "it appeared while its peer was staged")
            return
        if kind is ProblemKind.CHANGED:
            self.sides.again.add(path + name)  # it may look alike by now, and was read while it changed
        if kind is ProblemKind.CHANGED or not self.alike(about, found):
            self.differs(path + name, "it changed while its peer was staged")
        self._count(found)

    def symlink(self, at: int, to: int, path: bytes, name: bytes) -> None:
        """Compare what it says."""
        try:
            text, _ = link_at(at, name)
        except OSError:
            return
        found = stat_at(to, name)
        if found is None:
            self.differs(path + name, "it appeared while its peer was staged")
        elif not stat.S_ISLNK(found.st_mode) or os.readlink(name, dir_fd=to) != text:
            self.differs(path + name, "it changed while its peer was staged")
        else:
            self._count(found)

    def leaving(self, at: int, to: int) -> None:
        """Nothing is written below it any more, so its time stays."""
        with our_disk(b"directory"):
            put_on(to, os.fstat(at), self.rules.dress, is_directory=True)

    def differs(self, path: bytes, detail: str) -> None:
        """It is taken again, if there is another time."""
        self.differences += 1
        if self._last:
            self.outcome.add(path, ProblemKind.CHANGED, detail)

    def _count(self, found: os.stat_result) -> None:
        self.outcome.files += 1
        self.outcome.contents += 1
        if stat.S_ISREG(found.st_mode):
            self.outcome.size_bytes += found.st_size
        if not self.outcome.files % _BETWEEN_BEATS:
            self.pulse.beat()
