"""Stages all peers, some at a time, and says of each what became of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from handlers.contract import Control, FileProblem, ProblemKind, Progress, printable
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.deep_tree import ENTER
from handlers.tools.peers import local, remote
from handlers.tools.peers.files import Dress
from handlers.tools.peers.indicators import Answered, NotReady
from handlers.tools.peers.ledger import Ledger
from handlers.tools.peers.options import LocalPeer, RemotePeer, StageOptions, owner_of
from handlers.tools.peers.outcome import Brought, in_words
from handlers.tools.peers.parallel import for_each
from handlers.tools.peers.place import Place
from handlers.tools.peers.pulse import OurDisk, Pulse, Tally
from handlers.tools.peers.verdicts import MAX_NAMED, PeerRecord, Verdict
from handlers.tools.removal import remove_at

TREE = "peers"
"""The tree of the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one peer."""

    record: PeerRecord
    problems: Mapping[bytes, tuple[ProblemKind, str]] = field(default_factory=dict)
    """Of its files, named below its directory."""
    may_come_back: bool = False
    """Whether another attempt may bring what is missing."""

    def told(self) -> Iterator[FileProblem]:
        """The problems as the set tells them. None is a loss where the run is to be a success without this peer."""
        record = self.record
        top = f"{TREE}/{record.name}"
        for path, (kind, detail) in self.problems.items():
            yield FileProblem(kind=_kind(kind, record), path=f"{top}/{printable(path)}", detail=detail)
        if record.verdict in {Verdict.NOT_READY, Verdict.UNREACHABLE, Verdict.FAILED} or self._is_hidden_loss:
            yield FileProblem(kind=_kind(ProblemKind.OTHER, record), path=top, detail=record.reason or record.verdict)

    @property
    def _is_hidden_loss(self) -> bool:
        """Whether the run needs all of the peer, and none of its problems says that something is missing."""
        is_told = any(kind.is_loss for kind, _ in self.problems.values())
        return self.record.verdict is Verdict.INCOMPLETE and self.record.required and not is_told


def _kind(kind: ProblemKind, record: PeerRecord) -> ProblemKind:
    counts = kind.is_loss or kind is ProblemKind.CHANGED
    return ProblemKind.IGNORED if counts and not record.required else kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """All peers of a plan on their way into one tree."""

    options: StageOptions
    required: frozenset[str]
    tree: Path
    leftover: Path | None
    ledger: Ledger
    tally: Tally
    last_try: bool
    """Whether what is missing after this attempt stays missing."""
    begin: Callable[[], None]
    """Called for each peer that has something to stage, before anything of it is; what it raises keeps it out."""
    bytes_per_second: int | None = None

    def run(self, control: Control) -> Sequence[Result]:
        """What became of each, in the order of the configuration.

        Raises Cancelled, or OurDisk where the set cannot be written; all threads have ended then.
        """
        dress = dress_of(self.options)
        share = self.bytes_per_second and max(
            1, self.bytes_per_second // min(self.options.parallel, len(self.options.peers))
        )
        tree = os.open(self.tree, ENTER)
        leftover = None if self.leftover is None else os.open(self.leftover, ENTER)

        def one(name: str, peer: LocalPeer | RemotePeer) -> Result:
            place = Place(
                name=os.fsencode(name),
                tree=tree,
                leftover=leftover,
                path=self.tree / name,
                dress=dress,
                ledger=self.ledger,
                is_final=self.last_try or name not in self.required,
                begin=self.begin,
                bytes_per_second=share,
            )
            return self._one(name, peer, place)

        try:
            peers = self.options.peers
            staged = for_each(
                peers,
                one,
                at_once=self.options.parallel,
                stop=self.tally.stop,
                checkpoint=lambda: self._report(control),
            )
            return list(staged.values())
        finally:
            os.close(tree)
            if leftover is not None:
                os.close(leftover)

    def _report(self, control: Control) -> None:
        control.checkpoint()
        files, size = self.tally.so_far
        control.report(Progress(files=files, bytes_in=size, bytes_out=size))

    def _one(self, name: str, peer: LocalPeer | RemotePeer, place: Place) -> Result:
        begun = time.monotonic()
        pulse = Pulse(self.tally, peer.deadline_seconds)
        result = self._staged(name, peer, place, pulse)
        if result.record.verdict in {Verdict.NOT_READY, Verdict.NOTHING_NEW, Verdict.FAILED}:
            remove_at(place.tree, place.name)
        return Result(
            record=result.record.model_copy(update={"seconds": round(time.monotonic() - begun, 3)}),
            problems=result.problems,
            may_come_back=result.may_come_back,
        )

    def _staged(self, name: str, peer: LocalPeer | RemotePeer, place: Place, pulse: Pulse) -> Result:
        record = PeerRecord(
            name=name,
            kind=peer.kind,
            verdict=Verdict.FAILED,
            required=name in self.required,
            directory=str(peer.collect_directory),
        )
        try:
            if isinstance(peer, LocalPeer):
                brought = local.stage(peer, place, pulse)
            else:
                brought = remote.stage(peer, name, place, pulse)
        except OurDisk:
            raise
        except PermanentError as error:
            return Result(record=record.model_copy(update={"reason": in_words(error)}))
        except TemporaryError as error:
            told = {"verdict": Verdict.UNREACHABLE, "reason": in_words(error)}
            return Result(record=record.model_copy(update=told), may_come_back=True)
        if isinstance(brought, NotReady):
            verdict = Verdict.NOTHING_NEW if isinstance(brought, Answered) else Verdict.NOT_READY
            return Result(record=record.model_copy(update={"verdict": verdict, "reason": brought.reason}))
        return judged(record, peer, brought)


def judged(record: PeerRecord, peer: LocalPeer | RemotePeer, brought: Brought) -> Result:
    """The verdict on a peer from which all came that would come."""
    outcome = brought.outcome
    problems = outcome.problems
    missing = sum(1 for kind, _ in problems.values() if kind.is_loss or kind is ProblemKind.CHANGED)
    if brought.trouble is not None:
        verdict, reason = Verdict.UNREACHABLE, brought.trouble
    elif missing:
        verdict, reason = Verdict.INCOMPLETE, f"{missing} of its files are not in the set as they should be"
    elif not outcome.contents and not peer.allow_empty:
        verdict, reason = Verdict.FAILED, f"there is nothing to stage in {peer.collect_directory}"
    else:
        verdict, reason = Verdict.STAGED, None
    told = {
        "verdict": verdict,
        "reason": reason,
        "indicator": brought.indicator,
        "files": outcome.files,
        "bytes": outcome.size_bytes,
        "compared": brought.compared,
        "left_out": tuple(sorted(outcome.left_out)[:MAX_NAMED]),
        "refused": tuple(printable(path) for path in sorted(outcome.refused)[:MAX_NAMED]),
        "refused_count": len(outcome.refused),
        "problem_count": len(problems),
        "taken_again": outcome.taken_again,
        "kept": outcome.kept,
    }
    return Result(
        record=record.model_copy(update=told),
        problems=dict(sorted(problems.items())),
        may_come_back=brought.trouble is not None,
    )


def dress_of(options: StageOptions) -> Dress:
    """What staged files look like. Raises PermanentError for an owner that this machine does not know."""
    return Dress(
        owner=None if options.owner is None else owner_of(options.owner),
        mode=None if options.mode is None else int(options.mode, 8),
        directory_mode=None if options.directory_mode is None else int(options.directory_mode, 8),
    )
