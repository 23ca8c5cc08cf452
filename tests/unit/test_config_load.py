"""Loading the configuration: layers, problems, and what no text may do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from config.load import MAX_FILE_BYTES, Loaded, load
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
    """HOLDFAST_CONFIG is used when no flag is given, and an empty one counts as not set."""
    (tmp_path / "a.yaml").write_text("node: a")
    (tmp_path / "b.yaml").write_text("node: b")
    environ = {"HOLDFAST_CONFIG": str(tmp_path / "a.yaml")}

    assert load(environ=environ).settings.node == "a"
    assert load(tmp_path / "b.yaml", environ=environ).settings.node == "b"
    assert load(environ={"HOLDFAST_CONFIG": "", "HOLDFAST_NODE": "c"}).settings.node == "c"


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
        load(file=None, environ={"HOLDFAST_NODE": "n"}, flags={"nodes": "n"})

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


# --- problems


def test_all_problems_are_told_at_once_with_path_place_value_and_hint(file: Path) -> None:
    """Unknown keys, duplicates, wrong types, secrets, variables and conflicts do not hide each other."""
    text = """\
concurency: 4
max_accepted: "10"
node: ${NO_SUCH}
stores:
  nas: {kind: local, path: backups}
  Nas: {kind: local, path: /srv}
log:
  level: loud
  level: info
queue:
  url_file: /nowhere/url
  type: fast
plans:
  web: {handler: tar, store: nass}
  db: {store: nas}
  1: {handler: tar}
