"""Finds single members of the last level of a chain, and where in which level their content is.

A file that did not change since an older level is only a name in its directory's list (`N`). It is looked up in the
level before, under the name that its directory had then, until a level has it or its directory does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from handlers.contract import printable
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.tar_dumpdir import UNCHANGED
from handlers.tools.tar_format import Malformed, checked_path
from handlers.tools.tar_index import Place, places
from handlers.tools.tar_moves import moves_between
from handlers.tools.tar_set import TarSet

TOP = b"."
"""The top directory's path, as the index has it."""

_DIRECTORY = "d"
_HARD_LINK = "h"
_LINES_BETWEEN_CHECKPOINTS = 10_000


class Pick(NamedTuple):
    """One member to restore."""

    block: int
    path: bytes
    """As the archive has it."""
    name: bytes
    """As it is to be restored: another name if a directory was renamed since."""
    shares: bytes | None = None
    """Of a hard link the restored name of the file that it shares."""


@dataclass(slots=True)
class Picks:
    """What to restore out of one level, in the order of its archive: links last, for they need what they share."""

    directories: list[Pick] = field(default_factory=list)
    others: list[Pick] = field(default_factory=list)
    links: list[Pick] = field(default_factory=list)

    def add(self, place: Place, name: bytes) -> None:
        """Take a member that is no directory."""
        (self.links if place.type == _HARD_LINK else self.others).append(Pick(place.block, place.path, name))


def requested_paths(paths: Iterable[bytes]) -> frozenset[bytes]:
    """The paths as the index has them, TOP for everything. Raises PermanentError for one that cannot be in any set."""
    found = set()
    for path in paths:
        try:
            found.add(checked_path(path) or TOP)
        except Malformed as error:
            raise PermanentError(
                f"cannot restore {printable(path)!r}: {error}",
                hint="give the path relative to the subject, as `holdfast ls -R` shows it",
            ) from error
    return frozenset(found)


def find(chain: Sequence[TarSet], requested: frozenset[bytes], checkpoint: Callable[[], None]) -> list[Picks]:
    """What to restore out of each level of the chain.

    Reads each index once, twice where a hard link shares a file that was not asked for, from the last level back to
    the first that is needed; besides only the frames with the lists of the directories concerned. Memory grows with
    what was asked for, not with the index. Raises PermanentError naming a path that the last level does not have.
    """
    searches = [_Search(level, checkpoint) for level in chain]
    search = searches[-1]
    wanted, loose = search.last_level(requested, older=len(chain) > 1)
    unfound = {name for name in wanted.values() if name in requested} | loose.missing
    for at in range(len(chain) - 2, -1, -1):
        if not wanted and not loose.tops:
            break
        moves = moves_between(chain[at], chain[at + 1])
        wanted = {moves.before(path): name for path, name in wanted.items()}
        search = searches[at]
        wanted = search.older_level(wanted, loose, bottom=at == 0)
        for pick in (*search.picks.others, *search.picks.links):
            unfound.discard(pick.name)
            unfound.discard(loose.top_of(pick.name))
    if unfound:
        raise PermanentError(
            f"{printable(min(unfound))!r} is not in set {chain[-1].name}, nor in those it builds on",
            hint=f"`holdfast ls -R {chain[-1].name}` shows what is; what is excluded or unreadable is in none",
        )
    for search in searches:
        search.resolve_links()
    return [search.picks for search in searches]


