"""`holdfast schema`: the JSON Schemas of all formats."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.commands import console
from worker.commands.session import Usage

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Format(StrEnum):
    """What has a schema."""

    REQUEST = "request"
    CONFIG = "config"
    MANIFEST = "manifest"
    EVENT = "event"
    HANDLER = "handler"


def schema(
    which: Annotated[Format, typer.Argument(metavar="FORMAT", help="request, config, manifest, event, or handler.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="For handler: which one, for instance tar.")
    ] = None,
) -> int:
    """Print the JSON Schema of requests, the configuration, manifests, events, or a handler's options."""
    import orjson

    if name is not None and which is not Format.HANDLER:
        raise Usage(f"schema {which} takes no name", hint="only handlers have names: holdfast schema handler tar")
    document = _schema(which, name)
    if "$schema" not in document:
        document = {"$schema": _DIALECT, **document}
    console.out(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    return 0


def _schema(which: Format, name: str | None) -> dict[str, Any]:
    match which:
        case Format.REQUEST:
            return _request()
        case Format.CONFIG:
            from config.schema import json_schema

            return json_schema()
        case Format.MANIFEST:
            from config.descriptions import described
            from worker.manifest import Manifest

            return {**described(Manifest).model_json_schema(), "title": "holdfast manifest"}
        case Format.EVENT:
            from config.descriptions import described
            from worker.events import Event

            return {**described(Event).model_json_schema(), "title": "holdfast event"}
        case Format.HANDLER:
            return _handler(name)


def _request() -> JsonSchemaValue:
    from pydantic import TypeAdapter

    from config.descriptions import described
    from worker.intake.wire import CloudEvent, PlainRequest

    for model in (CloudEvent, PlainRequest):
        described(model)
    either: TypeAdapter[CloudEvent | PlainRequest] = TypeAdapter(CloudEvent | PlainRequest)
    return {**either.json_schema(), "title": "holdfast request"}


def _handler(name: str | None) -> JsonSchemaValue:
    from config.descriptions import described
    from handlers import registry

    known = ", ".join(registry.names())
    if name is None:
        raise Usage("which handler?", hint=f"installed: {known}")
    if name not in registry.names():
        raise Usage(f"unknown handler {name!r}", hint=f"installed: {known}")
    options = registry.load(name).Options
    return {**described(options).model_json_schema(), "title": f"options of a plan with handler {name}"}
