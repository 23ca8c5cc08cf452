"""Takes what a peer has into the set, in several threads."""

from __future__ import annotations

import os
import stat
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from handlers.contract import ProblemKind
from handlers.tools.deep_tree import Way
from handlers.tools.peers.files import (
    NOT_HERE,
    NotPossible,
    NotTaken,
    Taken,
    link,
    no_right,
    our_disk,
    our_place,
    same,
    take,
)
from handlers.tools.peers.side_by_side import Round, Sides, link_at, stat_at
from handlers.tools.removal import remove_at

MOST_THREADS = 4

_TOGETHER = 64
"""Names that are handed to a thread at once."""
_LOOK_SECONDS = 0.2


class Taking(Round):
    """Takes what is not there yet, or other than before."""

    def __init__(self, sides: Sides, pool: ThreadPoolExecutor, *, first: bool, distrust: bool) -> None:
        super().__init__(sides)
        self._pool = pool
        self._first = first
        self._fresh = first and not distrust
        self._distrust = distrust
        self._batch: list[tuple[bytes, bool]] = []
        self._running: set[Future[None]] = set()
        self._size_bytes = 0

    def run(self) -> None:
        """Take everything; all of it is there on return."""
        try:
            super().run()
            while self._running:
                self._reap(0)
        except BaseException:
            self.pulse.give_up()
            raise

    def enter_target(self, target: Way, name: bytes, path: bytes) -> bool:
        """Make the directory where it is missing."""
        try:
            with our_place(path):
                try:
                    os.mkdir(name, 0o700, dir_fd=target.here)
                except FileExistsError:
                    if not stat.S_ISDIR(os.stat(name, dir_fd=target.here, follow_symlinks=False).st_mode):
                        remove_at(target.here, name)
                        os.mkdir(name, 0o700, dir_fd=target.here)
                target.enter(name, lambda below: os.fchmod(below, 0o700))
        except NotPossible as trouble:
            self._refused(path, trouble)
            return False
        return True

    def file(self, at: int, to: int, path: bytes, name: bytes) -> None:
        """Hand it to a thread, unless it is there already."""
        found = None if self._fresh else stat_at(to, name)
        suspect = False
        if found is not None:
            about = _source(at, name)
            suspect = about is not None and self.alike(about, found) and path + name not in self.sides.again
            if suspect and not self._distrust:
                self._count(found.st_size)
                return
            if not suspect:
                self._clear(to, name)
        self._batch.append((name, suspect))
        if len(self._batch) >= _TOGETHER:
            self._send(at, to, path)

    def symlink(self, at: int, to: int, path: bytes, name: bytes) -> None:
        """Make the same link."""
        try:
            text, about = link_at(at, name)
        except OSError:
            return  # the look afterwards finds out
        try:
            with our_place(name):
                if not self._fresh and stat_at(to, name) is not None:
                    remove_at(to, name)
                os.symlink(text, name, dir_fd=to)
                uid, gid = self.rules.dress.owner_of(about)
                if (uid, gid) != (-1, -1):
                    _give(to, name, uid, gid)
                os.utime(name, ns=(about.st_atime_ns, about.st_mtime_ns), dir_fd=to, follow_symlinks=False)
        except NotPossible as trouble:
            self._clear(to, name)
            self._refused(path + name, trouble)

    def refuse(self, to: int, path: bytes, name: bytes, kind: ProblemKind, detail: str) -> None:
        """There may be what had this name before."""
        if not self._fresh:
            self._clear(to, name)
        super().refuse(to, path, name, kind, detail)

    def _clear(self, to: int, name: bytes) -> None:
        with our_disk(name):
            try:
                remove_at(to, name)
            except OSError as error:
                if error.errno not in NOT_HERE:  # otherwise there is no such name, and never was
                    raise

    def _refused(self, path: bytes, trouble: NotTaken) -> None:
        with self.sides.lock:
            self.outcome.add(path, trouble.kind, trouble.detail)
            if isinstance(trouble, NotPossible):
                self.sides.impossible[path] = trouble.detail

    def _count(self, more: int) -> None:
        if self.rules.max_bytes is None:
            return
        with self.sides.lock:
            self._size_bytes += more
            size = self._size_bytes
        self.rules.check_size(size)

    def listed(self, at: int, to: int, path: bytes, *, whole: bool) -> None:
        """Hand over the rest; what came from an earlier attempt, and was not met at the peer, goes."""
        if self._distrust:
            with our_disk(path), os.scandir(to) as found:
                for name in [os.fsencode(entry.name) for entry in found]:
                    if not whole or _source(at, name) is None or (not path and name in self.rules.left_out):
                        remove_at(to, name)
        self._send(at, to, path)

    def shut(self, to: int, name: bytes) -> None:
        """What an earlier attempt has brought of it cannot be compared."""
        if not self._fresh:
            self._clear(to, name)

    def _send(self, at: int, to: int, path: bytes) -> None:
        if not self._batch:
            return
        self._reap(2 * MOST_THREADS)
        places = os.dup(at), os.dup(to)
        names, self._batch = self._batch, []
        self._running.add(self._pool.submit(self._take_all, *places, path, names))

    def _reap(self, most: int) -> None:
        """Wait until no more than that many are at work."""
        self.pulse.beat()
        while len(self._running) > most:
            done, self._running = wait(self._running, _LOOK_SECONDS, FIRST_COMPLETED)
            for future in done:
                future.result()
            self.pulse.beat()

    def _take_all(self, at: int, to: int, path: bytes, names: list[tuple[bytes, bool]]) -> None:
        try:
            for name, suspect in names:
                self.pulse.beat()
                try:
                    self._take(at, to, path + name, name, suspect=suspect)
                except NotTaken as trouble:
                    self._clear(to, name)  # what an earlier attempt has brought is nobody's copy then
                    self._refused(path + name, trouble)
        finally:
            os.close(at)
            os.close(to)

    def _take(self, at: int, to: int, path: bytes, name: bytes, *, suspect: bool) -> None:
        taken: Taken | None = None
        kept = False
        expected = 0
        if self.rules.max_bytes is not None and (about := _source(at, name)) is not None:
            expected = about.st_size
            self._count(expected)  # before it is copied: it may be larger than the disk
        if suspect:
            taken = same(at, to, name, self.rules.dress, self.pulse)
            kept = taken is not None
            if not kept:
                self._clear(to, name)
        if taken is None and self.rules.hard_link:
            taken = link(at, to, name, self.pulse)
        if taken is None:
            taken = take(at, to, name, self.rules.dress, self.pulse)
        self._count(taken.about.st_size - expected)
        self.sides.ledger.add(self.sides.prefix + path, taken.about, taken.sha256)
        self.pulse.tally.add(1, 0)
        with self.sides.lock:
            self.outcome.taken_again += taken.again + (not self._first)
            self.outcome.kept += kept
            if not taken.settled:
                self.outcome.add(path, ProblemKind.CHANGED, "it changed each time it was read")


def _source(at: int, name: bytes) -> os.stat_result | None:
    """What the peer has at this name; None where it has nothing, or we may not look."""
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except OSError:
        return None


def _give(to: int, name: bytes, uid: int, gid: int) -> None:
    try:
        os.chown(name, uid, gid, dir_fd=to, follow_symlinks=False)
    except PermissionError as error:
        raise no_right(error) from error
