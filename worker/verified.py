"""Remembers in the store what verifications found: which sets are sound, which are damaged, how deep somebody looked.

A note of the plan for each set, named by it. That nobody knows of a verification costs another one, or keeps a set for
longer; so a damaged note of one counts as none. What was found damaged is not built upon and counts for no rule until a
verification of the same depth says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import orjson
from loguru import logger
from pydantic import BaseModel, ConfigDict, ValidationError

from handlers.contract import BackupId, PlanName
from worker.manifest import Moment
from worker.stores.protocol import SetName, Store

VERIFIED = "verified"
"""The kind of the notes that say a set is sound."""
DAMAGED = "damaged"
"""The kind of the notes that say it is not."""
KINDS = (VERIFIED, DAMAGED)
MAX_WHAT = 1000

Depth = Literal["none", "checksums", "deep"]


class _Record(BaseModel):
    """What such a note says. Fields that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    depth: Literal["checksums", "deep"]
    at: Moment
    what: str | None = None
    """What is wrong, of a set that was found damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The last time that a set was found to be what its manifest says."""

    depth: Literal["checksums", "deep"]
    at: datetime


def verifications(store: Store, plan: PlanName) -> Mapping[BackupId, Verification]:
    """The plan's verified sets, each with its last verification; a set may be gone all the same.

    Damaged notes are left out, with one warning in the log. Raises StoreUnavailable or StoreRefused.
    """
    found: dict[BackupId, Verification] = {}
    damaged: list[str] = []
    for name, content in store.notes(plan, VERIFIED).items():
        try:
            record = _Record.model_validate_json(content)
        except ValidationError:
            damaged.append(name)
        else:
            found[BackupId(name)] = Verification(depth=record.depth, at=record.at)
    if damaged:
        logger.warning(
            "verified_notes_damaged",
            store=store.name,
            plan=plan,
            backup_ids=sorted(damaged)[:10],
            next="these sets count as never verified; `holdfast verify` makes the notes anew",
        )
    return found


def verified(store: Store, plan: PlanName) -> Mapping[BackupId, datetime]:
    """When each of the plan's verified sets was verified last; see `verifications`."""
    return {backup_id: verification.at for backup_id, verification in verifications(store, plan).items()}


def damaged(store: Store, plan: PlanName) -> Mapping[BackupId, str]:
    """The plan's sets that were found damaged, each with when and what; a set may be gone all the same.

    Raises StoreUnavailable or StoreRefused.
    """
    found: dict[BackupId, str] = {}
    for name, content in store.notes(plan, DAMAGED).items():
        try:
            record = _Record.model_validate_json(content)
        except ValidationError:
            found[BackupId(name)] = "found damaged at an unknown time"
        else:
            found[BackupId(name)] = f"found damaged on {record.at:%Y-%m-%d %H:%M} UTC: {record.what or 'unknown'}"
    return found


def note_damaged(store: Store, name: SetName, depth: Depth, at: datetime, what: str) -> None:
    """Remember that the set is not what its manifest says (`checksums`), or restores as something else (`deep`).

    Durable on return. Raises StoreUnavailable or StoreRefused.
    """
    # Messages of the system may quote names that are no UTF-8, which JSON does not take.
    clean = what.encode("utf-8", "backslashreplace").decode()[:MAX_WHAT]
    record = _Record(depth="deep" if depth == "deep" else "checksums", at=at.astimezone(UTC), what=clean)
    store.put_note(name.plan, DAMAGED, name.backup_id, _encoded(record), replace=True)
    store.drop_note(name.plan, VERIFIED, name.backup_id)


def note_verified(store: Store, name: SetName, depth: Depth, at: datetime) -> None:
    """Remember that the set was verified so deep; `none` is nothing to remember.

    Durable on return. Raises StoreUnavailable or StoreRefused.
    """
    if depth == "none":
        return
    store.put_note(name.plan, VERIFIED, name.backup_id, _encoded(_Record(depth=depth, at=at)), replace=True)
    before = store.notes(name.plan, DAMAGED).get(name.backup_id)
    if before is not None and (depth == "deep" or _depth(before) == "checksums"):
        store.drop_note(name.plan, DAMAGED, name.backup_id)


def forget_verified(store: Store, name: SetName) -> None:
    """Forget what was found about a set that is gone; not noted at all is fine.

    Raises StoreUnavailable or StoreRefused.
    """
    for kind in KINDS:
        store.drop_note(name.plan, kind, name.backup_id)


def _encoded(record: _Record) -> bytes:
    return orjson.dumps(record.model_dump(mode="json", exclude_none=True)) + b"\n"


def _depth(content: bytes) -> str:
    try:
        return _Record.model_validate_json(content).depth
    except ValidationError:
        return "deep"
