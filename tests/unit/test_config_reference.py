"""The documentation and the schema of the configuration agree with the settings."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from config.fields import companions
from config.load import load
from config.problems import ConfigError
from config.reference import reference, sections
from config.schema import json_schema

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def sample() -> str:
    """The sample on the page."""
    match = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match is not None
    return match[1]


def test_every_setting_has_a_docstring() -> None:
    """A setting that is not described is not finished."""
    silent = [
        f"{path}.{name}"
        for path, model in sections()
        for name, field in model.model_fields.items()
        if not (field.description or "").strip()
    ]

    assert silent == []


def test_the_page_has_exactly_the_tables_of_the_settings() -> None:
    """After a change: `python -m config.reference`, and put the result into the page."""
    _, _, tables = PAGE.read_text().partition("prints them. -->\n\n")

    assert tables == reference()


def test_the_sample_of_the_page_loads(tmp_path: Path) -> None:
    """What people copy works."""
    secret = tmp_path / "rabbit-password"
    secret.write_text("x")
    secret.chmod(0o400)
    file = tmp_path / "config.yaml"
    file.write_text(sample())

    loaded = load(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert loaded.settings.plans["web"].options["root"] == "/srv/www"
    assert loaded.settings.concurrency == 2


def test_the_schema_is_valid_and_accepts_the_sample() -> None:
    """An editor does not underline what works."""
    schema = json_schema()

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(YAML(typ="safe", pure=True).load(sample()))


def test_the_schema_knows_every_setting_with_its_companions() -> None:
    """Nothing is missing for completion in an editor."""
    schema = json_schema()
    parts = {model.__name__: schema["$defs"].get(model.__name__, schema) for _, model in sections()}

    for _, model in sections():
        properties = parts[model.__name__]["properties"]
        assert set(properties) == {*model.model_fields, *companions(model)}
        assert all(part["description"] for name, part in properties.items()), model


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("{}", True),
        ("{queue: {url_file: /x}}", True),
        ("{queue: {url: 'amqp://h', password: '${PW}'}}", True),
        ("{concurrency: '${N:-3}'}", True),
        ("{log: {level: '${L}'}}", True),
        ("{queue: {}}", False),
        ("{queue: {url: 'amqp://h', url_file: /x}}", False),
        ("{queue: {url: 'amqp://h', password: a, password_file: /x}}", False),
        ("{queue: {url: 'amqp://h', password_file: x}}", False),
        ("{concurrency: '3'}", False),
        ("{concurrency: 65}", False),
        ("{state_dir: var}", False),
        ("{node: 'a b'}", False),
        ("{nodes: a}", False),
        ("{log: {level: loud}}", False),
        ("{stores: {nas: {kind: s4, path: /x}}}", False),
        ("{stores: {'a/b': {kind: local, path: /x}}}", False),
        ("{plans: {web: {handler: tar, labels: {a: 1}}}}", False),
        ("{queue: {url: 'amqp://h', routing_keys: []}}", False),
    ],
)
def test_what_the_schema_refuses_is_what_loading_refuses(tmp_path: Path, text: str, *, valid: bool) -> None:
    """The schema is neither stricter than the program nor much laxer."""
    tree = YAML(typ="safe", pure=True).load(text)
    file = tmp_path / "config.yaml"
    file.write_text(text)

    accepted = jsonschema.Draft202012Validator(json_schema()).is_valid(tree)

    assert accepted is valid
    if not valid:
        with pytest.raises(ConfigError):
            load(file, environ={})
