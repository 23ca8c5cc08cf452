"""The arguments that several commands share, with their completion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from handlers.errors import HoldfastError


def complete_plan(ctx: typer.Context, incomplete: str) -> list[str]:
    """The plans of the configuration; none where it cannot be read, for nobody could read an error here."""
    from config.load import load
    from config.problems import ConfigError

    try:
        plans = load(_config_file(ctx)).settings.plans
    except ConfigError:
        return []
    return sorted(name for name in plans if name.startswith(incomplete))


def complete_backup(ctx: typer.Context, incomplete: str) -> list[str]:
    """Plans, then the ids of what is stored."""
    from config.load import load
    from config.problems import ConfigError
    from worker.app import open_stores

    try:
        settings = load(_config_file(ctx)).settings
        names = [name for store in open_stores(settings).values() for name in store.names()]
    except (ConfigError, HoldfastError):
        return complete_plan(ctx, incomplete)
    plans = sorted({*settings.plans, *(str(name.plan) for name in names)})
    return [text for text in [*plans, *sorted(name.backup_id for name in names)] if text.startswith(incomplete)]


def _config_file(ctx: typer.Context) -> Path | None:
    value = ctx.find_root().params.get("config")
    return Path(value) if value is not None else None


PlanArgument = Annotated[
    str, typer.Argument(metavar="PLAN", help="A plan of the configuration.", autocompletion=complete_plan)
]
OptionalPlanArgument = Annotated[
    str | None, typer.Argument(metavar="[PLAN]", help="Only this plan.", autocompletion=complete_plan)
]
BackupArgument = Annotated[
    str,
    typer.Argument(
        metavar="BACKUP",
        help="A backup id, the start of one, PLAN/ID, or a plan: its newest set.",
        autocompletion=complete_backup,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for scripts, one object on each line.")]
LevelOption = Annotated[str, typer.Option("--level", metavar="LEVEL", help="auto, full, incremental, or a number.")]
ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; kept in the manifest.", show_default=False)
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="NAME=VALUE", help="Kept in the manifest and in events; may be repeated."),
]
OrphansOption = Annotated[bool, typer.Option("--orphans", help="What plans left that are configured no more.")]