retry: {first_delay_seconds: 100, max_delay_seconds: 10}
"""

    problems = problems_of(file, text, {"HOLDFAST_SPOOL__ENABLED": "yes", "HOLDFAST_X": "1"})

    assert {path: problem.where.removeprefix(f"{file}:") for path, problem in problems.items()} == {
        "concurency": "1",
        "max_accepted": "2",
        "node": "3",
        "stores.nas.path": "5",
        "stores.Nas": "6",
        "log.level": "9",
        "queue.url_file": "11",
        "queue.type": "12",
        "plans.web.store": "14",
        "plans.db.handler": "15",
        "plans['1']": "16",
        "retry.first_delay_seconds": "17",
        "spool.enabled": "HOLDFAST_SPOOL__ENABLED",
        "x": "HOLDFAST_X",
    }
    assert problems["concurency"].hint == "did you mean concurrency?"
    assert problems["concurency"].value == "4"
    assert problems["max_accepted"].hint == "remove the quotes"
    assert problems["plans.web.store"].hint == "did you mean nas?"
    assert problems["spool.enabled"].hint == "these words are text in YAML 1.2: write true or false"


def test_a_duplicate_hides_neither_value_s_problems(file: Path) -> None:
    """The first of two sections is still looked into."""
    with pytest.raises(ConfigError) as caught:
        load_text(file, "log: {levle: info}\nlog: {}\n")

    assert [problem.path for problem in caught.value.problems] == ["log.levle", "log"]
    assert caught.value.problems[1].hint == "it is also on line 1"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("[]", "", "must be a mapping"),
        ("just text", "", "must be a mapping"),
        ("a: b: c", "", "is not YAML"),
        ("log: {level: [", "", "is not YAML"),
        ("a: 1\n---\nb: 2", "", "more than one document"),
        ("%YAML 1.1\n---\nnode: n", "", "not YAML 1.2"),
        ("node: n\0", "", "control character"),
        ('node: "n\\0"', "node", "NUL"),
        ('node: "\\ud800"', "node", "not valid Unicode"),
        ('node: "\\UFFFFFFFF"', "", "malformed"),
        ("node: &a n", "node", "anchor"),
        ("node: *a", "node", "alias"),
        ("node: !!python/name:os.system x", "node", "tag"),
        ("node: !x n", "node", "tag"),
        ("1: x", "['1']", "no text"),
        ("null: x", "null", "no text"),
        ("? [a, b]\n: x", "", "no text"),
        ("? {a: b}\n: x", "", "no text"),
        ("<<: {node: n}", "", "unknown key"),
        ("concurrency: 99999999999999999999999", "concurrency", "too large"),
        ("concurrency: " + "9" * 5000, "concurrency", "too large"),
        ("concurrency: 0x" + "f" * 5000, "concurrency", "too large"),
        ("concurrency: 65", "concurrency", "at most 64"),
        ("concurrency: 0", "concurrency", "at least 1"),
        ("concurrency: 2.0", "concurrency", "whole number"),
        ("concurrency: true", "concurrency", "whole number"),
        ("concurrency:", "concurrency", "whole number"),
        ("drain_seconds: .inf", "drain_seconds", "finite"),
        ("drain_seconds: .nan", "drain_seconds", "finite"),
        ("drain_seconds: 1e999", "drain_seconds", "too large"),
        ("drain_seconds: -1", "drain_seconds", "at least 0"),
        ("drain_seconds: 1e9", "drain_seconds", "at most"),
        ("spool: {scan_seconds: 0}", "spool.scan_seconds", "more than 0"),
        ("state_dir: var", "state_dir", "absolute"),
        ("state_dir: ~/x", "state_dir", "absolute"),
        ("state_dir: 5", "state_dir", "text"),
        ("node: 5", "node", "text"),
        ("node: a/b", "node", "must not have"),
        ("node: ../x", "node", "must not have"),
        ("node: a.", "node", "must not have"),
        ('node: "a\\n"', "node", "must not have"),
        ("node: " + "a" * 64, "node", "must not have"),
        ("spool: []", "spool", "mapping"),
        ("spool:", "spool", "mapping"),
        ("plans: [web]", "plans", "mapping"),
        ("stores: {nas: /srv}", "stores.nas", "mapping"),
        ("stores: {nas: {kind: s4, path: /srv}}", "stores.nas.kind", "one of"),
        ("stores: {nas: {path: /srv}}", "stores.nas.kind", "required"),
        ("stores: {a/b: {kind: local, path: /srv}}", "stores['a/b']", "no name"),
        (STORE + "plans: {.web: {handler: tar}}", "plans['.web']", "no name"),
        (STORE + "plans: {web: {handler: ''}}", "plans.web.handler", "at least 1"),
        (STORE + "plans: {web: {handler: tar, options: []}}", "plans.web.options", "mapping"),
        (STORE + "plans: {web: {handler: tar, labels: {a: 1}}}", "plans.web.labels.a", "text"),
        (STORE + "plans: {web: {handler: tar, max_level: 100}}", "plans.web.max_level", "at most 99"),
        (STORE + "plans: {web: {handler: tar}, WEB: {handler: tar}}", "plans.WEB", "letter case"),
        (PLAN, "stores", "no store"),
        (STORE + "  two: {kind: local, path: /two}\n" + PLAN, "plans.web.store", "several stores"),
        ("queue: {}", "queue.url", "required"),
        ("queue: {url: 'amqp://h', routing_keys: x}", "queue.routing_keys", "list"),
        ("queue: {url: 'amqp://h', routing_keys: []}", "queue.routing_keys", "at least 1"),
        ("queue: {url: 'amqp://h', routing_keys: [a, 1]}", "queue.routing_keys[1]", "text"),
    ],
)
def test_what_is_wrong_is_told_in_words(file: Path, text: str, path: str, message: str) -> None:
    """Each kind of mistake has its path and a message that says what to change."""
    problems = problems_of(file, text)

    assert message in next(iter(problems.values())).message
    assert path in problems or text.startswith("<<")
    assert len(problems) == 1


def test_bytes_that_are_not_utf_8_are_told_with_their_line(file: Path) -> None:
    """A file in another encoding is not guessed at."""
    problems = problems_of(file, b"node: n\nlog: {level: inf\xf6}\n")

    assert problems[""].where == f"{file}:2"


def test_a_byte_order_mark_and_crlf_do_no_harm(file: Path) -> None:
    """Editors of another system may write the file."""
    assert load_text(file, b"\xef\xbb\xbfnode: n\r\nconcurrency: 3\r\n").settings.concurrency == 3


def test_a_huge_file_is_refused_before_it_is_read_whole(file: Path) -> None:
    """Naming the wrong file costs neither memory nor time."""
    problems = problems_of(file, b"#" * (MAX_FILE_BYTES + 1))

    assert "more than 1048576 bytes" in problems[""].message


@pytest.mark.parametrize("text", ["[" * 100_000, "a: {" * 50_000, "- " * 100_000, "? " * 50_000, "!" * 100_000])
def test_deep_nesting_ends_soon(file: Path, text: str) -> None:
    """No nesting exhausts the stack."""
    assert problems_of(file, text)


def test_an_alias_bomb_stays_small(file: Path) -> None:
    """Aliases are refused, so that nothing multiplies."""
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]

    assert problems_of(file, "\n".join(lines))


def test_many_problems_make_a_message_of_readable_length(file: Path) -> None:
    """The error has all of them; its text stops at a hundred."""
    with pytest.raises(ConfigError) as caught:
        load_text(file, "\n".join(f"k{n}: {n}" for n in range(500)))

    assert len(caught.value.problems) == 500
    assert str(caught.value).endswith("... 400 more")


def test_long_values_and_keys_are_shortened(file: Path) -> None:
    """One problem is one line."""
    (problem,) = problems_of(file, f"{'k' * 900}: {'v' * 9000}").values()

    assert len(str(problem)) < 800


def test_the_places_of_options_are_kept_for_whoever_validates_them(file: Path) -> None:
    """A handler's own model gets problems with the line and the hint that every other setting has."""

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")

        root: Path
        passphrase: str = ""

    text = STORE + "plans:\n  web:\n    handler: tar\n    options:\n      rot: /srv\n      passphrase: 5\n"
    loaded = load_text(file, text)

    with pytest.raises(ValidationError) as caught:
        Options.model_validate(loaded.settings.plans["web"].options)
    problems = loaded.problems(caught.value, ("plans", "web", "options"), Options)

    found = {problem.path: (problem.where, problem.value, problem.hint) for problem in problems}
    assert found["plans.web.options.rot"] == (f"{file}:7", "'/srv'", "did you mean root?")
    assert found["plans.web.options.root"][0] == f"{file}:6"
    assert found["plans.web.options.passphrase"][0] == f"{file}:8"
    assert loaded.locate("plans", "web", "options", "rot") == f"{file}:7"
    assert loaded.locate("plans", "web", "verify") == f"{file}:4"


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


