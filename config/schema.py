"""The JSON Schema of the configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel

from config.descriptions import described
from config.fields import companions
from config.reference import sections
from config.settings import Settings

_VARIABLE: Final = {
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^{}]*)?\}",
    "description": "A value with environment variables in it, such as ${NAME} or ${NAME:-default}.",
}
_PLAIN_TEXT: Final = {"type", "minLength", "format", "writeOnly", "description", "title", "default"}
"""What `${VAR}` satisfies without being mentioned."""


def json_schema() -> dict[str, Any]:
    """The schema of the file format for editors, draft 2020-12.

    What it refuses `load` refuses too; `load` also checks what no schema can say, such as the names of stores.
    """
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "holdfast configuration",
        **described(Settings).model_json_schema(mode="validation"),
    }
    schema["title"] = "holdfast configuration"
    definitions = schema.setdefault("$defs", {})
    by_name = {model.__name__: model for _, model in sections()}
    for name, model in by_name.items():
        part = schema if model is Settings else definitions[name]
        _add_companions(part, model)
        _allow_variables(part["properties"])
        for key, setting in part["properties"].items():
            if key in model.model_fields:
                setting["description"] = model.model_fields[key].description
            if "patternProperties" in setting:
                setting["additionalProperties"] = False
    definitions["Variable"] = _VARIABLE
    return schema


def _add_companions(part: dict[str, Any], model: type[BaseModel]) -> None:
    for file, name in companions(model).items():
        part["properties"][file] = {
            "type": "string",
            "pattern": r"^(/|\$)",
            "description": f"The file that holds {name}; give one of the two.",
        }
        required: list[str] = part.get("required", [])
        if name in required:
            required.remove(name)
            rule: dict[str, Any] = {"oneOf": [{"required": [name]}, {"required": [file]}]}
        else:
            rule = {"not": {"required": [name, file]}}
        part.setdefault("allOf", []).append(rule)


def _allow_variables(properties: dict[str, Any]) -> None:
    """Let `${VAR}` stand wherever a number, a choice or text of a certain form is asked for."""
    for name, schema in properties.items():
        scalars = [choice for choice in _choices(schema) if choice.get("type") not in (None, "object", "array", "null")]
        if not scalars or all(choice.keys() <= _PLAIN_TEXT and choice["type"] == "string" for choice in scalars):
            continue
        outside = {key: schema.pop(key) for key in ("description", "default", "title") if key in schema}
        properties[name] = {**outside, "anyOf": [schema, {"$ref": "#/$defs/Variable"}]}


def _choices(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get("anyOf", [schema])
