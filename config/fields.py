"""What the settings model says about a location in the tree."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr

from config.problems import Location
from config.secrets import Secret, looks_secret

FILE_SUFFIX: Final = "_file"
"""A secret setting `x` can be given as `x_file`, the file that holds it."""

_SECRETS: Final = (Secret, SecretStr, SecretBytes)


def members(annotation: object) -> tuple[object, ...]:
    """The types a value may have, without None, constraints and nested unions."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return tuple(inner for choice in get_args(annotation) for inner in members(choice))
    return () if annotation is type(None) else (annotation,)


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models among the types a value may have."""
    for member in members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            yield member


def is_free(annotation: object) -> bool:
    """Whether anything may stand here: the model knows no names below, no types."""
    return any(
        member in (Any, object) or not (isinstance(member, type) or get_origin(member))
        for member in members(annotation)
    )


def child(annotation: object, step: str | int) -> object | None:
    """The type of what is below one step, None where the model knows nothing of the kind.

    A mapping knows every name; below what is free everything is. The `x_file` of a secret `x` is a Path.
    """
    if is_free(annotation):
        return annotation
    for member in members(annotation):
        arguments = get_args(member)
        if isinstance(step, str) and _is_mapping(member):
            return arguments[1] if arguments else object
        if isinstance(step, int) and (get_origin(member) or member) in (tuple, list):
            return arguments[0] if arguments else object
    if isinstance(step, str):
        for model in models(annotation):
            if step in model.model_fields:
                return model.model_fields[step].annotation
            if step in companions(model):
                return Path
    return None


def _is_mapping(member: object) -> bool:
    kind = get_origin(member) or member
    return isinstance(kind, type) and issubclass(kind, Mapping)


def is_mapping(annotation: object) -> bool:
    """Whether names of the operator's choice stand here, not those of settings."""
    return any(_is_mapping(member) for member in members(annotation))


def lookup(annotation: object, location: Location) -> object | None:
    """The type at the location, None where the model ends."""
    found: object | None = annotation
    for step in location:
        found = child(found, step)
        if found is None:
            return None
    return found


def wants_text(annotation: object) -> bool:
    """Whether text is taken here as it is, digits and `true` included."""
    return any(_is_text(member) for member in members(annotation))


def _is_text(member: object) -> bool:
    if get_origin(member) is Literal:
        return all(isinstance(choice, str) for choice in get_args(member))
    return isinstance(member, type) and issubclass(member, str | Path | Secret)


def is_secret(annotation: object) -> bool:
    """Whether the value itself is a secret."""
    return any(isinstance(member, type) and issubclass(member, _SECRETS) for member in members(annotation))


def secrets_of(model: type[BaseModel]) -> list[str]:
    """The names of the settings of this model that are secrets."""
    return [name for name, field in model.model_fields.items() if is_secret(field.annotation)]


def companions(model: type[BaseModel]) -> dict[str, str]:
    """The `x_file` of each secret `x` of this model."""
    return {f"{name}{FILE_SUFFIX}": name for name in secrets_of(model)}


def known_keys(annotation: object) -> list[str]:
    """Every key the models among these types know."""
    return [key for model in models(annotation) for key in (*model.model_fields, *companions(model))]


def holds_secret(annotation: object) -> bool:
    """Whether a secret stands here or anywhere below."""
    if is_secret(annotation):
        return True
    below = [field.annotation for model in models(annotation) for field in model.model_fields.values()]
    below += [argument for member in members(annotation) if get_origin(member) for argument in get_args(member)]
    return any(holds_secret(inner) for inner in below)


def hidden(annotation: object, location: Location) -> bool:
    """Whether a value at this location must not be quoted.

    It must not when a secret is known to be there or below, when an unknown key stands beside a secret, or,
    where the model knows no names, when the name looks like that of a secret.
    """
    found = annotation
    for index, step in enumerate(location):
        if is_secret(found):
            return True
        inner = child(found, step)
        if inner is None and any(secrets_of(model) for model in models(found)):
            return True
        if inner is None or is_free(inner):
            return any(looks_secret(str(name)) for name in location[index:])
        found = inner
    return holds_secret(found)
