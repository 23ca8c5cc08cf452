"""Finds single members of the last level of a chain, and where in which level their content is.

It is what a restore of the whole chain would leave there, found backwards. What a level has is as that level has it. Of
a name that it does not have its directory's list tells what became of what older levels left: gone if it is not listed,
or listed as something else (`Y` is no directory, `D` is one, `N` either); otherwise it stays, with all below it. So
does all in a directory that the level does not have itself, as long as that stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from handlers.contract import printable
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.tar.archive_format import Malformed, checked_path
from handlers.tools.tar.dumpdir import DIRECTORY, IN_ARCHIVE, UNCHANGED
from handlers.tools.tar.index import Place, places
from handlers.tools.tar.moves import Moves, moves_between
from handlers.tools.tar.stored_set import TarSet

TOP = b"."
"""The top directory's path, as the index has it."""

KEEPS_FILE = frozenset({UNCHANGED, IN_ARCHIVE})
"""What a list says of a name where the file that an older level left stays, if the level itself has none."""

KEEPS_DIRECTORY = frozenset({UNCHANGED, DIRECTORY})
"""The same for a directory."""

_DIRECTORY = "d"
_HARD_LINK = "h"
_NO_MEMBER = -1
_NO_DIRECTORY = -2
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
        """Take a member."""
        pick = Pick(place.block, place.path, name)
        match place.type:
            case "d":
                self.directories.append(pick)
            case "h":
                self.links.append(pick)
            case _:
                self.others.append(pick)

    def __iter__(self) -> Iterator[Pick]:
        """All of them."""
        yield from self.directories
        yield from self.others
        yield from self.links


class _Ask(NamedTuple):
    """Asks for what a level and those before it left under a name, with all below it."""

    name: bytes
    """As it is to be restored."""
    file: bool = True
    """Whether anything but a directory will do."""
    directory: bool = True
    """Whether a directory will do."""
    only_below: bool = False
    """Whether the directory itself was found in a newer level, which did not look into it."""

    def keeps(self, state: str | None) -> _Ask | None:
        """What is asked of the level before where a list says this; None for nothing."""
        file, directory = self.file and state in KEEPS_FILE, self.directory and state in KEEPS_DIRECTORY
        return self._replace(file=file, directory=directory) if file or directory else None


