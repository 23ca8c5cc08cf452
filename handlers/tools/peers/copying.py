"""Brings a directory of this machine into the set, and looks again until nothing in it has changed meanwhile."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from handlers.tools.cores import default_threads
from handlers.tools.peers.files import our_disk
from handlers.tools.peers.looking import Looking
from handlers.tools.peers.outcome import Outcome
from handlers.tools.peers.side_by_side import Sides
from handlers.tools.peers.taking import MOST_THREADS, Taking

_ROUNDS = 3
"""How often what is new or other than before is taken."""
_COARSE_NS = 2_000_000_000
"""No file system in use is coarser than FAT, which counts every other second."""


def copy(sides: Sides, *, distrust: bool) -> Outcome:
    """Take everything; with `distrust` there is something in the target already, which nobody vouches for.

    On return the target is as the source was when it was looked at last, but for what the outcome names. Raises
    PermanentError where the top directory cannot be read, OurDisk, and what the pulse raises.
    """
    sides.coarse_ns = _coarseness(sides.target)
    for attempt in range(_ROUNDS):
        sides.outcome = Outcome(taken_again=sides.outcome.taken_again, kept=sides.outcome.kept)
        with our_disk(sides.prefix):
            os.fchmod(sides.target, 0o700)
        with ThreadPoolExecutor(min(MOST_THREADS, default_threads()), thread_name_prefix="stage") as pool:
            Taking(sides, pool, first=attempt == 0, distrust=distrust and attempt == 0).run()
        sides.again.clear()
        looking = Looking(sides, last=attempt == _ROUNDS - 1)
        looking.run()
        if not looking.differences:
            break
    return sides.outcome


def _coarseness(target: int) -> int:
    """How far the time of a copy may be from the one that it was given: not every file system keeps nanoseconds."""
    odd_ns = 1_111_111_111_111_111_111
    with our_disk(b"directory"):
        os.utime(target, ns=(odd_ns, odd_ns))
        return 0 if os.fstat(target).st_mtime_ns == odd_ns else _COARSE_NS
