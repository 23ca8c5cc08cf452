"""`holdfast run`: the worker."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

import typer

from handlers.errors import HoldfastError
from worker.commands import session

if TYPE_CHECKING:
    from worker.stores.protocol import Store


def run(ctx: typer.Context) -> int:
    """Run the worker until SIGTERM or Ctrl-C: what runs is finished or handed back, then it ends."""
    from worker import telemetry
    from worker.app import build, build_daemon

    loaded = session.load(ctx)
    telemetry.configure(loaded.settings.log.level, loaded.settings.log.format)
    with closing(build(loaded)) as app:
        daemon = build_daemon(app)
        _sweep(app.stores)
        return daemon.run()


def _sweep(stores: Mapping[str, Store]) -> None:
    from loguru import logger

    for name, store in stores.items():
        try:
            removed = store.sweep()
        except HoldfastError as error:
            # A store that is away now may be back before the first request needs it.
            logger.warning("store_not_swept", store=name, error=str(error), next="swept at the next start")
        else:
            logger.info("store_swept", store=name, removed=removed)
