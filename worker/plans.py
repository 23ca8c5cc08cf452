"""Turns the plans of the configuration into plans that can be run, finding every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import orjson
from pydantic import BaseModel, ValidationError

from config.load import Loaded
from config.problems import ConfigError, Problem
from handlers import registry
from handlers.contract import Handler, PlanName
from handlers.errors import PermanentError
from worker.steps import Plan
from worker.stores.protocol import Store


def check(loaded: Loaded) -> Mapping[PlanName, tuple[Handler, BaseModel]]:
    """Each enabled plan's handler with its validated options; touches no store.

    Raises ConfigError with the problems of all plans, disabled ones included.
    """
    found: dict[PlanName, tuple[Handler, BaseModel]] = {}
    problems: list[Problem] = []
    for name, plan in loaded.settings.plans.items():
        try:
            handler = registry.load(plan.handler)
        except PermanentError as error:
            problems.append(
                Problem(
                    path=f"plans.{name}.handler",
                    message="no such handler is installed",
                    value=repr(plan.handler),
                    hint=error.hint,
                    where=loaded.locate("plans", name, "handler"),
                )
            )
            continue
        try:
            # As JSON, like the rest of the configuration: only there is "4" no number and "/srv" a path.
            options = handler.Options.model_validate_json(orjson.dumps(dict(plan.options)), strict=True)
        except ValidationError as error:
            problems += loaded.problems(error, ("plans", name, "options"), handler.Options)
            continue
        if plan.enabled:
            found[PlanName(name)] = handler, options
    if problems:
        raise ConfigError(problems)
    return MappingProxyType(found)


def build(loaded: Loaded, stores: Mapping[str, Store]) -> Mapping[PlanName, Plan]:
    """The enabled plans, ready to run. Raises ConfigError like `check`."""
    plans: dict[PlanName, Plan] = {}
    for name, (handler, options) in check(loaded).items():
        settings = loaded.settings.plans[name]
        store, _ = loaded.settings.store_of(name)
        plans[name] = Plan(
            name=name,
            handler=handler,
            options=options,
            store=stores[store],
            verify=settings.verify,
            max_level=settings.max_level,
            labels=settings.labels,
        )
    return MappingProxyType(plans)
