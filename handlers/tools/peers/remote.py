"""Peers on other machines, reached by ssh."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta

from handlers.contents import EntryType
from handlers.contract import ProblemKind
from handlers.errors import TemporaryError
from handlers.tools.peers import indicators
from handlers.tools.peers.arrival import Arrived, Unsound, alike, hashed, judged, remove_all, sift
from handlers.tools.peers.files import Dress, our_disk
from handlers.tools.peers.indicators import Answered, NotReady
from handlers.tools.peers.options import RemotePeer
from handlers.tools.peers.outcome import Brought, Outcome, Rules, in_words
from handlers.tools.peers.place import Place
from handlers.tools.peers.pulse import OurDisk, Pulse
from handlers.tools.peers.transfer import Transfer, program_for
from handlers.tools.peers.wanted import Wanted, wanted
from handlers.tools.remote.connection import shared
from handlers.tools.remote.copied import Copied, TargetFull
from handlers.tools.remote.listing import RemoteListing, list_remote
from handlers.tools.remote.marks import Identity, Mark, Marked, look_at_answer, write_mark
from handlers.tools.remote.ssh import Ssh
from handlers.tools.removal import remove_below
from handlers.tools.trees.walk import walk

BY_SUMS = "SHA-256 at both ends"
BY_TIMES = "size and time: the peer has no program for SHA-256"
WITHOUT_SUMS = "size and time: the peer's program for SHA-256 gave no sum"

_ROUNDS = 3
"""How often what is not as the peer says is fetched."""
_SALVAGE_SECONDS = 600.0


def stage(peer: RemotePeer, name: str, place: Place, pulse: Pulse) -> Brought | NotReady:
    """Bring all that the peer has into its directory of the set.

    Where the peer is lost on the way, what had arrived whole is there, and the rest named, if nobody tries again;
    otherwise everything stays for the next attempt, and TemporaryError is raised. Raises PermanentError, OurDisk.
    """
    with shared(_ssh(peer, name), checkpoint=pulse.beat) as ssh:
        ready = _look(peer, ssh, pulse)
        if isinstance(ready, NotReady):
            return ready
        with place.opened(fresh=peer.transfer == "rcp") as (top, adopted):
            bringing = _Bringing(peer, ssh, place, top, pulse, adopted=adopted)
            try:
                outcome = bringing.run(ready.listing)
            except OurDisk:
                raise
            except TemporaryError as error:
                if not place.is_final:
                    raise
                return bringing.salvaged(ready.identity, ready.listing, error)
            return Brought(indicator=ready.identity, outcome=outcome, compared=bringing.compared)


def survey(peer: RemotePeer, name: str, pulse: Pulse) -> tuple[int, int] | NotReady:
    """How many names there are to stage, and how many bytes. Reads only. Raises PermanentError, TemporaryError."""
    with shared(_ssh(peer, name), checkpoint=pulse.beat) as ssh:
        ready = _look(peer, ssh, pulse)
        if isinstance(ready, NotReady):
            return ready
        found = wanted(ready.listing, rules(peer, Dress()))
        return len(found.entries), found.size_bytes


def tell(peer: RemotePeer, name: str, identity: str | None, line: bytes, pulse: Pulse) -> str | None:
    """Write the stage indicator, while the collect indicator is still that one; why that was not done, or None.

    Safe to repeat. Raises PermanentError, TemporaryError.
    """
    if peer.stage_indicator is None or peer.collect_indicator is None or identity is None:
        return None
    said = indicators.answer(line, identity)
    mark = Mark(name=peer.stage_indicator, content=said, mode=int(peer.indicator_mode, 8), owner=peer.indicator_owner)
    done = write_mark(
        _ssh(peer, name),
        os.fsencode(peer.collect_directory),
        mark,
        indicator=peer.collect_indicator,
        identity=Identity(identity),
        checkpoint=pulse.beat,
    )
    if done is Marked.WRITTEN:
        return None
    return f"{peer.collect_indicator} in {peer.collect_directory} is not the one that was staged"


def rules(peer: RemotePeer, dress: Dress) -> Rules:
    """What is taken of the peer."""
    return Rules(
        dress=dress,
        recursive=peer.recursive,
        links=peer.links == "keep",
        max_bytes=peer.max_bytes,
        left_out=frozenset() if peer.stage_indicators else indicators.names_of(peer),
    )


@dataclass(frozen=True, slots=True)
class _Ready:
    identity: str | None
    listing: RemoteListing


def _ssh(peer: RemotePeer, name: str) -> Ssh:
    return replace(peer.ssh(name), silence=timedelta(seconds=peer.silence_seconds))


def _look(peer: RemotePeer, ssh: Ssh, pulse: Pulse) -> _Ready | NotReady:
    """Whether the peer has announced something, and something new, and what there is."""
    identity = answered = None
    directory = os.fsencode(peer.collect_directory)
    if peer.collect_indicator is not None:
        seen = look_at_answer(ssh, directory, peer.collect_indicator, peer.stage_indicator, checkpoint=pulse.beat)
        if seen is None:
            return NotReady(f"{peer.collect_directory} has no {peer.collect_indicator}")
        identity, answered = seen
    listing = _listed(peer, ssh, pulse, sums=False)
    if peer.collect_indicator is not None and peer.stage_indicator is not None and not peer.again:
        collected, staged = (
            listing.entries.get(os.fsencode(name)) for name in (peer.collect_indicator, peer.stage_indicator)
        )
        if collected is not None and staged is not None and staged.type is EntryType.FILE:
            is_newer = (staged.mtime_ns or 0) > (collected.mtime_ns or 0)
            if is_newer if answered is None else answered:
                return Answered(indicators.nothing_new(peer, staged.mtime_ns))
    return _Ready(identity, listing)


def _listed(peer: RemotePeer, ssh: Ssh, pulse: Pulse, *, sums: bool) -> RemoteListing:
    return list_remote(
        ssh,
        os.fsencode(peer.collect_directory),
        sums=sums,
        deadline=timedelta(seconds=pulse.left_seconds),
        checkpoint=pulse.beat,
    )


class _Bringing:
    """The files of one peer on their way."""

    def __init__(self, peer: RemotePeer, ssh: Ssh, place: Place, top: int, pulse: Pulse, *, adopted: bool) -> None:
        self._peer = peer
        self._ssh = ssh
        self._place = place
        self._top = top
        self._pulse = pulse
        self._adopted = adopted
        dress = place.dress
        if ssh.local_user is not None and dress.owner is None:
            dress = replace(dress, owner=(os.geteuid(), os.getegid()))
        self._rules = rules(peer, dress)
        self._transfer = Transfer(
            peer=peer,
            ssh=ssh,
            target=place.path,
            rules=self._rules,
            pulse=pulse,
            program=program_for(peer),
            keeps_owners=os.geteuid() == 0 and dress.owner is None,
            bytes_per_second=place.share_of(peer.bandwidth_bytes_per_second),
        )
        self.compared = BY_SUMS
        self._inherited = _files_in(top) if adopted else {}
        """What an earlier attempt has brought, and nothing has confirmed yet: paths, and which file it was."""

    def run(self, before: RemoteListing) -> Outcome:
        """Fetch, compare, fetch again what is not as the peer says; at last everything is, or is named."""
        found = wanted(before, self._rules)
        again: list[bytes] | None = None
        taken_again = 0
        kept = alike(self._top, found) if self._adopted else 0
        for attempt in range(_ROUNDS):
            self._give()
            copied = self._bring(found, again, resume=self._adopted)
            said = {problem.path: Unsound(problem.kind, problem.detail) for problem in copied.problems}
            found, arrived, listing = self._compared(found)
            by_sums = _has_sums(listing, found)
            if self._adopted and not by_sums:
                self._distrust(found)
                self._adopted = False
                continue
            self._adopted = False
            unsound = judged(found, arrived, by_sums=by_sums)
            again = [path for path in unsound if said.get(path, unsound[path]).kind is not ProblemKind.UNREADABLE]
            if not again or attempt == _ROUNDS - 1:
                break
            taken_again += len(again)
            remove_all(self._top, again)
            self._confirm({*unsound} - {*again})
        self._drop_stale(arrived, unsound, said)
        self.compared = _in_which_way(listing, arrived, found, by_sums=by_sums)
        outcome = self._settled(found, arrived, unsound, said)
        outcome.taken_again, outcome.kept = taken_again, kept
        return outcome

    def salvaged(self, identity: str | None, before: RemoteListing, error: TemporaryError) -> Brought:
        """What had arrived whole, by size and time, when the peer was lost. Raises OurDisk, Cancelled.

        What an earlier attempt has brought, and no sum of the peer's has confirmed, is none of it.
        """
        pulse = Pulse(self._pulse.tally, _SALVAGE_SECONDS)
        found = wanted(before, self._rules)
        sift(self._top, found, pulse)
        arrived = hashed(self._top, found, self._rules.dress, pulse, content=False)
        unsound = judged(found, arrived, by_sums=False)
        unconfirmed = {path for path, there in arrived.items() if self._inherited.get(path) == there.about.st_ino}
        remove_all(self._top, {*unsound, *unconfirmed})
        for path in {*unsound, *unconfirmed}:
            arrived.pop(path, None)
            why = "it could be compared with what is here" if path not in unsound else "it had come"
            found.outcome.add(path, ProblemKind.UNREADABLE, f"the peer was lost before {why}")
        _count(found.outcome, found, arrived)
        self._dress_top()
        return Brought(indicator=identity, outcome=found.outcome, compared="size and time", trouble=in_words(error))

    def _bring(self, found: Wanted, names: Sequence[bytes] | None, *, resume: bool, checksum: bool = False) -> Copied:
        try:
            return self._transfer.bring(found, names, resume=resume, checksum=checksum)
        except TargetFull as error:
            raise OurDisk(error.message, hint=error.hint) from error

    def _confirm(self, unclear: Set[bytes]) -> None:
        """All was compared, and is sound or was removed, but for these, which the peer would not give."""
        self._inherited = {path: which for path, which in self._inherited.items() if path in unclear}

    def _drop_stale(
        self, arrived: dict[bytes, Arrived], unsound: Mapping[bytes, Unsound], said: Mapping[bytes, Unsound]
    ) -> None:
        """Remove what an earlier attempt has brought of a file that the peer does not give any more."""
        stale = [path for path in unsound if path in arrived and path in said and path in self._inherited]
        stale = [path for path in stale if self._inherited[path] == arrived[path].about.st_ino]
        remove_all(self._top, stale)
        for path in stale:
            del arrived[path]

    def _compared(self, before: Wanted) -> tuple[Wanted, dict[bytes, Arrived], RemoteListing]:
        """Hash what is here while the peer hashes what is there."""
        with ThreadPoolExecutor(1, thread_name_prefix="stage-sums") as side:
            theirs = side.submit(_listed, self._peer, self._ssh, self._pulse, sums=True)
            try:
                sift(self._top, before, self._pulse)
                arrived = hashed(self._top, before, self._rules.dress, self._pulse)
                listing = theirs.result()
            except BaseException:
                self._pulse.give_up()
                raise
        found = wanted(listing, self._rules)
        if set(arrived) - set(found.entries):
            sift(self._top, found, self._pulse)
        return found, {path: there for path, there in arrived.items() if path in found.entries}, listing

    def _settled(
        self,
        found: Wanted,
        arrived: Mapping[bytes, Arrived],
        unsound: Mapping[bytes, Unsound],
        said: Mapping[bytes, Unsound],
    ) -> Outcome:
        outcome = found.outcome
        for path, why in unsound.items():
            # What the copying program said of a file that is not there tells more than that it is not there.
            outcome.add(path, *(said.get(path, why) if path not in arrived else why))
        for path, there in arrived.items():
            if there.sha256 is not None:
                self._place.ledger.add(self._place.name + b"/" + path, there.about, bytes.fromhex(there.sha256))
        _count(outcome, found, arrived)
        self._dress_top()
        return outcome

    def _dress_top(self) -> None:
        dress = self._rules.dress
        with our_disk(self._place.name):
            if dress.owner is not None:
                os.fchown(self._top, *dress.owner)
            os.fchmod(self._top, 0o755 if dress.directory_mode is None else dress.directory_mode)

    def _distrust(self, found: Wanted) -> None:
        """Nothing tells whether what an earlier attempt has brought is what the peer has, but rsync's own sums."""
        if self._transfer.program == "rsync":
            self._bring(found, None, resume=True, checksum=True)
        else:
            with our_disk(self._place.name):
                remove_below(self._place.path)
        self._inherited = {}

    def _give(self) -> None:
        """Let whoever runs ssh write here. What came gets its owner when it is looked at."""
        account = self._ssh.account
        if account is None:
            return
        with our_disk(self._place.name):
            for found in walk(self._top):
                os.chown(found.name, account.uid, account.gid, dir_fd=found.at, follow_symlinks=False)


