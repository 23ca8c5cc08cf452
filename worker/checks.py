"""Looks for what would keep this worker from working, one named check after the other.

Every check says what it saw; none changes anything but a probe that it removes again.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from config.load import Loaded
from config.problems import ConfigError
from config.settings import Settings
from handlers.errors import HoldfastError
from handlers.tools.codecs import Codec
from handlers.tools.tar import program as tar
from handlers.tools.tar import reach as tar_reach
from handlers.tools.tar.engine import Internal, engine, has_gnu_tar
from handlers.tools.tar.options import TarOptions
from worker import plans
from worker.app import open_catalog, open_journal, open_stores
from worker.catalog import Damaged, StoredSet
from worker.intake.indicator_survey import survey
from worker.intake.spool_dirs import SpoolDirectories
from worker.mounts import file_system, is_network
from worker.overview import is_held
from worker.stores.protocol import SetName, Store
from worker.verified import damaged

LITTLE_ROOM_BYTES = 1 << 30
CLOCK_SLACK = timedelta(minutes=5)

_OWN_PACKAGES = ("config", "handlers", "worker")


class Verdict(StrEnum):
    """How a check ended."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    verdict: Verdict
    message: str
    hint: str | None = None


def all_checks(load: Callable[[], Loaded]) -> Iterator[Check]:
    """Every check, as each is done; with a configuration that cannot be used only those that need none."""
    yield _packages()
    yield _tar()
    yield from _reach()
    yield _codecs()
    try:
        loaded = load()
        plans.check(loaded)
    except ConfigError as error:
        yield Check(
            name="configuration",
            verdict=Verdict.FAIL,
            message=str(error),
            hint="the other checks need a configuration without problems",
        )
        return
    settings = loaded.settings
    yield _ok("configuration", f"{loaded.file or 'no file'}, digest {loaded.digest[:12]}")
    yield _state_dir(settings)
    yield _file_system(settings)
    yield _journal(settings)
    if settings.spool.enabled:
        yield _spool(settings)
    yield from _stores(settings)
    yield from _plans(loaded)
    if settings.queue is not None:
        yield _broker(settings)
    yield from _indicators(settings)
    if not settings.spool.enabled and settings.queue is None and not settings.indicators:
        yield Check(
            name="intake",
            verdict=Verdict.WARN,
            message="neither spool nor queue nor indicators: `holdfast run` has nothing to listen to",
            hint="set spool.enabled, or configure queue.url or indicators",
        )


def _ok(name: str, message: str) -> Check:
    return Check(name=name, verdict=Verdict.OK, message=message)


def _fail(name: str, error: HoldfastError) -> Check:
    return Check(name=name, verdict=Verdict.FAIL, message=error.message, hint=error.hint)


def _packages() -> Check:
    owners = importlib.metadata.packages_distributions()
    strangers = {
        package: sorted(set(owners.get(package, [])) - {"holdfast"})
        for package in _OWN_PACKAGES
        if set(owners.get(package, [])) - {"holdfast"}
    }
    if strangers:
        named = "; ".join(f"{package} also belongs to {', '.join(others)}" for package, others in strangers.items())
        return Check(
            name="packages", verdict=Verdict.FAIL, message=named, hint="install holdfast in an environment of its own"
        )
    return _ok("packages", f"{', '.join(_OWN_PACKAGES)} belong to holdfast alone")


def _tar() -> Check:
    try:
        version = tar.version()
    except HoldfastError as error:
        return Check(name="tar", verdict=Verdict.WARN, message=error.message, hint=error.hint)
    return _ok("tar", f"GNU tar {version}, {shutil.which(tar.PROGRAM)}")


def _reach() -> Iterator[Check]:
    if not has_gnu_tar():
        return
    if tar_reach.is_held(tar.PROGRAM):
        yield _ok("tar's reach", "tar can open nothing but the subject")
    else:
        yield Check(
            name="tar's reach",
            verdict=Verdict.WARN,
            message="whoever may write to a subject can have tar archive what is outside of it",
            hint="it takes Landlock (Linux 5.13 or later), and a tar that is no script and has no rights of its own",
        )


