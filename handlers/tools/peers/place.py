"""Where the files of a peer go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from handlers.tools.deep_tree import ENTER
from handlers.tools.peers.files import Dress, our_disk
from handlers.tools.peers.ledger import Ledger
from handlers.tools.peers.leftovers import adopt


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a peer's files go."""

    name: bytes
    """Of the peer, in `tree`."""
    tree: int
    """The open directory of all peers."""
    leftover: int | None
    """The same of an earlier attempt."""
    path: Path
    """The peer's own directory in it, which `opened` makes."""
    dress: Dress
    ledger: Ledger
    is_final: bool
    """Whether what does not come now never does: nobody tries again, or nobody needs to."""
    begin: Callable[[], None] = lambda: None
    """Called before anything of the peer is staged."""
    bytes_per_second: int | None = None
    """How fast a peer may come at most, by the plan."""

    def share_of(self, allowed: int | None) -> int | None:
        """How fast a peer may come that is allowed this much itself."""
        limits = [limit for limit in (allowed, self.bytes_per_second) if limit is not None]
        return min(limits, default=None)

    @contextmanager
    def opened(self, *, fresh: bool = False) -> Iterator[tuple[int, bool]]:
        """The peer's own directory, open, and whether there is something in it from an earlier attempt."""
        self.begin()
        adopted = not fresh and self.leftover is not None and adopt(self.leftover, self.name, self.tree)
        if not adopted:
            with our_disk(self.name):
                os.mkdir(self.name, 0o700, dir_fd=self.tree)
        with our_disk(self.name):
            directory = os.open(self.name, ENTER, dir_fd=self.tree)
        try:
            yield directory, adopted
        finally:
            os.close(directory)