def _has_sums(listing: RemoteListing, found: Wanted) -> bool:
    """Whether the peer's program for SHA-256 works: one that gives no sum at all is none."""
    return listing.has_sums and (not found.files or any(found.entries[path].sha256 for path in found.files))


def _in_which_way(listing: RemoteListing, arrived: Mapping[bytes, Arrived], found: Wanted, *, by_sums: bool) -> str:
    if not by_sums:
        return WITHOUT_SUMS if listing.has_sums else BY_TIMES
    without = sum(1 for path in found.files if path in arrived and found.entries[path].sha256 is None)
    return BY_SUMS if not without else f"{BY_SUMS}, but for {without} files of which the peer gave none"


def _files_in(top: int) -> dict[bytes, int]:
    """All files below an open directory, with their inode numbers."""
    with our_disk(b"what an earlier attempt has brought"):
        return {found.path: found.about.st_ino for found in walk(top) if stat.S_ISREG(found.about.st_mode)}


def _count(outcome: Outcome, found: Wanted, arrived: Mapping[bytes, Arrived]) -> None:
    outcome.files = len(arrived)
    for path, there in arrived.items():
        entry = found.entries[path]
        outcome.contents += entry.type is not EntryType.DIRECTORY
        outcome.size_bytes += there.about.st_size if entry.type is EntryType.FILE else 0
