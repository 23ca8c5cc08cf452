"""Makes sure that a new set does not outlive what it builds on.

While a level is made, an expiry on another host may let go of its parents, where another request of the plan has made a
newer full backup there. The expiry puts its notes before it looks for new sets, and a maker commits before it looks for
such notes: so at least one of the two sees the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from handlers.errors import TemporaryError
from worker.catalog import Catalog, StoredSet
from worker.levels import ChainBroken
from worker.manifest import Manifest
from worker.pins import EXPIRING
from worker.stores.protocol import SetMissing


class ParentGone(TemporaryError):
    """What a level builds on was expired meanwhile; the next attempt chooses anew."""

    uses_up_attempt = False

    def __init__(self, new: Manifest) -> None:
        super().__init__(
            f"set {new.parent}, which level {new.level} of plan {new.plan} builds on, was expired while it was made",
            retry_after=timedelta(),
        )


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
