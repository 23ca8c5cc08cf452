"""Loading the configuration: places, variables, the settings that result."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.load import Loaded, load
from config.problems import ConfigError, Problem
from config.settings import Settings
from config.show import show

STORE = "stores:\n  nas: {kind: local, path: /srv/backups}\n"
PLAN = "plans:\n  web: {handler: tar}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A place for a configuration file, not written yet."""
    return tmp_path / "config.yaml"


def load_text(file: Path, text: str | bytes, environ: Mapping[str, str] | None = None, **flags: object) -> Loaded:
    """Load the text as the configuration file."""
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(file, environ=environ or {}, flags={name.replace("__", "."): value for name, value in flags.items()})


def problems_of(file: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> dict[str, Problem]:
    """The problems of the text by path; it must have some."""
    with pytest.raises(ConfigError) as caught:
        load_text(file, text, environ)
    return {problem.path: problem for problem in caught.value.problems}


# --- where settings come from


def test_an_empty_file_gives_the_defaults(file: Path) -> None:
    """Nothing needs to be configured for the settings to exist."""
    loaded = load_text(file, "node: n\n# nothing else\n")

    assert loaded.settings == Settings(node="n")
    assert loaded.settings.spool_path == Path("/var/lib/holdfast/spool")
    assert loaded.file == file


def test_the_environment_wins_over_the_file_and_a_flag_over_both(file: Path) -> None:
    """Each later place replaces single settings, not whole sections."""
    text = "log: {level: error, format: json}\nconcurrency: 3\nretry: {attempts: 2}\n"
    environ = {"HOLDFAST_LOG__LEVEL": "warning", "HOLDFAST_CONCURRENCY": "4"}

    settings = load_text(file, text, environ, log__level="debug", retry__attempts=None).settings

    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert (settings.concurrency, settings.retry.attempts) == (4, 2)


def test_the_variable_names_the_file_unless_a_flag_does(tmp_path: Path) -> None:
    """HOLDFAST_CONFIG is used when no flag is given."""
    (tmp_path / "a.yaml").write_text("node: a")
    (tmp_path / "b.yaml").write_text("node: b")
    environ = {"HOLDFAST_CONFIG": str(tmp_path / "a.yaml")}

    assert load(environ=environ).settings.node == "a"
    assert load(tmp_path / "b.yaml", environ=environ).settings.node == "b"


def test_the_default_file_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a flag or a variable (an empty one is none) it is read if it is there."""
    default = tmp_path / "holdfast" / "config.yaml"
    monkeypatch.setattr("config.load.DEFAULT_FILE", default)
    environ = {"HOLDFAST_CONFIG": "", "HOLDFAST_CONCURRENCY": "3"}

    without = load(environ=environ)
    default.parent.mkdir()
    default.write_text("node: from-default")
    with_it = load(environ=environ)

    assert (without.file, without.settings.concurrency) == (None, 3)
    assert (with_it.file, with_it.settings.node) == (default, "from-default")


def test_a_default_file_that_is_there_and_cannot_be_read_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one that is missing means the defaults."""
    monkeypatch.setattr("config.load.DEFAULT_FILE", tmp_path)

    with pytest.raises(ConfigError, match="cannot be read"):
        load(environ={})


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0.yaml"])
def test_a_file_that_was_asked_for_and_cannot_be_read_is_a_problem(tmp_path: Path, name: str) -> None:
    """A misspelt file name never means the defaults."""
    with pytest.raises(ConfigError) as caught:
        load(environ={"HOLDFAST_CONFIG": str(tmp_path / name)})

    assert caught.value.problems[0].where == "HOLDFAST_CONFIG"
    assert caught.value.exit_code == 2


def test_text_settings_take_a_variable_as_it_is(file: Path) -> None:
    """A host called 007 keeps its noughts; a number is still read as one."""
    environ = {"HOLDFAST_NODE": "007", "holdfast_Retry__Attempts": "7", "HOLDFAST_PLANS__WEB__LABELS__BUILD": "1.10"}

    settings = load_text(file, STORE + PLAN, environ).settings

    assert settings.node == "007"
    assert settings.retry.attempts == 7
    assert settings.plans["web"].labels == {"build": "1.10"}


def test_variables_reach_lists_sections_and_options(file: Path) -> None:
    """What is no text is read as YAML, and deeper variables build on wider ones."""
    environ = {
        "HOLDFAST_QUEUE": "{url: 'redis://h', name: q}",
        "HOLDFAST_QUEUE__NAME": "other",
        "HOLDFAST_QUEUE__ROUTING_KEYS": '["a", "b.#"]',
        "HOLDFAST_PLANS__WEB__OPTIONS__DEPTH__MAX": "3",
        "HOLDFAST_PLANS__NEW": "{handler: tar}",
    }

    settings = load_text(file, STORE + "plans:\n  Web: {handler: tar, options: {root: /srv}}\n", environ).settings

    assert settings.queue is not None
    assert (settings.queue.name, settings.queue.routing_keys) == ("other", ("a", "b.#"))
    assert settings.plans["Web"].options == {"root": "/srv", "depth": {"max": 3}}
    assert sorted(settings.plans) == ["Web", "new"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("HOLDFAST_LOG_LEVEL", "HOLDFAST_LOG__LEVEL"),
        ("HOLDFAST_NOED", "HOLDFAST_NODE"),
        ("HOLDFAST_", None),
        ("HOLDFAST_NODE__X", None),
        ("HOLDFAST_QUEUE__", None),
        ("HOLDFAST_QUEUE__ROUTING_KEYS__0", None),
    ],
)
def test_a_variable_that_names_no_setting_is_a_problem(file: Path, name: str, hint: str | None) -> None:
    """A misspelt variable is told, with the one that was probably meant."""
    (problem,) = problems_of(file, "", {name: "x"}).values()

    assert problem.where == name
    assert hint is None or hint in str(problem.hint)


