"""Looks what there would be to stage, for a dry run."""

from __future__ import annotations

from collections.abc import Mapping

from handlers.contract import JSON, Control
from handlers.errors import Cancelled, HoldfastError
from handlers.tools.peers import local, remote
from handlers.tools.peers.indicators import NotReady
from handlers.tools.peers.options import LocalPeer, RemotePeer, StageOptions
from handlers.tools.peers.outcome import in_words
from handlers.tools.peers.parallel import for_each
from handlers.tools.peers.pulse import Pulse, Tally


def survey(options: StageOptions, required: frozenset[str], control: Control) -> Mapping[str, JSON]:
    """Of each peer: whether it is ready and why not, names and bytes to stage. Reads only."""
    tally = Tally()

    def one(name: str, peer: LocalPeer | RemotePeer) -> Mapping[str, JSON]:
        found: dict[str, JSON] = {"required": name in required, "ready": False}
        pulse = Pulse(tally, peer.deadline_seconds)
        try:
            seen = local.survey(peer, pulse) if isinstance(peer, LocalPeer) else remote.survey(peer, name, pulse)
        except Cancelled:
            raise
        except HoldfastError as error:
            return {**found, "reason": in_words(error)}
        if isinstance(seen, NotReady):
            return {**found, "reason": seen.reason}
        files, size = seen
        return {**found, "ready": True, "files": files, "bytes": size}

    return for_each(options.peers, one, at_once=options.parallel, stop=tally.stop, checkpoint=control.checkpoint)