def _codecs() -> Check:
    """The programs that a restore without Holdfast takes; ours does without them."""
    there = {codec.value: shutil.which(codec) is not None for codec in Codec if codec is not Codec.NONE}
    found, missing = ([name for name, is_there in there.items() if is_there is wanted] for wanted in (True, False))
    message = f"for a restore by hand: {', '.join(found) or 'none'}"
    return _ok("codecs", f"{message}; not here: {', '.join(missing)}" if missing else message)


def _state_dir(settings: Settings) -> Check:
    path = settings.state_dir
    # Before its first start a worker has none: what counts then is whether it can be made.
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Check(
            name="state directory",
            verdict=Verdict.FAIL,
            message=f"{existing} is not writable by uid {os.geteuid()}",
            hint="give it to the user that runs holdfast, or set state_dir",
        )
    free = shutil.disk_usage(existing).free
    message = f"{path}, {_size(free)} free" + ("" if existing == path else "; made by the first start")
    if free < LITTLE_ROOM_BYTES:
        return Check(name="state directory", verdict=Verdict.WARN, message=message, hint="levels need room for scratch")
    return _ok("state directory", message)


def _file_system(settings: Settings) -> Check:
    path = settings.state_dir
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    kind = file_system(existing)
    if is_network(kind):
        return Check(
            name="file system",
            verdict=Verdict.WARN,
            message=f"state_dir is on {kind}: SQLite's write-ahead log needs a local disk",
            hint="put state_dir on a disk of this host",
        )
    return _ok("file system", f"state_dir is on {kind or 'an unknown file system'}")


def _journal(settings: Settings) -> Check:
    try:
        journal = open_journal(settings)
    except HoldfastError as error:
        return _fail("journal", error)
    if journal is None:
        return _ok("journal", "none yet; made by the first start")
    try:
        unfinished = journal.unfinished()
        unsent = len(journal.outbox(limit=1000))
    except HoldfastError as error:
        return _fail("journal", error)
    finally:
        journal.close()
    return _ok("journal", f"{unfinished} unfinished requests, {unsent} unsent events")


def _spool(settings: Settings) -> Check:
    path = settings.spool_path
    if not path.exists():
        return _ok("spool", f"{path}: made by the first start")
    directories = SpoolDirectories(path)
    if not directories.complete:
        return Check(
            name="spool",
            verdict=Verdict.WARN,
            message=f"{path} lacks some of its directories",
            hint="the next start of the worker makes them",
        )
    closed = [
        directory.name
        for directory in (directories.tmp, directories.new, directories.cur, directories.done, directories.events)
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK)
    ]
    if closed:
        return Check(
            name="spool",
            verdict=Verdict.FAIL,
            message=f"{path}: uid {os.geteuid()} may not use {', '.join(closed)}",
            hint="the spool belongs to the user that runs holdfast; producers join its group",
        )
    waiting = len(list(directories.new.iterdir()))
    refused = sum(1 for file in directories.failed.iterdir() if file.suffix != ".reason")
    message = f"{path}: {waiting} wait, {refused} were refused"
    if refused:
        return Check(
            name="spool", verdict=Verdict.WARN, message=message, hint=f"look into {directories.failed}, then clear it"
        )
    return _ok("spool", message)


def _stores(settings: Settings) -> Iterator[Check]:
    catalog = open_catalog(settings)
    for name, store in open_stores(settings).items():
        try:
            store.check()
            free = store.free_bytes()
            found = list(catalog.look(store))
            rotten = _rotten(store, found)
        except HoldfastError as error:
            yield _fail(f"store {name}", error)
            continue
        sets = [item for item in found if isinstance(item, StoredSet)]
        room = f", {_size(free)} free" if free is not None else ""
        little = free is not None and free < LITTLE_ROOM_BYTES
        yield Check(
            name=f"store {name}",
            verdict=Verdict.WARN if little else Verdict.OK,
            message=f"writes and reads back, {len(sets)} sets{room}",
            hint="make room" if little else None,
        )
        if len(sets) != len(found):
            yield Check(
                name=f"manifests in {name}",
                verdict=Verdict.FAIL,
                message=f"{len(found) - len(sets)} cannot be read",
                hint="`holdfast list` names them",
            )
        if rotten:
            yield Check(
                name=f"damage in {name}",
                verdict=Verdict.FAIL,
                message=f"{len(rotten)} sets were found damaged: {', '.join(rotten[:3])}",
                hint="the next backup of such a plan is a full one; `holdfast verify PLAN --all` looks again",
            )
        yield _clock(name, sets)
        yield _drafts(name, settings.stores[name].path)


