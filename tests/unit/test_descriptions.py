"""Descriptions of fields from the docstrings below them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from config.descriptions import described


class Inner(BaseModel):
    """A part."""

    size: int = 0
    """How large,
    in bytes."""


class Outer(BaseModel):
    """The whole."""

    parts: dict[str, tuple[Inner, ...]] = {}
    """All parts."""
    said: int = Field(0, description="Said already.")
    """Not this."""
    silent: int = 0


class Special(Outer):
    """One of them."""

    more: Inner | None = None
    """Another part."""


def properties(schema: dict[str, Any]) -> dict[str, str | None]:
    """Each field with its description."""
    return {name: field.get("description") for name, field in schema["properties"].items()}


def test_every_field_is_described_also_those_of_models_within() -> None:
    """Inherited ones too; what has a description keeps it."""
    schema = described(Special).model_json_schema()

    assert properties(schema) == {
        "parts": "All parts.",
        "said": "Said already.",
        "silent": None,
        "more": "Another part.",
    }
    assert properties(schema["$defs"]["Inner"]) == {"size": "How large,\nin bytes."}


def test_a_described_model_validates_as_before() -> None:
    """Whatever was made of it already."""
    whole = described(described(Outer)).model_validate({"parts": {"a": [{"size": 3}]}})

    assert whole.parts["a"] == (Inner(size=3),)
