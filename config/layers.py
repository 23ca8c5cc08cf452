"""What one place says about the settings, laid over what another one says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.document import PlainText, ScalarRefused, plain_scalar, unusable_text
from config.fields import child, companions, models, wants_text
from config.problems import Location, Origins, Report
from config.secrets import SecretUnreadable, read_secret

_DOLLAR: Final = re.compile(r"\$(?:\$|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^{}]*))?\}|(?P<bad>\{))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A tree of plain values, not validated yet, with the places its keys come from."""

    tree: object
    origins: Origins


def lay_over(lower: Layer, upper: Layer, model: object) -> Layer:
    """Both as one: mappings are joined key by key, anything else of the upper replaces what is below it.

    A secret `x` replaces an `x_file` of the lower layer, the other way round too. The lower origins are used up.
    """
    origins = lower.origins
    tree = _joined(lower.tree, upper.tree, model, (), origins, upper.origins)
    return Layer(tree=tree, origins=origins)


def _joined(
    lower: object, upper: object, annotation: object, at: Location, origins: Origins, upper_origins: Origins
) -> object:
    if not isinstance(upper, dict) or lower is None:
        origins.replace(at, upper_origins)
        return upper
    if not isinstance(lower, dict):
        return lower  # Of the wrong type: kept, so that it is told instead of hidden.
    joined = dict(lower)
    files = {file: name for model in models(annotation) for file, name in companions(model).items()}
    rivals = files | {name: file for file, name in files.items()}
    for key in upper.keys() & rivals.keys():
        joined.pop(rivals[key], None)
    for key, value in upper.items():
        inner = (*at, key)
        if key in lower:
            joined[key] = _joined(lower[key], value, child(annotation, key), inner, origins, upper_origins)
        else:
            origins.replace(inner, upper_origins)
            joined[key] = value
    return joined


def refuse_both(layer: Layer, model: object, report: Report) -> None:
    """Report each secret that one layer gives twice: as itself, as the file that holds it."""
    for location, section, annotation in _sections(layer.tree, model, ()):
        for kind in models(annotation):
            for file, name in companions(kind).items():
                if file in section and name in section:
                    where = layer.origins.where((*location, file))
                    message = f"is given beside {name}"
                    report.add((*location, file), message, where=where, hint=f"give either {name} or {file}")
                    report.silence((*location, name))


def _sections(tree: object, annotation: object, at: Location) -> Iterator[tuple[Location, dict[str, object], object]]:
    """The mappings of the tree, with what the model says of each; inner ones first."""
    if isinstance(tree, dict) and annotation is not None:
        for key, value in tree.items():
            yield from _sections(value, child(annotation, key), (*at, key))
        yield at, tree, annotation


def read_secrets(layer: Layer, model: object, report: Report) -> None:
    """Replace each `x_file` of the layer's tree by `x` with the content of the file.

    A file that gives no secret is a problem, told once; what is missing because of it is not told again.
    """
    for location, section, annotation in _sections(layer.tree, model, ()):
        for kind in models(annotation):
            for file, name in companions(kind).items():
                if file in section:
                    secret = _secret(section.pop(file), (*location, file), layer.origins, report)
                    layer.origins.record((*location, name), layer.origins.where((*location, file)))
                    if secret is None:
                        report.silence((*location, name))
                    else:
                        section[name] = secret


def _secret(path: object, location: Location, origins: Origins, report: Report) -> str | None:
    where = origins.where(location)
    if not isinstance(path, str):
        report.add(location, "must be a path", where=where, hint="remove the key if there is no such secret")
        return None
    if not Path(path).is_absolute():
        # Not quoted: it may be the secret itself, under the wrong key.
        report.add(location, "must be an absolute path", where=where, hint="name the file that holds the secret")
        return None
    try:
        return read_secret(Path(path))
    except SecretUnreadable as error:
        report.add(location, str(error), where=where, value=repr(path[:80]), hint=error.hint)
        return None


def expanded(layer: Layer, model: object, environ: Mapping[str, str], report: Report) -> Layer:
    """The layer with `${VAR}`, `${VAR:-default}`, `$$` replaced in its text; `default` counts for an empty VAR too.

    Unquoted text that becomes a number, true, false or nothing by it is taken as that where no text is wanted.
    """

    def walk(value: object, annotation: object, at: Location) -> object:
        match value:
            case dict():
                return {key: walk(inner, child(annotation, key), (*at, key)) for key, inner in value.items()}
            case list():
                return [walk(inner, child(annotation, index), (*at, index)) for index, inner in enumerate(value)]
            case str() if "$" in value:
                return _expanded_text(value, annotation, at, layer.origins.where(at), environ, report)
            case _:
                return value

    return Layer(tree=walk(layer.tree, model, ()), origins=layer.origins)


def _expanded_text(
    text: str, annotation: object, at: Location, where: str, environ: Mapping[str, str], report: Report
) -> object:
    """The text with its variables replaced; reported, with an empty result, when one of them is not there."""
    unset: list[str] = []
    malformed = False

    def value_of(match: re.Match[str]) -> str:
        nonlocal malformed
        name, default = match["name"], match["default"]
        malformed = malformed or match["bad"] is not None
        if match[0] == "$$" or name is None:
            return "$"
        given = environ.get(name)
        if given is None and default is None:
            unset.append(name)
        return (given if default is None else given or default) or ""

    result = _DOLLAR.sub(value_of, text)
    if malformed:
        hint = "write ${NAME} or ${NAME:-default}; $$ is a dollar sign"
        report.add(at, "has a ${ that names no variable", where=where, hint=hint)
    elif unset:
        names = ", ".join(sorted(set(unset)))
        hint = f"set it, or write ${{{unset[0]}:-default}}; $$ is a dollar sign"
        report.add(at, f"needs the environment variable {names}, which is not set", where=where, hint=hint)
    elif reason := unusable_text(result):
        report.add(at, f"{reason} once its variables are replaced", where=where)
    elif isinstance(text, PlainText) and annotation is not None and not wants_text(annotation):
        try:
            return plain_scalar(result)
        except ScalarRefused as refused:
            report.add(at, f"{refused} once its variables are replaced", where=where)
    else:
        return result
    return ""