def _rotten(store: Store, found: Sequence[StoredSet | Damaged]) -> Sequence[str]:
    """The sets that a verification has found damaged."""
    there = {item.name for item in found}
    plans = {name.plan for name in there}
    known = {SetName(plan=plan, backup_id=each) for plan in plans for each in damaged(store, plan)}
    return sorted(map(str, known & there))


def _clock(store: str, sets: Sequence[StoredSet]) -> Check:
    now = datetime.now(UTC)
    ahead = [stored for stored in sets if stored.manifest.finished > now + CLOCK_SLACK]
    if ahead:
        return Check(
            name=f"clock and {store}",
            verdict=Verdict.WARN,
            message=f"set {ahead[0].name} was finished in the future: {ahead[0].manifest.finished:%Y-%m-%d %H:%M} UTC",
            hint="compare this host's clock with that of the host that made it",
        )
    return _ok(f"clock and {store}", "no set is from the future")


def _drafts(store: str, path: Path) -> Check:
    drafts = path / ".holdfast" / "drafts"
    try:
        owners = [entry for entry in drafts.iterdir() if entry.is_file()]
    except OSError:
        owners = []
    dead = [owner for owner in owners if not is_held(owner)]
    if dead:
        return Check(
            name=f"drafts in {store}",
            verdict=Verdict.WARN,
            message=f"{len(dead)} are left of workers that died",
            hint="the next start of the worker removes them",
        )
    return _ok(f"drafts in {store}", f"{len(owners)} being written" if owners else "none")


def _plans(loaded: Loaded) -> Iterator[Check]:
    for name, (handler, options) in plans.check(loaded).items():
        try:
            problems = list(handler.check(options))
        except HoldfastError as error:
            yield _fail(f"plan {name}", error)
            continue
        if problems:
            yield Check(name=f"plan {name}", verdict=Verdict.FAIL, message="; ".join(problems))
        else:
            yield _ok(f"plan {name}", handler.subject(options))
        if isinstance(options, TarOptions):
            yield _engine(name, options)


def _engine(plan: str, options: TarOptions) -> Check:
    name = f"tar engine of plan {plan}"
    try:
        found = engine(options.engine)
    except HoldfastError as error:
        return _fail(name, error)
    if isinstance(found, Internal) and options.engine == "auto":
        return Check(name=name, verdict=Verdict.WARN, message=str(found), hint=f"for more levels {tar.HINT}")
    return _ok(name, str(found))


def _broker(settings: Settings) -> Check:
    from worker.broker.publisher import ping

    assert settings.queue is not None
    try:
        seen = ping(settings.queue)
    except HoldfastError as error:
        return _fail("broker", error)
    message = f"{seen.product} {seen.version} at {seen.address}, queue {seen.queue}: "
    message += "not there yet" if seen.ready is None else f"{seen.ready} wait"
    message += f", {seen.consumers} consumers" if seen.consumers is not None else ""
    if seen.dead:
        return Check(
            name="broker",
            verdict=Verdict.WARN,
            message=f"{message}, {seen.dead} dead letters",
            hint="somebody sent what is no request, or is not allowed: look into the dead letter queue",
        )
    return _ok("broker", message)


def _indicators(settings: Settings) -> Iterator[Check]:
    enabled = {name for name, plan in settings.plans.items() if plan.enabled}
    for name, message, hint in survey(settings.indicators, enabled):
        verdict = Verdict.OK if hint is None else Verdict.WARN
        yield Check(name=f"indicators {name}", verdict=verdict, message=message, hint=hint)


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
