"""`holdfast keep`: pin a set, so that it does not expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.commands import console, session
from worker.commands.options import BackupArgument, JsonOption

if TYPE_CHECKING:
    from worker.pins import Kept
    from worker.stores.protocol import Store

AsOption = Annotated[
    str, typer.Option("--as", metavar="NAME", help="The pin's name; `release` takes it. Once in each plan.")
]
WhyOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept with the pin.", show_default=False)
]


def keep(
    ctx: typer.Context, backup: BackupArgument, name: AsOption, reason: WhyOption = None, as_json: JsonOption = False
) -> int:
    """Keep a set and all that it builds on, whatever the retention rules say, until the name is released."""
    from handlers.tools.clock import system_clock
    from worker import pins
    from worker.app import open_catalog
    from worker.control import PlainControl
    from worker.requests import user

    control = PlainControl(session.cancel_on_signals())
    settings = session.load(ctx).settings
    catalog = open_catalog(settings)
    stored = catalog.find(backup)
    kept = pins.keep(
        catalog,
        stored,
        name,
        by=f"{user()}@{settings.node}",
        now=system_clock(),
        reason=reason,
        checkpoint=control.checkpoint,
    )
    if as_json:
        console.json_line(_document(kept, stored.store))
    else:
        _tell(kept, stored.store)
    return 0


def _document(kept: Kept, store: Store) -> dict[str, object]:
    pin = kept.pin
    return {
        "plan": pin.plan,
        "backup_id": pin.backup_id,
        "store": store.name,
        "pin": pin.name,
        "kept": pin.kept.isoformat(),
        "by": pin.by,
        "reason": pin.reason,
        "already": kept.already,
        "chain": [link.backup_id for link in kept.chain],
    }


def _tell(kept: Kept, store: Store) -> None:
    pin = kept.pin
    base = len(kept.chain) - 1
    what = f"{pin.plan}/{pin.backup_id} in {store.name} as {pin.name}"
    also = f", with the {console.many(base, 'set')} it builds on" if base else ""
    since = f", since {console.when(pin.kept)} by {pin.by}" if kept.already else ""
    word = console.paint("kept already" if kept.already else "kept", "good")
    console.out(f"{word}: {console.clean(what + also + since)}")
