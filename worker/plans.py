"""Turns the plans of the configuration into plans that can be run, finding every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import orjson
from pydantic import BaseModel, ValidationError

from config.hours import parse_hours
from config.load import Loaded
from config.problems import ConfigError, Origins, Problem, shown_path
from config.validation import problems_from_validation
from handlers import registry
from handlers.abilities import Gathering
from handlers.contract import Handler, PlanName
from handlers.errors import PermanentError
from worker.plan import Plan
from worker.stores.protocol import Store


def check(loaded: Loaded) -> Mapping[PlanName, tuple[Handler, BaseModel]]:
    """Each enabled plan's handler with its validated options; touches no store.

    Raises ConfigError with the problems of all plans, disabled ones included.
    """
    found: dict[PlanName, tuple[Handler, BaseModel]] = {}
    problems: list[Problem] = []
    for name, plan in loaded.settings.plans.items():
        checked = _check_one(name, plan.handler, dict(plan.options), loaded.origins)
        if isinstance(checked, list):
            problems += checked
            continue
        if not plan.retention.keeps_all and isinstance(checked[0], Gathering) and checked[0].may_lack_some(checked[1]):
            problems.append(_needs_all_sets(name, loaded.origins))
        if plan.enabled:
            found[PlanName(name)] = checked
    for handler in loaded.settings.handler_concurrency:
        try:
            registry.load(handler)
        except PermanentError as error:
            problems.append(_unknown_handler(("handler_concurrency", handler), handler, error, loaded.origins))
    if problems:
        raise ConfigError(problems)
    return MappingProxyType(found)


def with_plans(error: ConfigError) -> ConfigError:
    """The error together with the problems of the plans, as far as the tree that was read shows them."""
    plans = error.tree.get("plans") if isinstance(error.tree, dict) else None
    problems = list(error.problems)
    if isinstance(plans, dict) and error.origins is not None:
        for name, plan in plans.items():
            match plan:
                case {"handler": str(handler), **rest} if isinstance(options := rest.get("options", {}), dict):
                    checked = _check_one(str(name), handler, options, error.origins)
                    problems += checked if isinstance(checked, list) else []
    return ConfigError(problems, tree=error.tree, origins=error.origins)


def _check_one(
    name: str, handler_name: str, options: Mapping[str, object], origins: Origins
) -> tuple[Handler, BaseModel] | list[Problem]:
    try:
        handler = registry.load(handler_name)
    except PermanentError as error:
        return [_unknown_handler(("plans", name, "handler"), handler_name, error, origins)]
    try:
        # As JSON, like the rest of the configuration: only there is "4" no number and "/srv" a path.
        return handler, handler.Options.model_validate_json(orjson.dumps(options), strict=True)
    except ValidationError as error:
        return problems_from_validation(error, ("plans", name, "options"), origins, handler.Options)


def _unknown_handler(place: tuple[str, ...], name: str, error: PermanentError, origins: Origins) -> Problem:
    return Problem(
        path=shown_path(place),
        message="no such handler is installed",
        value=repr(name),
        hint=error.hint,
        where=origins.where(place),
    )


def _needs_all_sets(name: str, origins: Origins) -> Problem:
    place = ("plans", name, "retention")
    return Problem(
        path=shown_path(place),
        message="cannot be kept by a plan with several peers: a set holds those that had something new, and the last "
        "set of a peer that is silent would go",
        value=None,
        hint="make a plan for each peer, with its retention",
        where=origins.where(place),
    )


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
            levels=settings.levels,
            retention=settings.retention,
            on_unreadable=settings.on_unreadable,
            on_changed=settings.on_changed,
            labels=settings.labels,
            priority=settings.priority,
            hours=tuple(parse_hours(text) for text in settings.allowed_hours),
            limits=settings.limits,
        )
    return MappingProxyType(plans)
