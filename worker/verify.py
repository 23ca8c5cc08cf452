"""Reads a stored set again, compares it with what its manifest says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from handlers import registry
from handlers.contract import Control, Difference, Progress, Tree
from handlers.errors import HoldfastError, IntegrityError
from handlers.tools.trees.check import check
from worker.catalog import Catalog, StoredSet
from worker.levels import ChainBroken
from worker.manifest import GUIDE, SUMS, sums
from worker.restore import restore
from worker.stores.protocol import SetMissing

Depth = Literal["none", "checksums", "deep"]

MAX_SHOWN_DIFFERENCES = 20


class RestoreDiffers(IntegrityError):
    """A set was restored on trial, and the tree is not what its index says. The parts themselves are intact."""

    def __init__(self, name: str, differences: Sequence[Difference]) -> None:
        shown = "; ".join(f"{difference.path}: {difference.what}" for difference in differences)
        super().__init__(f"set {name} restores with differences: {shown}")
        self.differences = tuple(differences)


def verify(catalog: Catalog, wanted: StoredSet, depth: Depth, scratch: Path, control: Control) -> None:
    """Check a set as deep as asked; returns when all is well.

    The sets it builds on must be there. `checksums` reads every part of this set from the store. `deep` also restores
    it (with the chain it builds on, all of it read and checked) into `scratch`, and compares the tree with the index.
    Raises IntegrityError, ChainBroken or RestoreDiffers.
    """
    if depth == "none":
        return
    catalog.chain(wanted)
    check_parts(wanted, control)
    if depth == "deep":
        restore_on_trial(catalog, wanted, scratch, control)


def check_parts(wanted: StoredSet, control: Control) -> None:
    """Read every part, then every tree; raises IntegrityError naming the first that is not what the manifest says."""
    read = 0
    for name in wanted.parts:
        for chunk in wanted.stream(name):
            read += len(chunk)
            control.checkpoint()
            control.report(Progress(bytes_in=read))
    try:
        on_record = wanted.store.read(wanted.name, SUMS)
        wanted.store.size(wanted.name, GUIDE)
    except SetMissing as error:
        raise IntegrityError(f"set {wanted.name} in store {wanted.store.name} lacks a file: {error.message}") from error
    if on_record != sums(wanted.manifest.parts):
        raise IntegrityError(f"{SUMS} of set {wanted.name} does not agree with its manifest")

    def report(more_bytes: int) -> None:
        nonlocal read
        read += more_bytes
        control.report(Progress(bytes_in=read))

    for tree in wanted.trees.values():
        _check_tree(wanted, tree, control.checkpoint, report)


def _check_tree(wanted: StoredSet, tree: Tree, checkpoint: Callable[[], None], report: Callable[[int], None]) -> None:
    name = f"{tree.name} of set {wanted.name} in store {wanted.store.name}"
    listing = wanted.stream(tree.listing)
    files, size_bytes = check(wanted.tree(tree.name), listing, name=name, checkpoint=checkpoint, report=report)
    if (files, size_bytes) != (tree.files, tree.size_bytes):
        raise IntegrityError(
            f"tree {name} has {files} names and {size_bytes} bytes, as its listing says, "
            f"but its manifest tells of {tree.files} and {tree.size_bytes}"
        )


def restore_on_trial(catalog: Catalog, wanted: StoredSet, scratch: Path, control: Control) -> None:
    """Restore the set below scratch, compare; raises RestoreDiffers, or what the restore raises."""
    target = scratch / "restored"
    _, chain = restore(catalog, wanted, target, (), control)
    handler = registry.load(wanted.manifest.handler)
    differences = list(itertools.islice(handler.compare(chain, target, control), MAX_SHOWN_DIFFERENCES))
    if differences:
        raise RestoreDiffers(str(wanted.name), differences)


def damage_depth(error: IntegrityError) -> Depth:
    """How deep a verification has to look to find this damage gone."""
    return "deep" if isinstance(error, RestoreDiffers) else "checksums"


def rotten_sets(catalog: Catalog, wanted: StoredSet, error: IntegrityError, control: Control) -> tuple[StoredSet, ...]:
    """Which sets are damaged, after a verification of `wanted` has failed with this error.

    Reads all that it builds on. A broken chain is nobody's damage: a set that is missing may come back.
    """
    if isinstance(error, ChainBroken):
        return ()
    try:
        chain = catalog.chain(wanted)
    except HoldfastError:
        return (wanted,)
    return tuple(link for link in chain if not _is_sound(link, control)) or (wanted,)


def _is_sound(link: StoredSet, control: Control) -> bool:
    try:
        check_parts(link, control)
    except IntegrityError:
        return False
    return True
