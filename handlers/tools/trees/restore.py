"""Brings back a tree of a set, or single paths of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from handlers.contract import Progress, Restored
from handlers.errors import IntegrityError, PermanentError
from handlers.tools.deep_tree import ENTER, NO_DIRECTORY
from handlers.tools.tar.lookup import requested_paths
from handlers.tools.trees.copying import Copying
from handlers.tools.trees.mtree import TOP
from handlers.tools.trees.selection import choose
from handlers.tools.trees.walk import open_top


def restore(
    tree: Path,
    listing: Callable[[], Iterable[bytes]],
    target: Path,
    paths: Sequence[bytes],
    *,
    checkpoint: Callable[[], None],
    report: Callable[[Progress], None],
) -> Restored:
    """Bring back the tree below target, which exists and is empty; or these paths, a directory with all below it.

    What is restored is what the listing says: its types, modes, owners, times and targets of links; names that were
    one file are one again. From the tree come the content, whose SHA-256 is compared as it is copied, holes, extended
    attributes and access lists. What the listing does not have is left out. The directories above a path come back
    with their attributes, too; target itself keeps its own unless all is restored. Owners only come back for root.

    Every name is reached step by step, from the tree's and the target's top, through no symbolic link, and nothing that
    exists is opened for writing: nothing outside target is changed, whatever is in the tree, and whoever changes it
    meanwhile. Memory does not grow with the number of files.

    Raises PermanentError naming a path that is not in the set, before anything is written; IntegrityError where the
    tree is not what the listing says; TemporaryError when the disk is full. Target then holds a part of the tree.
    """
    requested = requested_paths(paths) or frozenset({TOP})
    with ExitStack() as stack:
        source = _opened(tree)
        stack.callback(os.close, source)
        below = os.open(target, ENTER & ~os.O_NOFOLLOW)
        stack.callback(os.close, below)
        copying = stack.enter_context(closing(Copying(source, below, checkpoint, report)))
        for item, shares in stack.enter_context(closing(choose(listing, requested, checkpoint))):
            if item.path != TOP:
                copying.take(item, shares)
            elif TOP in requested:
                copying.top(item)
        copying.finish()
    progress = copying.progress()
    return Restored(
        files=progress.files,
        bytes_out=progress.bytes_out,
        bytes_read=progress.bytes_in,
        warnings=tuple(_warnings(copying)),
    )


def _opened(tree: Path) -> int:
    try:
        return open_top(tree)
    except OSError as error:
        if error.errno in NO_DIRECTORY or isinstance(error, FileNotFoundError):
            raise IntegrityError(f"tree {tree} is missing") from error
        raise PermanentError(f"cannot read {tree}: {error.strerror}") from error


def _warnings(copying: Copying) -> Iterator[str]:
    unset = copying.unset
    if copying.strangers:
        yield f"the owners of {copying.strangers} files could not be restored: only root can give files away"
    if unset.attributes or unset.lists:
        yield (
            f"{unset.attributes} extended attributes and {unset.lists} access control lists could not be set, "
            f"first: {unset.first}"
        )
