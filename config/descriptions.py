"""Gives the fields of a pydantic model the docstrings below them as descriptions, for schemas and reference pages.

pydantic can do so when a class is made (`use_attribute_docstrings`). Then every start of the program reads and parses
the source of every model: a sixth of all the processor time that `holdfast backup` takes to begin.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar, get_args

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


def described(model: type[Model]) -> type[Model]:
    """The model itself, its fields and those of all models within described by their docstrings. Safe to repeat."""
    _describe(model, set())
    return model


def _describe(model: type[BaseModel], seen: set[type[BaseModel]]) -> None:
    if model in seen:
        return
    seen.add(model)
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            _describe(inner, seen)
    found = {name: text for base in reversed(model.__mro__) for name, text in _docstrings(base)}
    for name, field in model.model_fields.items():
        field.description = field.description or found.get(name)
    # After those within: its schema holds theirs.
    model.model_rebuild(force=True)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _docstrings(model: type) -> Iterator[tuple[str, str]]:
    if not issubclass(model, BaseModel) or model is BaseModel:
        return
    definition = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(definition, ast.ClassDef)
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)
