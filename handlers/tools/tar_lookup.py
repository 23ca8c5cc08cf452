"""Finds single members of the last level of a chain, and where in which level their content is.

A file that did not change since an older level is only a name in its directory's list (`N`). It is looked up in the
level before, under the name that its directory had then, until a level has it or its directory does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
                hint="give the path as the listing of the set has it, relative to the subject",
            ) from error
    return frozenset(found)


def find(chain: Sequence[TarSet], requested: frozenset[bytes], checkpoint: Callable[[], None]) -> list[Picks]:
    """What to restore out of each level of the chain.

    Reads each index once, twice where a hard link shares a file that was not asked for, from the last level back to
    the first that is needed; besides only the frames with the lists of the directories concerned. Memory grows with
    what was asked for, not with the index. Raises PermanentError naming a path that the last level does not have.
    """
    searches = [_Search(level, checkpoint) for level in chain]
    wanted = searches[-1].last_level(requested, older=len(chain) > 1)
    unfound = {name for name in wanted.values() if name in requested}
    for at in range(len(chain) - 2, -1, -1):
        if not wanted:
            break
        moves = moves_between(chain[at], chain[at + 1])
        wanted = {moves.before(path): name for path, name in wanted.items()}
        wanted = searches[at].older_level(wanted, bottom=at == 0)
        unfound.difference_update(pick.name for pick in (*searches[at].picks.others, *searches[at].picks.links))
    if unfound:
        raise PermanentError(
            f"{printable(min(unfound))!r} is known to the set, but was never stored in its chain",
            hint="it was excluded, or could not be read; the set's problems may tell",
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

    def last_level(self, requested: frozenset[bytes], *, older: bool) -> dict[bytes, bytes]:
        """Pick what this level has of the requested paths and below; the rest is to be sought in older levels."""
        inside = _Inside(requested)
        above = {upper: -1 for path in requested for upper in _uppers(path)}
        missing = set(requested)
        wanted: dict[bytes, bytes] = {}
        for place in self._places():
            is_inside = inside.has(place.path)
            if is_inside:
                missing.discard(place.path)
            if place.type != _DIRECTORY:
                if is_inside:
                    self.picks.add(place, place.path)
            elif is_inside or place.path in above:
                self._pick_directory(place)
                if place.path in above:
                    above[place.path] = place.block
        if older:
            asked = [pick for pick in self.picks.directories if inside.has(pick.path)]
            for pick in asked:
                wanted.update((path, path) for path in self._unchanged(pick.block, pick.path))
        for path in sorted(missing):
            self._explain(path, above[_parent(path)])
            wanted[path] = path
        return wanted

    def older_level(self, wanted: dict[bytes, bytes], *, bottom: bool) -> dict[bytes, bytes]:
        """Pick what this level has of the paths wanted of it; the rest is to be sought in the level before."""
        parents = {_parent(path): -1 for path in wanted}
        left = dict(wanted)
        for place in self._places():
            if place.type == _DIRECTORY:
                if place.path in parents:
                    parents[place.path] = place.block
            elif place.path in left:
                self.picks.add(place, left.pop(place.path))
        if bottom or not left:
            return {}
        still: dict[bytes, bytes] = {}
        for parent in sorted({_parent(path) for path in left}, key=parents.__getitem__):
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
        listed = None if parent_block < 0 else self._level.dumpdir_at(parent_block, _parent(path))
        state = None if listed is None else listed.names().get(path.rpartition(b"/")[2])
        if state is None:
            raise PermanentError(
                f"{printable(path)!r} is not in set {self._level.name}",
                hint="list the set to see what is in it",
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
        self._parent_inside = False

    def has(self, path: bytes) -> bool:
        """Whether the path is inside."""
        if path in self._tops:
            return True
        parent = _parent(path)
        if parent != self._parent:
            self._parent = parent
            self._parent_inside = parent in self._tops or any(upper in self._tops for upper in _uppers(parent))
        return self._parent_inside


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or TOP


def _uppers(path: bytes) -> Iterator[bytes]:
    """Every directory above a path, the top directory last."""
    while path != TOP:
        path = _parent(path)
        yield path
