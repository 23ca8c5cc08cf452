"""`holdfast run`: the worker."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from handlers.contract import PlanName
from handlers.errors import HoldfastError
from handlers.tools.lock import Lock
from handlers.tools.removal import remove_tree
from worker.commands import session
from worker.commands.verify import VERIFY_LOCK, VERIFY_PREFIX

if TYPE_CHECKING:
    from worker.store_watch import StoreWatch
    from worker.stores.protocol import Store


def run(ctx: typer.Context) -> int:
    """Run the worker until SIGTERM or Ctrl-C: what runs is finished or handed back, then it ends.

    SIGHUP makes it read its configuration again; one with a problem changes nothing.
    """
    from worker import telemetry
    from worker.app import build, build_daemon

    loaded = session.load(ctx)
    telemetry.configure(loaded.settings.log.level, loaded.settings.log.format)
    with closing(build(loaded)) as app:
        daemon = build_daemon(app, lambda: session.read(ctx))

        def prepare() -> None:
            used = {plan.store.name for plan in app.configured.plans.values()}
            _sweep(app.stores, used, app.store_watch)
            _sweep_scratch(loaded.settings.state_dir)

        return daemon.run(prepare)


def _sweep(stores: Mapping[str, Store], used: Collection[str], watch: StoreWatch) -> None:
    from loguru import logger

    from worker.stores.protocol import StoreUnavailable

    for name, store in stores.items():
        try:
            removed = store.sweep()
        except StoreUnavailable as error:
            # It may be back before the first request needs it; until then a worker that has plans for it is not ready.
            if name in used:
                watch.failed(name, error)
            logger.warning("store_not_swept", store=name, error=str(error), next="swept at the next start")
        except HoldfastError as error:
            logger.warning("store_not_swept", store=name, error=str(error), next="swept at the next start")
        else:
            logger.info("store_swept", store=name, removed=removed)


def _sweep_scratch(state_dir: Path) -> None:
    """Remove what dead processes were working in: a restore on trial may have left a whole subject there.

    Where somebody works now, at the command line for instance, nothing is touched: the lock is held.
    """
    from worker.scheduler import plan_lock

    for leftover in sorted((state_dir / "scratch").iterdir()):
        if leftover.name.startswith(VERIFY_PREFIX):
            _remove_unless_held(leftover, leftover / VERIFY_LOCK)
        elif not leftover.name.startswith("."):
            _remove_unless_held(leftover, plan_lock(state_dir, PlanName(leftover.name)))


def _remove_unless_held(leftover: Path, lock_file: Path) -> None:
    from loguru import logger

    try:
        lock = Lock.try_hold(lock_file)
        if lock is not None:
            with lock:
                remove_tree(leftover)
    except OSError as error:
        logger.warning("scratch_not_swept", path=str(leftover), error=str(error), next="swept at the next start")
