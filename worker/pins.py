"""Pins: a person's word that a set stays, whatever the retention rules say.

A pin is a note of the plan in the set's own store, so it survives the loss of the journal. It protects its set and,
through retention, all that the set builds on.

Expiry may run elsewhere at the same time, and there is no lock. Whoever keeps puts the pin first, then looks for a note
that says the set is expiring; whoever expires puts that note first, then looks for pins. So at least one of the two
sees the other: expiry lets go of a pinned set, and `keep` waits until the set is either safe or gone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import orjson
from loguru import logger
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.settings import NAME_PATTERN
from handlers.contract import BackupId, PlanName
from handlers.errors import IntegrityError, PermanentError, TemporaryError
from worker.catalog import Catalog, SetNotFound, StoredSet
from worker.manifest import Moment
from worker.stores.protocol import SetName, Store, StoreUnavailable

PINS = "pins"
"""The kind of the notes that are pins, each named by its pin."""
EXPIRING = "expiring"
"""The kind of the notes that expiry puts before it reads the pins, each named by the set that is on its way out."""
MAX_REASON = 1000
PATIENCE = timedelta(seconds=5)
"""How long `keep` waits for an expiry, which needs a moment for each set; only one that was killed leaves its note."""
_LOOK_SECONDS = 0.05


class PinName(PermanentError):
    """What was given is no name for a pin, or no reason for one."""

    exit_code = 2


class PinMissing(PermanentError):
    """There is no pin of this name."""

    exit_code = 2


class PinTaken(PermanentError):
    """The plan has a pin of this name, on another set; it was left as it is."""

    exit_code = 5


class SetIsExpiring(TemporaryError):
    """An expiry says that it takes this set away, and does not come to an end."""


class _Record(BaseModel):
    """What the note of a pin says. Fields that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True, strict=True)

    backup_id: str = Field(min_length=1)
    kept: Moment
    by: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One pin; its name is unique within the plan and store."""

    plan: PlanName
    name: str
    backup_id: BackupId
    kept: datetime
    by: str
    """`user@node`."""
    reason: str | None = None

    def encode(self) -> bytes:
        """The note: one line of JSON."""
        record = _Record(backup_id=self.backup_id, kept=self.kept, by=self.by, reason=self.reason)
        return orjson.dumps(record.model_dump(mode="json", exclude_none=True)) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedPin:
    """A pin of which nobody can tell which set it protects: it may be any of the plan's."""

    plan: PlanName
    name: str
    error: IntegrityError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What `keep` did."""

    pin: Pin
    chain: Sequence[StoredSet]
    """Everything the pin protects, oldest first."""
    already: bool
    """Whether the pin was there before; it is as it was."""


def all_pins(store: Store, plan: PlanName | None = None) -> Iterator[Pin | DamagedPin]:
    """Every pin of a plan, or of all plans, in no order. Raises StoreUnavailable or StoreRefused."""
    for of in store.noted_plans() if plan is None else iter((plan,)):
        for name, content in store.notes(of, PINS).items():
            yield _decode(store, of, name, content)


def pins_of(store: Store, plan: PlanName) -> Sequence[Pin]:
    """The plan's pins, by name.

    Raises IntegrityError where one of them is damaged: nobody can tell then which sets may go.
    """
    pins: list[Pin] = []
    for pin in all_pins(store, plan):
        if isinstance(pin, DamagedPin):
            raise pin.error
        pins.append(pin)
    return sorted(pins, key=lambda pin: pin.name)


def pinned(store: Store, plan: PlanName) -> Mapping[BackupId, Sequence[str]]:
    """The sets that somebody keeps, with the names of their pins; a set may be gone all the same.

    Raises IntegrityError where a pin of the plan is damaged.
    """
    found: dict[BackupId, list[str]] = {}
    for pin in pins_of(store, plan):
        found.setdefault(pin.backup_id, []).append(pin.name)
    return found


def keep(
    catalog: Catalog,
    stored: StoredSet,
    name: str,
    *,
    by: str,
    now: datetime,
    reason: str | None = None,
    checkpoint: Callable[[], None],
    patience: timedelta = PATIENCE,
) -> Kept:
    """Pin a set; on return no expiry, on any host, takes away the set or one that it builds on.

    The same name for the same set again is fine. Raises PinName, PinTaken, ChainBroken where the set could not be
    restored anyway, SetNotFound where a set of the chain was expired meanwhile, SetIsExpiring where that is unknown
    after `patience`, what `checkpoint` raises to stop the waiting, and what the store raises. After an error there is
    no new pin, unless the store is away just then.
    """
    chain = catalog.chain(stored)
    plan = stored.name.plan
    _require_sound(name, reason)
    pin = Pin(plan=plan, name=name, backup_id=stored.backup_id, kept=now, by=by, reason=reason)
    while True:
        already = safe = False
        try:
            already = not _put(stored.store, pin)
            _require_safe(stored.store, plan, chain, checkpoint, patience)
            safe = True
        finally:
            # Nobody was promised anything. If we die before this, the pin stays, and keeps a set that may be gone,
            # until it is released.
            if not already and not safe and stored.store.notes(plan, PINS).get(name) == pin.encode():
                stored.store.drop_note(plan, PINS, name)
        standing = _existing(stored.store, pin)
        # Not ours: one who put it before us may have come to another end, and taken it away.
        if standing is not None and standing.backup_id == pin.backup_id:
            return Kept(pin=standing, chain=chain, already=already)


def release(store: Store, plan: PlanName, name: str) -> None:
    """Take the pin away, damaged or not; gone already is fine."""
    store.drop_note(plan, PINS, name)


def places(stores: Iterable[Store], name: str, plan: PlanName | None = None) -> Sequence[tuple[Store, PlanName]]:
    """Where there is a pin of this name, of this plan or of any; damaged ones count.

    A store that is away is passed over with a warning where the pin is found in another one. Raises PinMissing, or
    StoreUnavailable where the pin may be in the store that is away.
    """
    found: list[tuple[Store, PlanName]] = []
    away: list[StoreUnavailable] = []
    for store in stores:
        try:
            found += [(store, of) for of in store.noted_plans() if plan in {None, of} and name in store.notes(of, PINS)]
        except StoreUnavailable as error:
            away.append(error)
    if not found and away:
        raise away[0]
    if not found:
        of_plan = "" if plan is None else f" of plan {plan}"
        raise PinMissing(f"there is no pin {name!r}{of_plan}", hint="`holdfast list` shows the pins")
    for trouble in away:
        logger.warning("store_passed_over", error=str(trouble))
    return sorted(found, key=lambda place: (place[1], place[0].name))


def _require_sound(name: str, reason: str | None) -> None:
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise PinName(
            f"{name!r} is no name for a pin",
            hint="letters, digits, . _ and -, at most 63 of them; it begins with a letter or digit, no dot at its end",
        )
    if reason is not None and len(reason) > MAX_REASON:
        raise PinName(f"the reason has {len(reason)} characters", hint=f"at most {MAX_REASON}")


def _put(store: Store, pin: Pin) -> bool:
    """Make the pin; False where it is there already, for the same set. Raises PinTaken or IntegrityError."""
    while not store.put_note(pin.plan, PINS, pin.name, pin.encode(), replace=False):
        other = _existing(store, pin)
        if other is None:
            continue  # released in this moment
        if other.backup_id == pin.backup_id:
            return False
        there = store.exists(SetName(plan=pin.plan, backup_id=other.backup_id))
        raise PinTaken(
            f"pin {pin.name} of plan {pin.plan} keeps set {other.backup_id}{'' if there else ', which is gone'}",
            hint=f"choose another name, or let go of that set: `holdfast release {pin.plan}/{pin.name}`",
        )
    return True


def _existing(store: Store, pin: Pin) -> Pin | None:
    content = store.notes(pin.plan, PINS).get(pin.name)
    if content is None:
        return None
    found = _decode(store, pin.plan, pin.name, content)
    if isinstance(found, DamagedPin):
        raise found.error
    return found


def _require_safe(
    store: Store, plan: PlanName, chain: Sequence[StoredSet], checkpoint: Callable[[], None], patience: timedelta
) -> None:
    wanted = {link.backup_id for link in chain}
    deadline = time.monotonic() + patience.total_seconds()
    while True:
        # In this order: an expiry that saw no pin is either still at it, or its set is gone already.
        leaving = sorted(wanted & store.notes(plan, EXPIRING).keys())
        gone = [link.name for link in reversed(chain) if not store.exists(link.name)]
        if gone:
            raise SetNotFound(
                f"set {gone[0]} was expired in this moment", hint="nothing was kept; `holdfast list` shows what is left"
            )
        if not leaving:
            return
        if time.monotonic() >= deadline:
            raise SetIsExpiring(
                f"set {plan}/{leaving[0]} is being expired for more than {patience.total_seconds():.0f} s",
                hint=f"nothing was kept; `holdfast expire {plan}` cleans up after an expiry that was killed",
            )
        checkpoint()
        time.sleep(_LOOK_SECONDS)


def _decode(store: Store, plan: PlanName, name: str, content: bytes) -> Pin | DamagedPin:
    try:
        record = _Record.model_validate_json(content)
    except ValidationError:
        error = IntegrityError(
            f"pin {name} of plan {plan} in store {store.name} is damaged: nobody can tell which set it keeps",
            hint=f"nothing of the plan is expired until you release it: `holdfast release {plan}/{name}`; "
            "then keep its set again",
        )
        return DamagedPin(plan=plan, name=name, error=error)
    return Pin(
        plan=plan,
        name=name,
        backup_id=BackupId(record.backup_id),
        kept=record.kept,
        by=record.by,
        reason=record.reason,
    )
