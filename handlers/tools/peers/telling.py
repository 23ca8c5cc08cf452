"""Tells peers that what they have collected is safe."""

from __future__ import annotations

import time
from collections.abc import Sequence

from handlers.contract import Control, SetReader
from handlers.errors import Cancelled, HoldfastError, TemporaryError
from handlers.tools.peers import done, indicators, remote
from handlers.tools.peers.options import LocalPeer, RemotePeer, StageOptions
from handlers.tools.peers.parallel import for_each
from handlers.tools.peers.pulse import Pulse, Tally
from handlers.tools.peers.verdicts import PeerRecord, Report, Verdict, read

_DEADLINE_SECONDS = 300.0
_NAP_SECONDS = 0.2
_AGAIN_SECONDS = (1.0, 4.0, 9.0, 15.0)
"""After which of these a peer is tried again that cannot be reached: a restart of its sshd, or of a switch."""


def tell(options: StageOptions, made: SetReader, control: Control) -> Sequence[str]:
    """Write the stage indicator of every peer that was staged as it should be, then that of the whole run.

    Only where the peer's collect indicator is still the one that was staged. Returns a sentence on each who could not
    be told. Safe to repeat.
    """
    try:
        report = read(made)
    except Cancelled:
        raise
    except HoldfastError as error:
        return (f"no peer was told that it was staged: {error.message}",)
    records = {record.name: record for record in report.peers}
    tally = Tally()

    def one(name: str, peer: LocalPeer | RemotePeer) -> str | None:
        record = records.get(name)
        if record is None or record.verdict is not Verdict.STAGED or record.directory != str(peer.collect_directory):
            return None
        return _tell_one(peer, record, report, Pulse(tally, _DEADLINE_SECONDS))

    told = for_each(options.peers, one, at_once=options.parallel, stop=tally.stop, checkpoint=control.checkpoint)
    untold = [f"peer {name} was not told that it was staged: {why}" for name, why in told.items() if why is not None]
    if options.done_indicator is not None and report.is_done:
        why = done.write(options.done_indicator, report.line)
        if why is not None:
            untold.append(f"done_indicator: {why}")
    return tuple(untold)


def _tell_one(peer: LocalPeer | RemotePeer, record: PeerRecord, report: Report, pulse: Pulse) -> str | None:
    try:
        if isinstance(peer, LocalPeer):
            return indicators.tell(peer, record.indicator, report.line, report.finished)
        return _tell_remote(peer, record, report, pulse)
    except Cancelled:
        raise
    except HoldfastError as error:
        return error.message


def _tell_remote(peer: RemotePeer, record: PeerRecord, report: Report, pulse: Pulse) -> str | None:
    """Several times, as long as the connection is the trouble: nobody comes back to tell the peer later."""
    for seconds in _AGAIN_SECONDS:
        try:
            return remote.tell(peer, record.name, record.indicator, report.line, pulse)
        except TemporaryError:
            _rest(seconds, pulse)
    return remote.tell(peer, record.name, record.indicator, report.line, pulse)


def _rest(seconds: float, pulse: Pulse) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        pulse.beat()
        time.sleep(min(left, _NAP_SECONDS))
