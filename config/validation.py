"""What pydantic has to say, in words that an operator can use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from config.document import ScalarRefused, plain_scalar
from config.fields import hidden, known_keys, lookup
from config.problems import Location, Origins, Problem, Report, did_you_mean, shown_value
from config.secrets import MASK

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_WORDS: Final[Mapping[str, tuple[str, str | None]]] = {
    "missing": ("is required", None),
    "extra_forbidden": ("is an unknown key", None),
    "string_type": ("must be text", None),
    "path_type": ("must be a path", None),
    "int_type": ("must be a whole number", None),
    "int_from_float": ("must be a whole number", None),
    "int_parsing_size": ("is too large a number", None),
    "float_type": ("must be a number", None),
    "finite_number": ("must be a finite number", None),
    "bool_type": ("must be true or false", None),
    "dict_type": ("must be a mapping", "write {} for an empty one, or remove the key"),
    "model_type": ("must be a mapping", "remove the key to have the defaults"),
    "model_attributes_type": ("must be a mapping", "remove the key to have the defaults"),
    "tuple_type": ("must be a list", 'write it as ["a", "b"]'),
    "list_type": ("must be a list", 'write it as ["a", "b"]'),
    "greater_than_equal": ("must be at least {ge}", None),
    "greater_than": ("must be more than {gt}", None),
    "less_than_equal": ("must be at most {le}", None),
    "less_than": ("must be less than {lt}", None),
    "literal_error": ("must be one of {expected}", None),
    "union_tag_invalid": ("must be one of {expected_tags}", None),
    "union_tag_not_found": ("needs {discriminator}", None),
    "string_too_short": ("must have at least {min_length} characters", None),
    "string_too_long": ("must have at most {max_length} characters", None),
    "too_short": ("must have at least {min_length} items", None),
    "too_long": ("must have at most {max_length} items", None),
}
_BOOLS_OF_OLD: Final = frozenset({"yes", "no", "on", "off", "y", "n"})
_NAME_HINT: Final = (
    "letters, digits, . _ and -, at most 63 of them; it begins with a letter or digit, it does not end with a dot"
)


def problems_from_validation(
    error: ValidationError, prefix: Location, origins: Origins, model: type[BaseModel]
) -> list[Problem]:
    """The problems behind the error of validating `model`, whose keys lie below `prefix` in the tree.

    Values of secrets, and of what looks like one, are not in them.
    """
    report = Report()
    report_validation(error, prefix, origins, model, report)
    return list(report.problems)


def report_validation(
    error: ValidationError, prefix: Location, origins: Origins, model: type[BaseModel], report: Report
) -> None:
    """Add what `problems_from_validation` describes to a report, without what that has silenced."""
    for details in error.errors(include_url=False):
        inner = _location(details["loc"], prefix, origins)
        message, hint = _words(details, inner, model)
        shown = None
        if details["type"] != "missing":
            secret = hidden(model, inner)
            shown = shown_value(details["input"], hidden=secret)
            if secret and isinstance(details["input"], str) and details["input"]:
                message = message.replace(details["input"], MASK)
        location = (*prefix, *inner)
        report.add(location, message, where=origins.where(location), value=shown, hint=hint)


def _location(loc: Location, prefix: Location, origins: Origins) -> Location:
    """The location without what pydantic adds: `[key]` after a refused key, the tags of unions."""
    steps = loc[:-1] if loc and loc[-1] == "[key]" else loc
    location: Location = ()
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        if last or isinstance(step, int) or (*prefix, *location, step) in origins:
            location = (*location, step)
    return location


def _words(details: ErrorDetails, location: Location, model: type[BaseModel]) -> tuple[str, str | None]:
    kind, context = details["type"], details.get("ctx", {})
    if details["loc"] and details["loc"][-1] == "[key]":
        return "is no name", _NAME_HINT
    if kind == "string_pattern_mismatch":
        return "has characters that it must not have", _NAME_HINT if "{0,61}" in context["pattern"] else None
    if kind == "setting":
        return context["message"], context.get("hint")
    if kind in ("value_error", "assertion_error"):
        message, _, reason = str(context.get("error", details["msg"])).partition("\nhint: ")
        return message, reason or None
    if not details["loc"] and kind in ("model_type", "model_attributes_type"):
        return "must be a mapping", "write settings as lines of name: value"
    message, hint = _WORDS.get(kind, (details["msg"][:1].lower() + details["msg"][1:], None))
    if kind == "extra_forbidden":
        hint = did_you_mean(str(location[-1]), known_keys(lookup(model, location[:-1])))
    elif hint is None:
        hint = _quotes_hint(kind, details["input"])
    return message.format_map(_Plain(context)), hint


def _quotes_hint(kind: str, given: object) -> str | None:
    """What quotes have to do with a value of the wrong type, if they have."""
    if kind == "string_type" and isinstance(given, bool | int | float):
        return "put it in quotes"
    if kind not in ("int_type", "float_type", "bool_type") or not isinstance(given, str):
        return None
    if kind == "bool_type" and given.lower() in _BOOLS_OF_OLD:
        return "these words are text in YAML 1.2: write true or false"
    try:
        return None if isinstance(plain_scalar(given), str) else "remove the quotes"
    except ScalarRefused:
        return None


class _Plain(dict[str, Any]):
    """Template values; numbers without a needless `.0`."""

    def __getitem__(self, key: str) -> object:
        value = super().__getitem__(key)
        return int(value) if isinstance(value, float) and value.is_integer() else value
