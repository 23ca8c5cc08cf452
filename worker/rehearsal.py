"""Plans a backup without making it: no journal, no state directory, no store is written to."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from config.load import Loaded
from handlers.contract import JSON
from handlers.tools.clock import system_clock
from worker import plans, policy
from worker.app import open_stores
from worker.catalog import Catalog
from worker.control import NoWatcher, WorkControl
from worker.intake.wire import BackupRequest
from worker.journal.protocol import Entry
from worker.lease import Leases
from worker.levels import Choice
from worker.lifecycle import State, Step
from worker.plan import Surroundings
from worker.policy import Denied, RequestRefused
from worker.steps import MakeControl, Work


def rehearse(
    loaded: Loaded, request: BackupRequest, cancelled: threading.Event
) -> tuple[Choice, Mapping[str, JSON], str]:
    """The level a backup would have now, what the handler would do, and the store's name.

    Reads the subject and the store; writes nothing outside a temporary directory, which is gone on return.
    Raises what the backup would raise up to its first byte.
    """
    settings = loaded.settings
    stores = open_stores(settings)
    found = plans.build(loaded, stores)
    verdict = policy.authorise(request, plans=found, reply_to_allowed=(), now=system_clock(), known=False)
    if isinstance(verdict, Denied):
        raise RequestRefused(verdict.reason, hint=verdict.hint)
    plan = found[verdict.plan]
    entry = _entry(request)
    with tempfile.TemporaryDirectory(prefix="holdfast-dry-run-") as scratch:
        around = Surroundings(
            catalog=Catalog(stores),
            node=settings.node,
            scratch=Path(scratch),
            config_digest=loaded.digest,
            clock=system_clock,
            leases=Leases(node=settings.node, state="none", lease_seconds=settings.lease_seconds),
        )
        control = _control(entry, cancelled)
        with closing(Work(entry, plan, around, NoWatcher(), control, Path(scratch))) as work:
            choice, description = work.dry_run()
    return choice, description, plan.store.name


def _control(entry: Entry, cancelled: threading.Event) -> MakeControl:
    def control(step: Step) -> WorkControl:
        return WorkControl(entry, step, NoWatcher(), cancelled)

    return control


def _entry(request: BackupRequest) -> Entry:
    now = system_clock()
    return Entry(
        request=request,
        backup_id=request.backup_id,
        intake="manual",
        state=State.ACCEPTED,
        attempt=1,
        accepted=now,
        updated=now,
        retry_at=None,
        last_error=None,
        outcome=None,
    )
