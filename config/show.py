"""The effective settings, fit for other people's eyes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from config.secrets import MASK, looks_secret, without_userinfo
from config.settings import Settings


def show(settings: Settings) -> dict[str, Any]:
    """Every setting with its value, as JSON has it; secrets as `********`.

    In the `options` of plans, whose meaning only the handler knows, whatever has the name of a secret is masked too.
    """
    shown = settings.model_dump(mode="json")
    for plan in shown["plans"].values():
        plan["options"] = _masked(plan["options"])
    return shown


def _masked(value: JsonValue) -> JsonValue:
    match value:
        case Mapping():
            return {
                key: MASK if looks_secret(key) and inner is not None else _masked(inner) for key, inner in value.items()
            }
        case list():
            return [_masked(inner) for inner in value]
        case str():
            return without_userinfo(value)
        case _:
            return value
