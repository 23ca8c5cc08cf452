"""Remembers in the store which sets were verified, how deep, and when.

A note of the plan for each set, named by it. That nobody knows of a verification costs another one, or keeps a set for
longer; so a damaged note counts as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson
from loguru import logger
from pydantic import BaseModel, ConfigDict, ValidationError

from handlers.contract import BackupId, PlanName
from worker.manifest import Moment
from worker.stores.protocol import SetName, Store

VERIFIED = "verified"
"""The kind of these notes."""


class _Record(BaseModel):
    """What such a note says. Fields that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    depth: Literal["checksums", "deep"]
    at: Moment


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


def note_verified(store: Store, name: SetName, depth: Literal["none", "checksums", "deep"], at: datetime) -> None:
    """Remember that the set was verified so deep; `none` is nothing to remember.

    Durable on return. Raises StoreUnavailable or StoreRefused.
    """
    if depth == "none":
        return
    record = _Record(depth=depth, at=at)
    content = orjson.dumps(record.model_dump(mode="json")) + b"\n"
    store.put_note(name.plan, VERIFIED, name.backup_id, content, replace=True)


def forget_verified(store: Store, name: SetName) -> None:
    """Take back that the set was verified, because it was found damaged or is gone; not noted at all is fine.

    Raises StoreUnavailable or StoreRefused.
    """
    store.drop_note(name.plan, VERIFIED, name.backup_id)
