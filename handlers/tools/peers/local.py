"""Peers that are directories of this machine."""

from __future__ import annotations

import os
import stat

from handlers.errors import TemporaryError
from handlers.tools.deep_tree import walk
from handlers.tools.peers import indicators
from handlers.tools.peers.copying import copy
from handlers.tools.peers.entering import cannot, entered
from handlers.tools.peers.files import Dress, our_disk
from handlers.tools.peers.indicators import NotReady
from handlers.tools.peers.options import LocalPeer
from handlers.tools.peers.outcome import Brought, Outcome, Rules, in_words
from handlers.tools.peers.place import Place
from handlers.tools.peers.pulse import OurDisk, Pulse
from handlers.tools.peers.side_by_side import Sides
from handlers.tools.removal import remove_below

COMPARED = "SHA-256 of what was read, then size and time once more"


def stage(peer: LocalPeer, place: Place, pulse: Pulse) -> Brought | NotReady:
    """Bring all that the peer has into its directory of the set; see `copy` for what is raised."""
    source = entered(peer.collect_directory)
    try:
        ready = indicators.look(peer, source)
        if isinstance(ready, NotReady):
            return ready
        with place.opened() as (target, adopted):
            sides = Sides(
                source=source,
                target=target,
                prefix=place.name + b"/",
                rules=rules(peer, place.dress),
                ledger=place.ledger,
                pulse=pulse,
            )
            try:
                outcome, trouble = copy(sides, distrust=adopted), None
            except OurDisk:
                raise
            except TemporaryError as error:
                if not place.is_final:
                    raise
                if adopted:
                    remove_below(place.path)  # nobody has looked at all of it
                outcome, trouble = left(target, sides.outcome), in_words(error)
            return Brought(indicator=ready.identity, outcome=outcome, compared=COMPARED, trouble=trouble)
    finally:
        os.close(source)


def left(target: int, outcome: Outcome) -> Outcome:
    """What had come when the peer was given up: whole files, for a copy that is broken off is removed."""
    outcome.files = outcome.contents = outcome.size_bytes = 0
    with our_disk(b"what came"):
        for at, name, is_directory in walk(target):
            about = os.stat(name, dir_fd=at, follow_symlinks=False)
            outcome.files += 1
            outcome.contents += not is_directory
            outcome.size_bytes += about.st_size if stat.S_ISREG(about.st_mode) else 0
    return outcome


def rules(peer: LocalPeer, dress: Dress) -> Rules:
    """What is taken of the peer."""
    return Rules(
        dress=dress,
        recursive=peer.recursive,
        links=peer.links == "keep",
        hard_link=peer.hard_link,
        max_bytes=peer.max_bytes,
        left_out=frozenset() if peer.stage_indicators else indicators.names_of(peer),
    )


def survey(peer: LocalPeer, pulse: Pulse) -> tuple[int, int] | NotReady:
    """How many names there are to stage, and how many bytes. Reads only. Raises PermanentError, TemporaryError."""
    files = size = 0
    taken = rules(peer, Dress())
    top = entered(peer.collect_directory)
    try:
        ready = indicators.look(peer, top)
        if isinstance(ready, NotReady):
            return ready
        for at, name, is_directory in walk(top):
            pulse.beat()
            if name in taken.left_out and os.path.samestat(os.fstat(at), os.fstat(top)):
                continue
            about = os.stat(name, dir_fd=at, follow_symlinks=False)
            files += is_directory or stat.S_ISREG(about.st_mode) or (taken.links and stat.S_ISLNK(about.st_mode))
            size += about.st_size if stat.S_ISREG(about.st_mode) else 0
    except OSError as error:
        raise cannot(f"collect directory {peer.collect_directory}", error) from error
    finally:
        os.close(top)
    taken.check_size(size)
    return files, size