_Asked = Mapping[bytes, _Ask | None]
"""By path: what is asked, of the path and all below; None where nothing is. The nearest one above a path counts."""


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
    what was asked for, not with the index. Raises PermanentError naming a path of which nothing would be restored.
    """
    searches = [_Search(level, checkpoint) for level in chain]
    asked: _Asked = {path: _Ask(path) for path in requested}
    above = {upper: upper for path in requested for upper in uppers(path) if upper != TOP}
    for at in range(len(chain) - 1, -1, -1):
        search = searches[at]
        search.look(asked, above)
        if at == 0:
            break
        asked = search.left(asked)
        # Directories above the plan's names are in no level; one that could not be read may be in an older one.
        if not any(asked.values()) and not (above and chain[at].problems() is not None):
            break
        moves = moves_between(chain[at - 1], chain[at])
        if moves:
            asked = _before(asked, moves)
            above = {moves.before(path): name for path, name in above.items()}
    _require_all(requested, searches)
    for search in searches:
        search.resolve_links()
    return [search.picks for search in searches]


def _before(asked: _Asked, moves: Moves) -> _Asked:
    """The same by the names of the level before."""
    older: dict[bytes, _Ask | None] = dict.fromkeys(moves.old_names.values())
    for path, ask in asked.items():
        old = moves.before(path)
        if moves.after(old) == path:
            older[old] = ask
    return older


def _require_all(requested: frozenset[bytes], searches: Sequence[_Search]) -> None:
    inside = _Inside(requested)
    found = {inside.top_of(pick.name) for search in searches for pick in search.picks} - {b""}
    found.update(upper for path in tuple(found) for upper in uppers(path))
    if missing := requested - found:
        path = min(missing)
        searches[-1].explain(path)


class _Search:
    """The search in one level."""

    def __init__(self, level: TarSet, checkpoint: Callable[[], None]) -> None:
        self._level = level
        self._checkpoint = checkpoint
        self.picks = Picks()
        self._found: set[bytes] = set()
        """Members that answer what was asked."""
        self._entered: list[Pick] = []
        """The directories among them."""
        self._above: dict[bytes, int] = {}
        """Of the directories above what was asked: the block, or _NO_MEMBER, or _NO_DIRECTORY."""
        self._fates: dict[bytes, bool] = {}
        """Of those that are no members: whether what older levels left of them stays."""
        self._names: tuple[bytes, Mapping[bytes, str] | None] = (b"", None)

    def look(self, asked: _Asked, above: dict[bytes, bytes]) -> None:
        """Pick what this level has of what is asked, and the directories above, which are taken out of `above`."""
        for path, ask in asked.items():
            if ask is None or parent_of(path) in self._above:
                continue
            for upper in uppers(path):
                if upper in self._above:
                    break
                self._above[upper] = _NO_MEMBER
        inside = _Inside(asked)
        for place in self._places():
            top = inside.top_of(place.path)
            ask = asked.get(top)
            is_directory = place.type == _DIRECTORY
            taken = ask is not None and self._take(place, top, ask, is_directory=is_directory)
            if is_directory and (name := above.pop(place.path, None)) is not None and not taken:
                self.picks.add(place, name)
            if place.path in self._above:
                self._above[place.path] = place.block if is_directory else _NO_DIRECTORY

    def _take(self, place: Place, top: bytes, ask: _Ask, *, is_directory: bool) -> bool:
        """Pick a member at or below what is asked, unless a newer level did away with it."""
        is_top = place.path == top
        right = (ask.directory if is_directory else ask.file) if is_top else ask.directory
        if is_top or right:
            self._found.add(place.path)
        if not right:
            return False
        name = ask.name + place.path[len(top) :]
        if is_directory:
            self._entered.append(Pick(place.block, place.path, name))
        if is_top and ask.only_below:
            return is_directory
        self.picks.add(place, name)
        return True

    def left(self, asked: _Asked) -> _Asked:
        """What is to be asked of the level before."""
        older: dict[bytes, _Ask | None] = {}
        listing = set()
        for pick in self._entered:
            names = self._names_in(pick.block, pick.path)
            if names is None:
                older[pick.path] = _Ask(pick.name, only_below=True)
                continue
            listing.add(pick.path)
            for name, state in names.items():
                path = pick.path + b"/" + name
                if path not in self._found:
                    older[path] = _Ask(pick.name + b"/" + name, state in KEEPS_FILE, state in KEEPS_DIRECTORY)
        for path in self._found:
            if path not in older and parent_of(path) not in listing:
                older[path] = None
        unfound = [path for path, ask in asked.items() if ask is not None and path not in self._found]
        for path in sorted(unfound, key=lambda path: self._above[parent_of(path)]):
            ask = asked[path]
            assert ask is not None
            older[path] = self._kept(path, ask)
        self._found.clear()
        self._entered.clear()
        return {path: ask for path, ask in older.items() if ask is not None or parent_of(path) not in listing}

    def _kept(self, path: bytes, ask: _Ask) -> _Ask | None:
        """What is to be asked of the level before for a path that is no member here."""
        above, _, name = path.rpartition(b"/")
        above = above or TOP
        block = self._above[above]
        if block < 0:
            return ask if self._stays(above) else None
        names = self._names_in(block, above)
        return ask if names is None else ask.keeps(names.get(name))

    def _stays(self, directory: bytes) -> bool:
        """Whether a directory stays that is no member here: no list above says otherwise."""
        passed: list[bytes] = []
        answer = True
        for path in (directory, *uppers(directory)):
            block = self._above[path]
            if block >= 0 or path in self._fates:
                below = passed[-1].rpartition(b"/")[2] if passed else b""
                names = None if block < 0 else self._names_in(block, path)
                answer = self._fates[path] if block < 0 else names is None or names.get(below) in KEEPS_DIRECTORY
                break
            passed.append(path)
            if block == _NO_DIRECTORY:
                answer = False
                break
        self._fates.update(dict.fromkeys(passed, answer))
        return answer

    def explain(self, path: bytes) -> None:
        """Raise PermanentError for a path of which nothing would be restored, if this is the last level."""
        kept = self._kept(path, _Ask(path))
        if kept is None:
            raise PermanentError(
                f"{printable(path)!r} is not in set {self._level.name}",
                hint=f"`holdfast ls -R {self._level.name}` shows what is in it",
            )
        if not (kept.file and kept.directory):
            raise PermanentError(
                f"{printable(path)!r} was there when set {self._level.name} was made, but is not in it",
                hint="it could not be read, or is a socket; an older set may have it",
            )
        raise PermanentError(
            f"{printable(path)!r} is not in set {self._level.name}, nor in those it builds on",
            hint=f"`holdfast ls -R {self._level.name}` shows what is; what is excluded or unreadable is in none",
        )

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

    def _names_in(self, block: int, directory: bytes) -> Mapping[bytes, str] | None:
        """The list of this directory; None where GNU tar did not look into it."""
        if self._names[0] != directory:
            self._checkpoint()
            listed = self._level.dumpdir_at(block, directory)
            self._names = directory, None if listed is None else listed.names()
        return self._names[1]

    def _places(self) -> Iterator[Place]:
        for number, place in enumerate(places(self._level.index())):
            if number % _LINES_BETWEEN_CHECKPOINTS == 0:
                self._checkpoint()
            yield place


class _Inside:
    """Tells quickly what is one of some paths, or below one, for paths that come directory by directory."""

    def __init__(self, tops: Iterable[bytes]) -> None:
        self._tops = frozenset(tops)
        self._parent = b""
        self._parent_top = b""

    def top_of(self, path: bytes) -> bytes:
        """Which of the paths it is, or is below, the nearest one; empty for none."""
        if path in self._tops:
            return path
        parent = parent_of(path)
        if parent != self._parent:
            self._parent = parent
            self._parent_top = next((upper for upper in (parent, *uppers(parent)) if upper in self._tops), b"")
        return self._parent_top


def parent_of(path: bytes) -> bytes:
    """The directory that a path is in."""
    return path.rpartition(b"/")[0] or TOP


def uppers(path: bytes) -> Iterator[bytes]:
    """Every directory above a path, the top directory last."""
    while path != TOP:
        path = parent_of(path)
        yield path
