"""What is wrong with a configuration is told, all of it, in words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from config.load import MAX_FILE_BYTES, Loaded, load
from config.problems import ConfigError, Problem

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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["node: '" + "://a:" * 200_000 + "'", "a: ['" + "', '" * 200_000 + "']", "k: v\n" * 9_000]
)
def test_no_text_of_a_legal_size_takes_long(file: Path, text: str) -> None:
    """Neither masking nor suggesting grows faster than the file."""
    started = time.monotonic()

    assert problems_of(file, text)

    assert time.monotonic() - started < 60


def test_suggestions_find_names_in_another_letter_case(file: Path) -> None:
    """Both settings and the operator's own names."""
    problems = problems_of(
        file, "LOG: {}\nstores: {NAS: {kind: local, path: /srv}}\nplans: {w: {handler: t, store: nas}}"
    )

    assert problems["LOG"].hint == "did you mean log?"
    assert problems["plans.w.store"].hint == "did you mean NAS?"


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