# --- whatever the text

SETTING_WORDS = ("node", "log", "level", "queue", "url", "url_file", "plans", "stores", "web", "options", "path", "/x")
YAML_WORDS = (
    ": ",
    "\n",
    "\n  ",
    "# ",
    "%YAML 1.1",
    "---",
    "...",
    "*a",
    "&a",
    "!x",
    "!!int",
    "<<",
    "\ufeff",
    "\t",
    "\x85",
)
VALUE_WORDS = ("${HOME}", "${", "$$", "0x", "1e9", ".inf", "true", *"'\"|>-?{}[],\\~")
WORDS = st.sampled_from([*SETTING_WORDS, *YAML_WORDS, *VALUE_WORDS])
YAML_LIKE = st.lists(WORDS, max_size=40).map("".join)
KEYS = st.sampled_from(["node", "log", "queue", "plans", "stores", "retry", "web", "nas", "url", "url_file", "store"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("/srv")
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


def loads_or_refuses(file: Path, content: bytes, environ: Mapping[str, str]) -> None:
    """Loading ends in settings or in a ConfigError that can be printed, in nothing else."""
    file.write_bytes(content)
    problems: tuple[Problem, ...] = ()
    text = ""
    try:
        text = json.dumps(show(load(file, environ=environ).settings))
    except ConfigError as error:
        problems, text = error.problems, str(error)

    assert text
    assert all(problem.message and problem.where for problem in problems)


@hypothesis_settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | YAML_LIKE.map(str.encode) | st.text(max_size=200).map(str.encode))
@example(content=b"!<")
@example(content=b"%YAML 999999999999999999999.1\n---\n")
@example(content=b"- &a\n- *a")
@example(content=b'"\\x"')
def test_any_text_loads_or_is_refused(file: Path, content: bytes) -> None:
    """No bytes raise anything but a ConfigError."""
    loads_or_refuses(file, content, {"HOME": "/root"})


@hypothesis_settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree_loads_or_is_refused(file: Path, tree: object) -> None:
    """No shape of values raises anything but a ConfigError."""
    loads_or_refuses(file, json.dumps(tree).encode(), {"HOME": "/root"})


ENVIRONMENTS = st.dictionaries(
    st.lists(KEYS.map(str.upper) | st.text(max_size=5), min_size=1, max_size=4).map(
        lambda s: "HOLDFAST_" + "__".join(s)
    ),
    YAML_LIKE | st.text(max_size=30) | st.just("\udcff"),
    max_size=5,
)


@hypothesis_settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(environ=ENVIRONMENTS)
@example(environ={"HOLDFAST_\udcff": "x"})
@example(environ={"HOLDFAST_PLANS__\udcff__HANDLER": "x"})
@example(environ={"HOLDFAST_X:\u00b2": "x"})
def test_any_environment_loads_or_is_refused(file: Path, environ: dict[str, str]) -> None:
    """No variable raises anything but a ConfigError."""
    loads_or_refuses(file, (STORE + "plans: {Web: {handler: tar}}").encode(), environ)