class _Search:
    """The search in one level."""

    def __init__(self, level: TarSet, checkpoint: Callable[[], None]) -> None:
        self._level = level
        self._checkpoint = checkpoint
        self.picks = Picks()

    def last_level(self, requested: frozenset[bytes], *, older: bool) -> tuple[dict[bytes, bytes], _Loose]:
        """Pick what this level has of the requested paths and below.

        Returns what is to be sought in older levels: paths, and requested paths that no directory here knows of.
        """
        inside = _Inside(requested)
        above = {upper: -1 for path in requested for upper in uppers(path)}
        missing = set(requested)
        for place in self._places():
            top = inside.top_of(place.path)
            missing.discard(top)
            if place.type != _DIRECTORY:
                if top:
                    self.picks.add(place, place.path)
            elif top or place.path in above:
                self._pick_directory(place)
                if place.path in above:
                    above[place.path] = place.block
        for path in requested - missing:
            missing.difference_update(uppers(path))
        directories = self.picks.directories
        wanted: dict[bytes, bytes] = {}
        for pick in directories if older else ():
            if inside.top_of(pick.path):
                wanted.update((path, path) for path in self._unchanged(pick.block, pick.path))
        known = {pick.path for pick in directories} | {upper for upper, block in above.items() if block >= 0}
        loose = frozenset(path for path in requested if not any(upper in known for upper in (path, *uppers(path))))
        for path in sorted(missing - loose):
            self._explain(path, above[parent_of(path)])
            wanted[path] = path
        found = {pick.path for pick in (*self.picks.others, *self.picks.links)} if loose else set()
        return wanted, _Loose(loose, loose & missing, known, found)

    def older_level(self, wanted: dict[bytes, bytes], loose: _Loose, *, bottom: bool) -> dict[bytes, bytes]:
        """Pick what this level has of the paths wanted of it; the rest is to be sought in the level before."""
        parents = {parent_of(path): -1 for path in wanted}
        left = dict(wanted)
        for place in self._places():
            if place.type == _DIRECTORY:
                if place.path in parents:
                    parents[place.path] = place.block
            elif place.path in left:
                self.picks.add(place, left.pop(place.path))
            elif loose.tops and loose.takes(place.path):
                self.picks.add(place, place.path)
        if bottom:
            return {}
        still: dict[bytes, bytes] = {}
        for parent in sorted({parent_of(path) for path in left}, key=parents.__getitem__):
            if parents[parent] >= 0:
                unchanged = self._unchanged(parents[parent], parent)
                still.update((path, left[path]) for path in unchanged if path in left)
        return still

    def resolve_links(self) -> None:
        """Find what each hard link shares.

        Where that was not asked for, its content takes the name of the first link that was, which the others share.
        """
        names = {pick.path: pick.name for pick in self.picks.others} if self.picks.links else {}
        waiting: defaultdict[bytes, list[Pick]] = defaultdict(list)
        links, self.picks.links = self.picks.links, []
        for pick in links:
            self._checkpoint()
            header, _ = self._level.member_at(pick.block, pick.path)
            if header.link in names:
                self.picks.links.append(pick._replace(shares=names[header.link]))
            else:
                waiting[header.link].append(pick)
        for place in self._places() if waiting else ():
            if place.path in waiting and place.type not in {_DIRECTORY, _HARD_LINK}:
                first, *others = waiting.pop(place.path)
                self.picks.others.append(Pick(place.block, place.path, first.name))
                self.picks.links.extend(pick._replace(shares=first.name) for pick in others)
        if waiting:
            shared, [link, *_] = next(iter(waiting.items()))
            raise IntegrityError(
                f"set {self._level.name}: {printable(link.path)!r} shares {printable(shared)!r}, which is not in it"
            )
        self.picks.others.sort()

    def _pick_directory(self, place: Place) -> None:
        # The top directory is the target itself, whose owner and mode are the caller's affair.
        if place.path != TOP:
            self.picks.directories.append(Pick(place.block, place.path, place.path))

    def _unchanged(self, block: int, directory: bytes) -> Iterator[bytes]:
        """The paths in this directory that an older level may have."""
        self._checkpoint()
        listed = self._level.dumpdir_at(block, directory)
        if listed is None:
            return
        prefix = b"" if directory == TOP else directory + b"/"
        for name, state in listed.names().items():
            if state == UNCHANGED:
                yield prefix + name

    def _explain(self, path: bytes, parent_block: int) -> None:
        """Raise PermanentError unless the directory of this path says that an older level may have it."""
        listed = None if parent_block < 0 else self._level.dumpdir_at(parent_block, parent_of(path))
        state = None if listed is None else listed.names().get(path.rpartition(b"/")[2])
        if state is None:
            raise PermanentError(
                f"{printable(path)!r} is not in set {self._level.name}",
                hint=f"`holdfast ls -R {self._level.name}` shows what is in it",
            )
        if state != UNCHANGED:
            raise PermanentError(
                f"{printable(path)!r} was there when set {self._level.name} was made, but is not in it",
                hint="it could not be read, or is a socket; an older set may have it",
            )

    def _places(self) -> Iterator[Place]:
        for number, place in enumerate(places(self._level.index())):
            if number % _LINES_BETWEEN_CHECKPOINTS == 0:
                self._checkpoint()
            yield place


class _Inside:
    """Tells quickly what is one of some paths, or below one, for paths that come directory by directory."""

    def __init__(self, tops: frozenset[bytes]) -> None:
        self._tops = tops
        self._parent = b""
        self._parent_top = b""

    def top_of(self, path: bytes) -> bytes:
        """Which of the paths it is, or is below; empty for none."""
        if path in self._tops:
            return path
        parent = parent_of(path)
        if parent != self._parent:
            self._parent = parent
            self._parent_top = next((upper for upper in (parent, *uppers(parent)) if upper in self._tops), b"")
        return self._parent_top


class _Loose(_Inside):
    """Requested paths that are in no directory of the last level, because the plan names them or something below.

    Nothing tells whether such a file is unchanged or gone. It is restored from the newest level that has it, as GNU
    tar does with the whole chain.
    """

    def __init__(
        self, tops: frozenset[bytes], missing: frozenset[bytes], directories: Set[bytes], found: set[bytes]
    ) -> None:
        super().__init__(tops)
        self.tops = tops
        self.missing = missing
        """Those that the last level has nothing of."""
        self._directories = directories
        self._found = found

    def takes(self, path: bytes) -> bool:
        """Whether to restore this member of an older level; each path only once."""
        if not self.top_of(path) or path in self._found or parent_of(path) in self._directories:
            return False
        self._found.add(path)
        return True


def parent_of(path: bytes) -> bytes:
    """The directory that a path is in."""
    return path.rpartition(b"/")[0] or TOP


def uppers(path: bytes) -> Iterator[bytes]:
    """Every directory above a path, the top directory last."""
    while path != TOP:
        path = parent_of(path)
        yield path
