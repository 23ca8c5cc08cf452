"""Gathers what the indexes of a chain say of the names below a directory, sorted so that levels can be merged.

Each name that a level has becomes a record. Its key is the directory, a zero byte, and the name in it: sorted, the
records are one directory after the other (in the order of GNU tar's own directories), with the names in order. The
directory's own record comes once more at the head of its names, with an empty name.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from handlers.contract import printable
from handlers.errors import IntegrityError
from handlers.tools.sorted_lines import SortedLines
from handlers.tools.tar.index import Place, member, places, some_places, word_in_lines
from handlers.tools.tar.lookup import TOP, parent_of, uppers
from handlers.tools.tar.stored_set import TarSet

DIRECTORY = "d"
HARD_LINK = "h"
END = b"\0"
"""What is between the directory and the name in a key, and between a hard link's line and that of what it shares."""

_MANY_LINKS = 10_000
_LINES_BETWEEN_CHECKPOINTS = 10_000

Renaming = Callable[[bytes], bytes | None]
"""What a path of a level is called at the last one; None when another has taken its name."""

Record = tuple[bytes, int, bytes]
"""Key, number of the level in the chain, line of its index: empty for a directory that is no member itself."""


def key_of(path: bytes) -> bytes:
    """The key of a name in its directory."""
    directory, _, name = path.rpartition(b"/")
    return directory + END + name


def head_of(directory: bytes) -> bytes:
    """The key of a directory at the head of its names."""
    return (b"" if directory == TOP else directory) + END


@dataclass(frozen=True, slots=True)
class Scope:
    """What to gather: a directory with the names in it, or all below it."""

    top: bytes
    recursive: bool

    def takes(self, path: bytes) -> bool:
        """Whether this name is wanted."""
        if self.recursive:
            return self.top == TOP or self.holds(parent_of(path))
        return path == self.top or parent_of(path) == self.top

    def holds(self, directory: bytes) -> bool:
        """Whether this directory is the one, or below it."""
        return self.top in (TOP, directory) or directory.startswith(self.top + b"/")

    def words(self) -> Sequence[bytes]:
        """One of these is in every line that matters: of what is wanted, and of the directories above. None for all."""
        word = word_in_lines(self.top) if self.top != TOP else b""
        if not word:
            return ()
        above = (word_in_lines(upper) for upper in uppers(self.top) if upper != TOP)
        return (word, b'"./"', b'"."', *(upper + end for upper in above for end in (b'/"', b'"') if upper))


class Names:
    """What one level has within a scope."""

    def __init__(self, level: TarSet, scope: Scope, stack: ExitStack, checkpoint: Callable[[], None]) -> None:
        self._level = level
        self._scope = scope
        self._stack = stack
        self._checkpoint = checkpoint
        self._heads = {scope.top, *uppers(scope.top)}
        self.loose = False
        """Whether the top directory is no member, since the plan names only something below."""

    def of_last_level(self) -> SortedLines:
        """What the last level has."""
        return self._gathered(None, None, directories=True)

    def of_older_level(
        self, now: Renaming | None, wanted: Container[bytes] | None, *, directories: bool
    ) -> SortedLines:
        """What an older level has, under the names that `now` gives, where something was renamed since.

        With `wanted` no other names. Directories are only of interest where the last level may lack some.
        """
        return self._gathered(now, wanted, directories=directories)

    def _gathered(self, now: Renaming | None, wanted: Container[bytes] | None, *, directories: bool) -> SortedLines:
        gathered, links = self._sorter(), self._sorter()
        targets: set[bytes] = set()
        first = True
        implied = b""
        for place in self._places(self._scope.words() if now is None else ()):
            path = place.path if now is None else now(place.path)
            if first:
                self.loose = directories and place.path != TOP
                first = False
            if path is None:
                continue
            if place.type == DIRECTORY:
                if directories:
                    self._add_directory(gathered, path, place.line)
            elif self._scope.takes(path) and (wanted is None or path in wanted):
                if place.type == HARD_LINK:
                    shared = member(place.line).link or b""
                    if len(targets) <= _MANY_LINKS:
                        targets.add(shared)
                    links.add(shared, path + END + place.line)
                else:
                    gathered.add(key_of(path), place.line)
            if self.loose and (parent := parent_of(path)) != implied:
                implied = parent
                self._add_implied(gathered, path)
        if first:
            self.loose = directories  # all that the plan names is unchanged
        if len(links):
            self._add_links(gathered, links, targets)
        return gathered

    def _add_directory(self, gathered: SortedLines, path: bytes, line: bytes) -> None:
        if path in self._heads or (self._scope.recursive and self._scope.holds(path)):
            gathered.add(head_of(path), line)
        if path != TOP and self._scope.takes(path):
            gathered.add(key_of(path), line)

    def _add_implied(self, gathered: SortedLines, path: bytes) -> None:
        for upper in uppers(path):
            if upper != TOP and self._scope.takes(upper):
                gathered.add(key_of(upper), b"")

    def _add_links(self, gathered: SortedLines, links: SortedLines, targets: set[bytes]) -> None:
        """Find what each hard link shares: an earlier member of the same archive, perhaps outside the scope."""
        shared = self._sorter()
        few = targets if len(targets) <= _MANY_LINKS else None
        for place in self._places(()):
            if place.type not in {DIRECTORY, HARD_LINK} and (few is None or place.path in few):
                shared.add(place.path, place.line)
        files = iter(shared)
        target, target_line = next(files, (b"", b""))
        for wanted, link in links:
            while target < wanted and target_line:
                target, target_line = next(files, (b"", b""))
            path, _, line = link.partition(END)
            if target != wanted or not target_line:
                raise IntegrityError(
                    f"set {self._level.name}: {printable(path)!r} shares {printable(wanted)!r}, which is not in it"
                )
            gathered.add(key_of(path), line + END + target_line)
        links.close()
        shared.close()

    def _sorter(self) -> SortedLines:
        return self._stack.enter_context(closing(SortedLines()))

    def _places(self, words: Sequence[bytes]) -> Iterator[Place]:
        index = self._level.index()
        for number, place in enumerate(some_places(index, words) if words else places(index)):
            if number % _LINES_BETWEEN_CHECKPOINTS == 0:
                self._checkpoint()
            yield place
