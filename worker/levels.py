"""Decides which level a backup has, which sets a restore needs.

Pure. The reason for each choice is a sentence that ends up in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from handlers.contract import BackupId
from handlers.errors import IntegrityError, PermanentError
from worker.manifest import Manifest

Wanted = Literal["auto", "full", "incremental"] | int


class ChainBroken(IntegrityError):
    """A set that another one builds on is missing."""


class LevelRefused(PermanentError):
    """The level that was asked for cannot be made."""

    exit_code = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The level to make."""

    level: int
    parent: Manifest | None
    reason: str


def newest(manifests: Iterable[Manifest]) -> Manifest | None:
    """The set that was finished last."""
    return max(manifests, key=lambda manifest: (manifest.finished, manifest.backup_id), default=None)


def levels_to_restore(manifests: Mapping[BackupId, Manifest], upto: BackupId) -> tuple[Manifest, ...]:
    """The manifests to apply, oldest first, ending with upto.

    Raises ChainBroken when a set's parent is missing or is no parent for it; nothing has been read yet.
    """
    chain: list[Manifest] = []
    wanted: BackupId | None = upto
    while wanted is not None:
        manifest = manifests.get(wanted)
        if manifest is None:
            needed_by = f", which {chain[-1].backup_id} builds on," if chain else ""
            raise ChainBroken(f"set {wanted}{needed_by} is missing")
        if chain and manifest.level != chain[-1].level - 1:
            raise ChainBroken(
                f"set {chain[-1].backup_id} of level {chain[-1].level} cannot build on "
                f"{manifest.backup_id} of level {manifest.level}"
            )
        chain.append(manifest)
        wanted = BackupId(manifest.parent) if manifest.parent is not None else None
    if chain[-1].level != 0:
        raise ChainBroken(f"set {chain[-1].backup_id} of level {chain[-1].level} names no parent")
    return tuple(reversed(chain))


def choose(wanted: Wanted, manifests: Sequence[Manifest], *, scope: str, max_level: int) -> Choice:
    """The level of the next set of a plan, given the sets the plan has.

    A set of another scope (other excludes, for instance) is never built upon: what it left out would not be looked at
    again.

    A set that is only partial is never built upon: a file it could not read would not be looked at again, and would be
    missing from every later level. The next set builds on the last complete one instead.
    Raises LevelRefused for a number that nothing can be built for.
    """
    if wanted in {"full", 0}:
        return _full("a full backup was asked for")
    tip = newest(manifests)
    if tip is None:
        return _nothing_there(wanted)
    try:
        chain = levels_to_restore({manifest.id: manifest for manifest in manifests}, tip.id)
    except ChainBroken as error:
        return _full(f"the chain of the newest set is broken: {error.message}")
    if tip.scope != scope:
        return _full(f"the plan's options have changed since set {tip.backup_id}")
    complete = _complete_stem(chain)
    if not complete:
        return _full(f"set {chain[0].backup_id}, the base of the chain, is partial")
    if isinstance(wanted, int):
        return _numbered(wanted, complete)
    parent = complete[-1]
    if wanted == "auto" and parent.level >= max_level:
        return _full(f"the newest set has level {parent.level}, the highest the plan allows")
    if len(complete) < len(chain):
        reason = (
            f"set {chain[len(complete)].backup_id} is partial, so its complete parent {parent.backup_id} is built upon"
        )
    else:
        reason = f"next after level {parent.level}"
    return Choice(level=parent.level + 1, parent=parent, reason=reason)


def _full(reason: str) -> Choice:
    return Choice(level=0, parent=None, reason=reason)


def _nothing_there(wanted: Wanted) -> Choice:
    if isinstance(wanted, int):
        raise LevelRefused(
            f"level {wanted} was asked for, but the plan has no set yet", hint="ask for level `auto` or 0"
        )
    return _full("the plan has no set yet")


def _complete_stem(chain: Sequence[Manifest]) -> Sequence[Manifest]:
    for at, manifest in enumerate(chain):
        if manifest.outcome != "succeeded":
            return chain[:at]
    return chain


def _numbered(wanted: int, complete: Sequence[Manifest]) -> Choice:
    if wanted > len(complete):
        raise LevelRefused(
            f"level {wanted} was asked for, but the newest complete set has level {complete[-1].level}",
            hint=f"the highest level possible now is {len(complete)}",
        )
    return Choice(level=wanted, parent=complete[wanted - 1], reason=f"level {wanted} was asked for")
