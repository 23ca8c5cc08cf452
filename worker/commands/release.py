"""`holdfast release`: take a pin away, so that its set may expire again."""

from __future__ import annotations

from typing import Annotated

import typer

from worker.commands import console, session
from worker.commands.options import JsonOption, complete_plan


def complete_pin(ctx: typer.Context, incomplete: str) -> list[str]:
    """The pins, with their plans; none where nobody can tell."""
    from config.load import load
    from config.problems import ConfigError
    from handlers.errors import HoldfastError
    from worker.app import open_stores
    from worker.pins import all_pins

    try:
        stores = open_stores(load(ctx.find_root().params.get("config")).settings)
        names = {f"{pin.plan}/{pin.name}" for store in stores.values() for pin in all_pins(store)}
    except (ConfigError, HoldfastError):
        return []
    return sorted(name for name in names if name.startswith(incomplete))


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="What `keep --as` named, or PLAN/NAME.", autocompletion=complete_pin)
]
PlanOption = Annotated[
    str | None,
    typer.Option("--plan", metavar="PLAN", help="The plan whose pin it is.", autocompletion=complete_plan),
]


def release(ctx: typer.Context, name: NameArgument, plan: PlanOption = None, as_json: JsonOption = False) -> int:
    """Let go of what `keep` holds under a name; nothing is removed by this, the next expiry may do it."""
    from handlers.contract import PlanName
    from worker import pins
    from worker.app import open_stores

    before, slash, short = name.rpartition("/")
    if slash and plan not in {None, before}:
        raise session.Usage(f"{name!r} is no pin of plan {plan}", hint="write PLAN/NAME, or NAME with --plan PLAN")
    wanted = before if slash else plan
    stores = open_stores(session.load(ctx).settings)
    places = pins.places(stores.values(), short, None if wanted is None else PlanName(wanted))
    plans = sorted({of for _, of in places})
    if len(plans) > 1:
        raise session.Usage(
            f"{len(plans)} plans have a pin {short!r}", hint=f"say which: {', '.join(f'{of}/{short}' for of in plans)}"
        )
    for store, of in places:
        pins.release(store, of, short)
        if as_json:
            console.json_line({"plan": of, "pin": short, "store": store.name})
        else:
            console.out(f"released: {console.clean(f'{of}/{short} in {store.name}')}")
    return 0
