"""The settings that environment variables and flags give."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from config.document import read_document, unusable_text
from config.fields import child, hidden, is_mapping, known_keys, lookup, models, wants_text
from config.layers import Layer
from config.problems import Location, Origins, Report, closest, did_you_mean, shown_value
from config.secrets import looks_secret

PREFIX: Final = "HOLDFAST_"
CONFIG_VARIABLE: Final = "HOLDFAST_CONFIG"
"""Names the configuration file; it is no setting."""

COMMAND_LINE: Final = "command line"

_TEST_PREFIX: Final = "HOLDFAST_TEST_"
_SEPARATOR: Final = "__"
_SERVICE_LINK: Final = re.compile(r"HOLDFAST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""What Kubernetes puts into each container of a namespace with a Service called holdfast or holdfast-x."""


def from_environment(environ: Mapping[str, str], model: object, below: object, report: Report) -> Layer:
    """The layer of the `HOLDFAST_*` variables; `HOLDFAST_QUEUE__URL` is `queue.url`, in any letter case.

    Text settings take the variable as it is, others read it as YAML. A name in a mapping such as `plans` is matched
    with what `below` (the tree of the file) has, whatever the case; a new one is in lower case. Names that mean
    nothing are problems, except `HOLDFAST_CONFIG`, `HOLDFAST_TEST_*` and the service links of Kubernetes.
    """
    tree: dict[str, object] = {}
    origins = Origins("environment")
    taken: dict[Location, str] = {}
    names = [name for name in environ if name.upper().startswith(PREFIX)]
    # Short names first: HOLDFAST_QUEUE='{...}' is the ground that HOLDFAST_QUEUE__URL builds on.
    for name in sorted(names, key=lambda name: (name.count(_SEPARATOR), name)):
        upper = name.upper()
        if upper == CONFIG_VARIABLE or upper.startswith(_TEST_PREFIX):
            continue
        if reason := unusable_text(name):
            report.add((ascii(name),), f"is a name that {reason}", where=ascii(name), silences=False)
            continue
        location = _location(upper.removeprefix(PREFIX).lower().split(_SEPARATOR), model, below)
        annotation = lookup(model, location) if all(location) else None
        if annotation is None:
            if not _SERVICE_LINK.fullmatch(upper):
                _refuse_name(name, environ[name], location, model, report)
        elif location in taken:
            report.add(location, f"is given twice: also as {taken[location]}", where=name, silences=False)
        else:
            taken[location] = name
            value = _read(environ[name], annotation, location, name, origins, report)
            _put(tree, location, value, origins, name)
    return Layer(tree=tree, origins=origins)


def from_flags(flags: Mapping[str, object], model: object, report: Report) -> Layer:
    """The layer of the command line: dotted paths with values, None for a flag that was not given.

    Text is read like that of a variable; other values are taken as they are.
    """
    tree: dict[str, object] = {}
    origins = Origins(COMMAND_LINE)
    for path, given in flags.items():
        if given is None:
            continue
        location: Location = tuple(path.split("."))
        annotation = lookup(model, location) if all(location) else None
        if annotation is None:
            hint = did_you_mean(path, known_keys(model))
            report.add(location, "is no setting", where=COMMAND_LINE, hint=hint)
            continue
        value = str(given) if isinstance(given, Path) else given
        if isinstance(value, str):
            value = _read(value, annotation, location, COMMAND_LINE, origins, report)
        _put(tree, location, value, origins, COMMAND_LINE)
    return Layer(tree=tree, origins=origins)


def _location(steps: list[str], model: object, below: object) -> Location:
    """The steps, spelt like the names that the operator has chosen in the file."""
    location: list[str] = []
    annotation: object | None = model
    for step in steps:
        known = below if isinstance(below, dict) else {}
        if annotation is not None and not any(models(annotation)) and step not in known:
            step = next((key for key in known if key.lower() == step), step)  # noqa: PLW2901  # respelt
        location.append(step)
        annotation = child(annotation, step) if annotation is not None else None
        below = known.get(step)
    return tuple(location)


def _read(text: str, annotation: object, at: Location, where: str, origins: Origins, report: Report) -> object:
    origins.record(at, where)
    if reason := unusable_text(text):
        report.add(at, reason, where=where)
        return None
    if wants_text(annotation):
        return text
    value, places = read_document(text, where=where, report=report, lines=False, at=at)
    origins.replace(at, places)
    return value


def _put(tree: dict[str, object], location: Location, value: object, origins: Origins, where: str) -> None:
    """Set the value, unless something on the way is no mapping: that is told when it is validated."""
    section = tree
    for length, step in enumerate(location[:-1], 1):
        if location[:length] not in origins:
            origins.record(location[:length], where)
        inner = section.setdefault(str(step), {})
        if not isinstance(inner, dict):
            return
        section = inner
    section[str(location[-1])] = value
    if location not in origins:
        origins.record(location, where)


def _refuse_name(name: str, value: str, location: Location, model: object, report: Report) -> None:
    match = closest(name, variables(model))
    hint = f"did you mean {match}?" if match else "two underscores go into a section: HOLDFAST_LOG__LEVEL"
    secret = hidden(model, location) or looks_secret(name)
    shown = shown_value(value, hidden=secret)
    report.add(location, "names no setting", where=name, value=shown, hint=hint, silences=False)


def variables(model: object, prefix: str = PREFIX) -> list[str]:
    """The names of all variables, without those below names of the operator's choice."""
    found: list[str] = []
    for key in known_keys(model):
        name, inner = f"{prefix}{key.upper()}", child(model, key)
        found.append(name)
        if any(models(inner)) and not is_mapping(inner):
            found += variables(inner, f"{name}{_SEPARATOR}")
    return found
