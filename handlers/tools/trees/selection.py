"""Chooses what of a tree is restored, by its listing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import NamedTuple

from handlers.contract import printable
from handlers.errors import PermanentError
from handlers.tools.sorted_lines import SortedLines
from handlers.tools.tar.lookup import uppers
from handlers.tools.trees.mtree import TOP, Item, items, order

_RUN_BYTES = 8 << 20
_END = b"\0"
_ITEMS_BETWEEN_CHECKPOINTS = 1000


class Chosen(NamedTuple):
    """One name to restore."""

    item: Item
    shares: bytes | None = None
    """An earlier name of the same file."""


def choose(
    listing: Callable[[], Iterable[bytes]], requested: Collection[bytes], checkpoint: Callable[[], None]
) -> Generator[Chosen, None, None]:
    """The requested names with all below them and the directories above them, in the order of the listing.

    `.` stands for everything. Reads the listing twice; memory does not grow with it. Raises IntegrityError, and
    PermanentError naming a path that is not listed, before it gives anything.
    """
    gathered = SortedLines(run_bytes=_RUN_BYTES)
    shared = SortedLines(run_bytes=_RUN_BYTES)
    try:
        missing = set(requested)
        for item in _wanted(listing, requested, checkpoint):
            missing.discard(item.path)
            if item.inode is not None:
                gathered.add(b"%d" % item.inode, item.path)
        if missing:
            raise PermanentError(
                f"{printable(min(missing))!r} is not in the set",
                hint="give the path as `holdfast ls -R` shows it",
            )
        _share(gathered, shared)
        gathered.close()
        links = iter(shared)
        key, first = next(links, (b"", b""))
        for item in _wanted(listing, requested, checkpoint):
            if first and order(item.path) == key:
                yield Chosen(item, first)
                key, first = next(links, (b"", b""))
            else:
                yield Chosen(item)
    finally:
        gathered.close()
        shared.close()


def _share(gathered: SortedLines, shared: SortedLines) -> None:
    """Note for each name but the first of a file what the first one is."""
    before = first = b""
    for inode, path in gathered:
        if inode == before:
            shared.add(order(path), first)
        before, first = inode, first if inode == before else path


def _wanted(
    listing: Callable[[], Iterable[bytes]], requested: Collection[bytes], checkpoint: Callable[[], None]
) -> Iterator[Item]:
    above = {upper for path in requested for upper in uppers(path)}
    inside = b""
    for number, item in enumerate(items(listing())):
        if number % _ITEMS_BETWEEN_CHECKPOINTS == 0:
            checkpoint()
        if TOP in requested or (inside and item.path.startswith(inside)):
            yield item
        elif item.path in requested:
            inside = item.path + b"/"
            yield item
        elif item.path in above:
            yield item
