"""Nothing that is shown has a secret in it."""

from __future__ import annotations

import io
import json
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from config.load import load
from config.problems import ConfigError, Origins
from config.schema import json_schema
from config.secrets import MASK
from config.settings import Settings
from config.show import show
from config.validation import problems_from_validation

PASSWORD = "hunter2-Zq9"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A place for a configuration file, not written yet."""
    return tmp_path / "config.yaml"


def refusal(file: Path, text: str, environ: Mapping[str, str] | None = None) -> ConfigError:
    """The error that the text gives."""
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ=environ or {})
    return caught.value


# --- nothing shows them

GOOD = f"""
node: n
stores: {{nas: {{kind: local, path: /srv}}}}
queue: {{url: "amqp://u:{PASSWORD}@h", password: {PASSWORD}}}
plans:
  web:
    handler: peer
    options:
      password: {PASSWORD}
      peers: [{{api_token: {PASSWORD}, host: a}}]
      from: rsync://u:{PASSWORD}@h/module
"""


def test_nothing_made_of_settings_shows_a_secret(file: Path) -> None:
    """repr, str, the shown configuration, JSON, the digest's input: none has it."""
    file.write_text(GOOD)
    loaded = load(file, environ={})

    shown = [repr(loaded), str(loaded.settings), json.dumps(show(loaded.settings))]
    shown += [loaded.settings.queue.model_dump_json() if loaded.settings.queue else "", loaded.digest]

    assert not any(PASSWORD in text for text in shown)
    assert show(loaded.settings)["queue"]["password"] == MASK
    assert show(loaded.settings)["plans"]["web"]["options"] == {
        "password": MASK,
        "peers": [{"api_token": MASK, "host": "a"}],
        "from": f"rsync://u:{MASK}@h/module",
    }


SLIPS = [
    f"queue: {PASSWORD}",
    f"queue: ['{PASSWORD}']",
    f"queue: {{url: {PASSWORD}}}",
    f"queue: {{url: [{PASSWORD}]}}",
    f"queue: {{url: {{x: {PASSWORD}}}}}",
    f"queue: {{password: [{PASSWORD}], url: 5}}",
    f"queue: {{passwort: {PASSWORD}}}",
    f"queue: {{user: {PASSWORD}}}",
    f"queue: {{password_file: {PASSWORD}}}",
    f"queue: {{password: *{PASSWORD}}}",
    f"queue: {{password: &{PASSWORD}}}",
    f"queue: {{password: !{PASSWORD} x}}",
    f"queue: {{password: !{PASSWORD}!x y}}",
    f"queue: {{password: '{PASSWORD}}}",
    f'queue: {{password: "\\{PASSWORD}"}}',
    f"queue:\n  password: @{PASSWORD}",
    f"queue:\n  password: %{PASSWORD}",
    f"queue:\n  password: a: {PASSWORD}",
    f"queue:\n  password: x\n {PASSWORD}",
    f"queue:\n  url: 'amqp://h'\n  password: x\n  password: {PASSWORD}",
    f"%{PASSWORD}\n---\nx: %{PASSWORD}",
    f"password: {PASSWORD}",
    f"pasword: {PASSWORD}",
    f"queue_url: {PASSWORD}",
    f"broker: amqp://u:{PASSWORD}@h",
    f"node: amqp://u:{PASSWORD}@h",
    f"[{PASSWORD}]",
    f"{PASSWORD}",
    f"'{PASSWORD}",
    f"!{PASSWORD}",
    f"*{PASSWORD}",
]


@pytest.mark.parametrize("text", SLIPS)
def test_no_problem_quotes_a_secret(file: Path, text: str) -> None:
    """Whatever slip puts the secret where it does not belong: not in the text, not in the traceback."""
    error = refusal(file, text)

    shown = io.StringIO()
    traceback.print_exception(error, file=shown)
    assert PASSWORD not in str(error)
    assert PASSWORD not in repr(error)
    assert PASSWORD not in shown.getvalue()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HOLDFAST_QUEUE_PASSWORD", PASSWORD),
        ("HOLDFAST_QUEUE__PASWORD", PASSWORD),
        ("HOLDFAST_QUEUE__URL__X", PASSWORD),
        ("HOLDFAST_PASSWORD", PASSWORD),
        ("HOLDFAST_QUEUE", f"amqp://{PASSWORD}"),
        ("HOLDFAST_QUEUE", f"{{url: '{PASSWORD}'}}"),
        ("HOLDFAST_QUEUE", f"{{url: *{PASSWORD}"),
        ("HOLDFAST_QUEUE", f"'{PASSWORD}"),
        ("HOLDFAST_QUEUE__URL", PASSWORD),
    ],
)
def test_no_problem_quotes_a_secret_of_the_environment(file: Path, name: str, value: str) -> None:
    """The same slips in variables."""
    error = refusal(file, "", {name: value})

    assert PASSWORD not in str(error)
    assert error.problems[0].where == name


@given(secret=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30))
def test_no_error_of_pydantic_itself_quotes_a_secret(secret: str) -> None:
    """Even code that validates by itself and prints the error gives nothing away."""
    marked = f"<<{secret}>>"
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"queue": {"url": marked, "password": [marked], marked[:0] + "x": marked}})

    assert marked not in str(caught.value)
    assert marked not in repr(caught.value)


def test_the_secrets_of_a_handler_s_own_model_are_hidden_too() -> None:
    """Its SecretStr counts, and so does what a validator of it says."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")

        login: SecretStr
        count: int

    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"login": [PASSWORD], "count": "many", "logn": PASSWORD})
    problems = problems_from_validation(caught.value, ("plans", "web", "options"), Origins("x"), Options)

    assert PASSWORD not in " ".join(map(str, problems))
    assert {problem.path: problem.value for problem in problems} == {
        "plans.web.options.login": MASK,
        "plans.web.options.count": "'many'",
        "plans.web.options.logn": MASK,
    }


def test_the_schema_tells_editors_not_to_echo_secrets() -> None:
    """Forms made of the schema hide the field."""
    assert json_schema()["$defs"]["Queue"]["properties"]["url"]["writeOnly"] is True
