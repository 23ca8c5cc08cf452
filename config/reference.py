"""The page that describes every setting, from the settings themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from config.descriptions import described
from config.fields import FILE_SUFFIX, child, is_free, is_mapping, is_secret, members, models
from config.secrets import Secret
from config.settings import NAME_PATTERN, Settings

_WORDS: Final[dict[object, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "absolute path",
    Secret: "secret",
}
_SIGNS: Final = {"ge": "at least {}", "gt": "more than {}", "le": "at most {}", "lt": "less than {}"}
_ANY_NAME: Final = "<name>"


def reference() -> str:
    """The tables of all settings in Markdown, one per section; docs/configuration.md holds exactly this text."""
    return "\n".join(_section(path, model) for path, model in sections())


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section with its path, `""` for the top level; `<name>` stands for a name of the operator's choice."""
    yield from _below("", described(Settings))


def _below(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        annotation: object = field.annotation
        inner_path = f"{path}.{name}" if path else name
        if is_mapping(annotation):
            annotation, inner_path = child(annotation, ""), f"{inner_path}.{_ANY_NAME}"
        for inner in models(annotation):
            yield from _below(inner_path, inner)


def _section(path: str, model: type[BaseModel]) -> str:
    lines = [f"### {f'`{path}`' if path else 'Top level'}", ""]
    if model.__doc__:
        lines += [model.__doc__, ""]
    lines += ["| setting | value | default | what it does |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(_row(name, _value_words(field), _default(field), field.description or ""))
        if is_secret(field.annotation):
            described = f"The file that holds `{name}`; give one of the two."
            lines.append(_row(f"{name}{FILE_SUFFIX}", _WORDS[Path], "", described))
    return "\n".join([*lines, ""])


def _row(name: str, value: str, default: str, description: str) -> str:
    cells = (f"`{name}`", value, default, " ".join(description.split()))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _value_words(field: FieldInfo) -> str:
    words = "name" if _is_name(field) else _type_words(field.annotation)
    for constraint in field.metadata:
        for sign, phrase in _SIGNS.items():
            limit = getattr(constraint, sign, None)
            if limit is not None:
                words += ", " + phrase.format(f"{limit:.15g}" if isinstance(limit, float) else limit)
    return words


def _is_name(field: FieldInfo) -> bool:
    nested = [inner for choice in get_args(field.annotation) for inner in get_args(choice)]
    return any(getattr(known, "pattern", None) == NAME_PATTERN for known in (*field.metadata, *nested))


def _type_words(annotation: object) -> str:
    words = []
    for member in members(annotation):
        if get_origin(member) is Literal:
            words += [f"`{choice}`" for choice in get_args(member)]
        elif get_origin(member) is tuple:
            words.append(f"list of {_type_words(get_args(member)[0])}")
        elif is_free(member) or is_mapping(member):
            inner = child(member, "")
            plain = inner is not None and not is_free(inner) and not any(models(inner))
            words.append(f"mapping of names to {_type_words(inner)}" if plain else "mapping")
        elif isinstance(member, type) and issubclass(member, BaseModel):
            words.append("section")
        else:
            words.append(_WORDS[member])
    return ", ".join(words)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.default
    if default is PydanticUndefined or default is None or isinstance(default, BaseModel):
        return ""
    if isinstance(default, str | Path):
        return f"`{default}`"
    return f"`{json.dumps(default)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
