"""Puts the worker together: from settings to parts that know only each other's promises.

Alone in naming concrete adapters. What only a daemon needs (brokers, file events) is imported when a daemon is built,
so that the command line starts fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from zoneinfo import ZoneInfo

from tzlocal import get_localzone

from config.load import Loaded
from config.settings import LocalStore as LocalStoreSettings
from config.settings import Settings
from handlers.contract import PlanName
from handlers.errors import PermanentError
from handlers.tools.clock import Clock, system_clock
from worker import plans
from worker.announcer import Announcer, EventSink
from worker.catalog import Catalog
from worker.disposition import RetryPolicy
from worker.identity import state_id
from worker.intake.delivery import Intake
from worker.intake.held import HeldDeliveries
from worker.intake.wire import RequestId
from worker.journal.protocol import Entry, Journal
from worker.journal.sqlite import SqliteJournal
from worker.lease import Leases
from worker.lifecycle import State
from worker.outbox import EventWatcher, Outbox
from worker.pipeline import Configured, Pipeline, Rules
from worker.plan import Plan, Surroundings
from worker.scheduler import Scheduler, Slots
from worker.store_watch import StoreWatch
from worker.stores.local import LocalStore
from worker.stores.protocol import Store

if TYPE_CHECKING:
    from worker.daemon import Daemon

JOURNAL = "journal.sqlite3"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A worker's parts, wired; close it to let go of the journal and of connections."""

    settings: Settings
    clock: Clock
    journal: Journal
    stores: Mapping[str, Store]
    store_watch: StoreWatch
    configured: Configured
    """What the pipeline began with; a reload gives it another one."""
    outbox: Outbox
    announcer: Announcer
    pipeline: Pipeline
    held: HeldDeliveries | None

    def close(self) -> None:
        """Let go; the parts are not to be used any more."""
        self.announcer.close()
        self.journal.close()


def open_stores(settings: Settings) -> Mapping[str, Store]:
    """The configured stores by name; none is touched yet."""
    return {name: _store(name, store) for name, store in settings.stores.items()}


def open_catalog(settings: Settings) -> Catalog:
    """What is stored: all that `list`, `show`, `restore` and `verify` need; no journal, no state directory."""
    return Catalog(open_stores(settings), homes(settings))


def homes(settings: Settings) -> Mapping[str, str]:
    """The store that each plan writes to, by name."""
    return {plan: settings.store_of(plan)[0] for plan in settings.plans}


def open_journal(settings: Settings) -> Journal | None:
    """The journal to look at, None where no worker has made one yet; nothing is created."""
    path = settings.state_dir / JOURNAL
    return SqliteJournal(path) if path.exists() else None


def build(loaded: Loaded, *, clock: Clock = system_clock, attended: bool = False) -> App:
    """The parts that work on requests. Creates the state directory where it is missing.

    `attended` says that somebody waits: then a store that is away fails soon.

    Raises ConfigError with every problem of the plans, PermanentError where the state directory cannot be used.
    """
    settings = loaded.settings
    stores = open_stores(settings)
    found = plans.build(loaded, stores)
    journal = _open_journal(settings.state_dir)
    held = HeldDeliveries() if settings.settle == "announced" else None
    sinks = _sinks(settings)
    announcer = Announcer(journal, sinks, clock, partial(_settle_announced, journal, held))
    outbox = Outbox(
        journal=journal,
        sinks=tuple(name for name in sinks if name != "reply"),
        node=settings.node,
        clock=clock,
        wake=announcer.wake,
    )
    watch = StoreWatch(clock, **rests(settings))
    leases = Leases(node=settings.node, state=state_id(settings.state_dir), lease_seconds=settings.lease_seconds)
    rules = _configured(loaded, stores, found, clock, leases)
    if attended:
        rules = replace(rules, rules=replace(rules.rules, retry=replace(rules.rules.retry, patience=timedelta())))
    return App(
        settings=settings,
        clock=clock,
        journal=journal,
        stores=stores,
        store_watch=watch,
        configured=rules,
        outbox=outbox,
        announcer=announcer,
        pipeline=Pipeline(rules, journal=journal, outbox=outbox, stores=watch, held=held),
        held=held,
    )


def configured(loaded: Loaded, app: App) -> Configured:
    """What a configuration that was read later has to say about requests. Raises ConfigError like `build`."""
    stores = open_stores(loaded.settings)
    new = _configured(loaded, stores, plans.build(loaded, stores), app.clock, app.configured.around.leases)
    # The node's name and the state directory are those that the worker began with, whatever the file says now.
    begun_with = app.configured.around
    return replace(new, around=replace(new.around, node=begun_with.node, scratch=begun_with.scratch))


def _configured(
    loaded: Loaded, stores: Mapping[str, Store], found: Mapping[PlanName, Plan], clock: Clock, leases: Leases
) -> Configured:
    settings = loaded.settings
    retry = RetryPolicy(
        attempts=settings.retry.attempts,
        first_delay=timedelta(seconds=settings.retry.first_delay_seconds),
        max_delay=timedelta(seconds=settings.retry.max_delay_seconds),
        patience=timedelta(seconds=settings.retry.patience_seconds),
    )
    around = Surroundings(
        catalog=Catalog(stores, homes(settings)),
        node=settings.node,
        scratch=settings.state_dir / "scratch",
        config_digest=loaded.digest,
        clock=clock,
        leases=leases,
        zone=zone_of(settings),
    )
    allowed = settings.queue.reply_to_allowed if settings.queue else ()
    return Configured(plans=found, rules=Rules(retry=retry, reply_to_allowed=allowed), around=around)