def test_variables_of_tests_and_of_kubernetes_services_are_left_alone(file: Path) -> None:
    """A Service called holdfast does not keep the worker from starting."""
    environ = {
        "HOLDFAST_TEST_X": "1",
        "HOLDFAST_SERVICE_HOST": "10.0.0.1",
        "HOLDFAST_SERVICE_PORT_METRICS": "80",
        "HOLDFAST_PORT": "tcp://10.0.0.1:80",
        "HOLDFAST_METRICS_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    assert load_text(file, "node: n", environ).settings.node == "n"


def test_a_variable_given_in_two_spellings_is_a_problem(file: Path) -> None:
    """Which of them would win is not left to chance."""
    problems = problems_of(file, "", {"HOLDFAST_NODE": "a", "holdfast_node": "b"})

    assert "given twice" in problems["node"].message


def test_a_wrong_section_in_the_file_is_told_not_hidden_by_a_variable(file: Path) -> None:
    """A variable that goes into the section does not replace the mistake."""
    problems = problems_of(file, "log: loud", {"HOLDFAST_LOG__LEVEL": "info"})

    assert problems["log"].message == "must be a mapping"
    assert problems["log"].where == f"{file}:1"


def test_an_unknown_flag_is_a_problem(file: Path) -> None:
    """A slip in our own commands shows itself."""
    with pytest.raises(ConfigError) as caught:
        load_text(file, "", nodes="n")

    assert caught.value.problems[0].where == "command line"


# --- variables in the file


def test_variables_are_replaced_in_values(file: Path) -> None:
    """Numbers too, where a number is wanted; dollars survive."""
    text = """
node: ${NAME}
concurrency: ${COUNT:-4}
state_dir: "${BASE}/state"
stores: {nas: {kind: local, path: "/srv/$x/$$y/$${z}"}}
plans:
  web:
    handler: tar
    options:
      port: "${COUNT:-4}"
      deep:
        - n: ${NUMBER}
          t: a${NUMBER}b
"""
    environ = {"NAME": "0x10", "BASE": "/b", "NUMBER": "5", "COUNT": ""}

    settings = load_text(file, text, environ).settings

    assert (settings.node, settings.concurrency, settings.state_dir) == ("0x10", 4, Path("/b/state"))
    assert settings.stores["nas"].path == Path("/srv/$x/$y/${z}")
    assert settings.plans["web"].options == {"port": "4", "deep": [{"n": 5, "t": "a5b"}]}


def test_a_variable_cannot_add_structure(file: Path) -> None:
    """Whatever is in the environment stays one value."""
    problems = problems_of(file, "log: ${LOG}\n", {"LOG": "{level: debug}"})

    assert problems["log"].message == "must be a mapping"


@pytest.mark.parametrize("value", ["${}", "${A B}", "${A", "${1}", "${A-b}", "${A:-${B}}"])
def test_a_malformed_reference_is_a_problem(file: Path, value: str) -> None:
    """Nothing that looks like a variable is taken literally by accident."""
    problems = problems_of(file, f"node: '{value}'", {"A": "a", "B": "b"})

    assert "names no variable" in problems["node"].message
    assert "$$" in str(problems["node"].hint)


def test_variables_that_are_not_set_are_problems_with_their_path(file: Path) -> None:
    """A missing variable is never an empty text."""
    problems = problems_of(file, "node: ${NO_SUCH}\nlog:\n  level: ${NEITHER}\n")

    assert "NO_SUCH" in problems["node"].message
    assert problems["log.level"].where == f"{file}:3"


# --- the settings that result


def test_nothing_changes_after_loading(file: Path) -> None:
    """The tree is frozen, sections included."""
    settings = load_text(file, STORE + PLAN).settings

    for section, name in ((settings, "node"), (settings.log, "level"), (settings.plans["web"], "handler")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, "x")


def test_a_plan_without_a_store_has_the_only_one(file: Path) -> None:
    """The store need not be repeated in each plan."""
    settings = load_text(file, STORE + PLAN).settings

    assert settings.store_of("web") == ("nas", settings.stores["nas"])


def test_the_digest_tells_settings_apart_not_the_way_they_were_given(file: Path) -> None:
    """Spelling out every default, or using a variable, changes nothing; another value does."""
    base = load_text(file, "node: n")
    spelt_out = load_text(file, json.dumps(show(base.settings)))
    by_variable = load_text(file, "", {"HOLDFAST_NODE": "n", "HOLDFAST_DRAIN_SECONDS": "25"})
    other = load_text(file, "node: n\nconcurrency: 3")

    assert base.digest == spelt_out.digest == by_variable.digest != other.digest
    assert re.fullmatch("[0-9a-f]{64}", base.digest)


def test_the_digest_does_not_depend_on_secrets(file: Path) -> None:
    """A digest in a manifest gives no means to try passwords."""
    one = load_text(file, "node: n\nqueue: {url: 'amqp://h', password: one}")
    two = load_text(file, "node: n\nqueue: {url: 'amqp://h', password: two}")

    assert one.digest == two.digest
