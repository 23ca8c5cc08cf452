"""Makes sure that a new set does not outlive what it builds on.

While a level is made, an expiry on another host may let go of its parents, where another request of the plan has made a
newer full backup there. The expiry puts its notes before it looks for new sets, and a maker commits before it looks for
such notes: so at least one of the two sees the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from handlers.contract import PlanName
from handlers.errors import TemporaryError
from worker.catalog import Catalog, StoredSet
from worker.levels import ChainBroken, Choice
from worker.manifest import Manifest
from worker.pins import EXPIRING
from worker.retention import built_upon, parents_of
from worker.stores.protocol import SetMissing, Store


class ParentGone(TemporaryError):
    """What a level builds on was expired meanwhile; the next attempt chooses anew."""

    uses_up_attempt = False

    def __init__(self, new: Manifest) -> None:
        super().__init__(
            f"set {new.parent}, which level {new.level} of plan {new.plan} builds on, was expired while it was made",
            retry_after=timedelta(),
        )


def nothing_on_expiring(choice: Choice, made: Sequence[Manifest], store: Store, plan: PlanName) -> Choice:
    """The choice, or a full backup where an expiry says that it takes away something that the level would build on.

    Whether that expiry is alive nobody can tell: the note of a dead one stays until the next expiry of the plan, and a
    level that is made on it would be taken back each time. Raises StoreUnavailable or StoreRefused.
    """
    if choice.parent is None:
        return choice
    expiring = store.notes(plan, EXPIRING)
    leaving = sorted(built_upon(parents_of(made), [choice.parent.id]) & expiring.keys())
    if not leaving:
        return choice
    return Choice(level=0, parent=None, reason=f"set {leaving[0]}, to build upon, is being expired")


@contextmanager
def expiry_of_parents_is_temporary(new: Manifest) -> Iterator[None]:
    """Raises ParentGone where a set is found missing within."""
    try:
        yield
    except (ChainBroken, SetMissing) as error:
        raise ParentGone(new) from error


def require_parents(catalog: Catalog, new: StoredSet) -> None:
    """Return if all that this committed set builds on stays. Raises ParentGone otherwise; the set is then gone, too."""
    if new.manifest.parent is None:
        return
    expiring = new.store.notes(new.manifest.plan_name, EXPIRING)
    try:
        with expiry_of_parents_is_temporary(new.manifest):
            chain = catalog.chain(new)
        if any(link.backup_id in expiring for link in chain):
            raise ParentGone(new.manifest)
    except ParentGone:
        new.store.expire(new.name)
        raise
