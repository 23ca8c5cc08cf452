"""Settings that must fit each other."""

from __future__ import annotations

from collections.abc import Mapping

from config.problems import Origins, Report, did_you_mean, shown_value
from config.settings import Retry


def report_conflicts(tree: object, origins: Origins, report: Report) -> None:
    """Report what no key alone has wrong: unknown stores, plans that differ in case only, and the like.

    Looks at the tree as it was given, because the settings do not exist when any other key has a problem.
    """
    if not isinstance(tree, dict):
        return
    stores, plans, retry, indicators = (tree.get(key, {}) for key in ("stores", "plans", "retry", "indicators"))
    if isinstance(plans, dict) and isinstance(stores, dict):
        _stores_of_plans(plans, stores, origins, report)
    if isinstance(plans, dict) and isinstance(indicators, dict):
        _plans_of_indicators(indicators, plans, origins, report)
    for section, names in (("plans", plans), ("stores", stores), ("indicators", indicators)):
        if isinstance(names, dict):
            _names_alike(section, names, origins, report)
    if isinstance(retry, dict):
        _delays(retry, origins, report)


def _stores_of_plans(
    plans: Mapping[str, object], stores: Mapping[str, object], origins: Origins, report: Report
) -> None:
    if plans and not stores:
        hint = "a plan needs a store: stores: {main: {kind: local, path: /...}}"
        report.add(("stores",), "has no store in it", where=origins.where(("stores",)), hint=hint)
        return
    for name, plan in plans.items():
        if not isinstance(plan, dict):
            continue
        store = plan.get("store")
        location = ("plans", name, "store")
        if store is None and len(stores) > 1:
            hint = f"name one of {', '.join(sorted(stores))}"
            report.add(location, "is required when there are several stores", where=origins.where(location), hint=hint)
        elif isinstance(store, str) and store not in stores:
            nearest, value = did_you_mean(store, stores), shown_value(store)
            report.add(location, "names no store", where=origins.where(location), value=value, hint=nearest)


def _plans_of_indicators(
    indicators: Mapping[str, object], plans: Mapping[str, object], origins: Origins, report: Report
) -> None:
    for name, indicator in indicators.items():
        plan = indicator.get("plan") if isinstance(indicator, dict) else None
        if isinstance(plan, str) and "{" not in plan and plan not in plans:
            location = ("indicators", name, "plan")
            nearest, value = did_you_mean(plan, plans), shown_value(plan)
            report.add(location, "names no plan", where=origins.where(location), value=value, hint=nearest)


def _names_alike(section: str, names: Mapping[str, object], origins: Origins, report: Report) -> None:
    first: dict[str, str] = {}
    for name in names:
        twin = first.setdefault(name.casefold(), name)
        if twin != name:
            message = f"differs from {twin} in letter case only"
            hint = "people, some file systems and the environment cannot tell them apart"
            where = origins.where((section, name))
            report.add((section, name), message, where=where, hint=hint, silences=False)


def _delays(retry: Mapping[str, object], origins: Origins, report: Report) -> None:
    defaults = Retry()
    first = retry.get("first_delay_seconds", defaults.first_delay_seconds)
    longest = retry.get("max_delay_seconds", defaults.max_delay_seconds)
    if isinstance(first, int | float) and isinstance(longest, int | float) and first > longest:
        location = ("retry", "first_delay_seconds")
        message = f"is more than max_delay_seconds, which is {longest:g}"
        where = origins.where(location)
        report.add(location, message, where=where, value=shown_value(first), hint="raise the one or lower the other")