class Rests(TypedDict):
    """How long a store that is away is left alone."""

    first_rest: timedelta
    longest_rest: timedelta


def rests(settings: Settings) -> Rests:
    """As long as a request waits for its next try."""
    return Rests(
        first_rest=timedelta(seconds=settings.retry.first_delay_seconds),
        longest_rest=timedelta(seconds=settings.retry.max_delay_seconds),
    )


def slots(settings: Settings) -> Slots:
    """How much a worker does at once."""
    return Slots(
        concurrency=settings.concurrency,
        handlers=settings.handler_concurrency,
        max_accepted=settings.max_accepted,
        accept_ahead=settings.accept_ahead,
        zone=zone_of(settings),
    )


def build_daemon(app: App, load: Callable[[], Loaded]) -> Daemon:
    """The worker that `holdfast run` runs; `load` reads the configuration again when it is told to.

    Raises PermanentError where no intake is configured.
    """
    from worker.daemon import Daemon
    from worker.health import HealthFile
    from worker.reload import Reload

    settings = app.settings
    intakes = _intakes(settings, app.journal, app.pipeline)
    if not intakes:
        raise PermanentError(
            "no intake is configured: nobody could ask this worker for anything",
            hint="set spool.enabled, or configure queue.url or indicators",
        )
    daemon: Daemon | None = None

    def on_room() -> None:
        if daemon is not None:
            daemon.on_room()

    def on_bug(error: BaseException) -> None:
        if daemon is not None:
            daemon.on_bug(error)

    scheduler = Scheduler(
        journal=app.journal,
        pipeline=app.pipeline,
        state_dir=settings.state_dir,
        clock=app.clock,
        slots=slots(settings),
        plans=app.configured.plans,
        stores=app.store_watch,
        watcher=partial(_watcher, app),
        on_room=on_room,
        on_bug=on_bug,
    )
    daemon = Daemon(
        pipeline=app.pipeline,
        scheduler=scheduler,
        announcer=app.announcer,
        intakes=intakes,
        held=app.held,
        drain=timedelta(seconds=settings.drain_seconds),
        is_announced=partial(_is_announced, app.journal),
        forget=lambda: app.journal.prune(app.clock() - timedelta(days=settings.keep_requests_days)),
        health=HealthFile(settings.state_dir, settings.node, app.clock()),
        store_watch=app.store_watch,
        reload=Reload(load, app, scheduler).reload,
    )
    return daemon


def _watcher(app: App, _: Entry) -> EventWatcher:
    return EventWatcher(app.outbox, period_seconds=app.settings.progress_seconds)


def _settle_announced(journal: Journal, held: HeldDeliveries | None, request_id: RequestId) -> None:
    if held is not None and _is_announced(journal, request_id):
        held.settle(request_id)


def _is_announced(journal: Journal, request_id: RequestId) -> bool:
    """Also where the journal has forgotten the request, which it does only after that."""
    entry = journal.entry(request_id)
    return entry is None or entry.state is State.ANNOUNCED


def zone_of(settings: Settings) -> tzinfo:
    """The time zone that the plans' hours are told in. Raises PermanentError where the machine's own is unknown."""
    if settings.time_zone is not None:
        return ZoneInfo(settings.time_zone)
    try:
        return get_localzone()
    except (ValueError, KeyError, OSError) as error:
        raise PermanentError(
            f"the time zone of this machine is unknown: {error}", hint="set time_zone, for instance to UTC"
        ) from error


def _open_journal(state_dir: Path) -> Journal:
    try:
        for directory in (state_dir, state_dir / "locks", state_dir / "scratch"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PermanentError(
            f"state directory {state_dir} cannot be made: {error.strerror}",
            hint="set state_dir to a directory that this user may write and that survives a restart",
        ) from error
    return SqliteJournal(state_dir / JOURNAL)


def _store(name: str, store: LocalStoreSettings) -> Store:
    return LocalStore(name, store.path)


def _sinks(settings: Settings) -> dict[str, EventSink]:
    sinks: dict[str, EventSink] = {}
    if settings.spool.enabled:
        from worker.spool_events import SpoolEvents

        sinks["spool"] = SpoolEvents(settings.spool_path, keep_events_days=settings.spool.keep_events_days)
    if settings.queue is not None:
        from worker.broker.publisher import BrokerPublisher, QueueEvents, ReplyEvents

        publisher = BrokerPublisher(settings.queue)
        sinks["queue"] = QueueEvents(publisher)
        sinks["reply"] = ReplyEvents(publisher)
    return sinks


def _intakes(settings: Settings, journal: Journal, pipeline: Pipeline) -> Sequence[Intake]:
    intakes: list[Intake] = []
    if settings.spool.enabled:
        from worker.intake.spool import SpoolIntake

        intakes.append(
            SpoolIntake(
                settings.spool_path,
                worker=settings.node,
                scan_seconds=settings.spool.scan_seconds,
                keep_done_days=settings.spool.keep_done_days,
                max_request_bytes=settings.spool.max_request_bytes,
            )
        )
    if settings.queue is not None:
        from worker.intake.queue import QueueIntake

        intakes.append(
            QueueIntake(settings.queue, node=settings.node, settle=settings.settle, concurrency=settings.concurrency)
        )
    if settings.indicators:
        from handlers.abilities import Acknowledging
        from worker.intake.indicators import IndicatorIntake

        def told_by_handler(name: str) -> bool:
            plan = pipeline.plan(PlanName(name))
            return plan is not None and isinstance(plan.handler, Acknowledging)

        for name, indicators in settings.indicators.items():
            intakes.append(IndicatorIntake(name, indicators, entry=journal.entry, told_by_handler=told_by_handler))
    return intakes
