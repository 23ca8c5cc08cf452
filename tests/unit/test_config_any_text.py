"""Whatever the bytes: loading ends in settings or in problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from config.load import load
from config.problems import ConfigError, Problem
from config.show import show

STORE = "stores:\n  nas: {kind: local, path: /srv/backups}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A place for a configuration file, not written yet."""
    return tmp_path / "config.yaml"


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


@pytest.mark.slow
@hypothesis_settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | YAML_LIKE.map(str.encode) | st.text(max_size=200).map(str.encode))
@example(content=b"!<")
@example(content=b"%YAML 999999999999999999999.1\n---\n")
@example(content=b"- &a\n- *a")
@example(content=b'"\\x"')
def test_any_text_loads_or_is_refused(file: Path, content: bytes) -> None:
    """No bytes raise anything but a ConfigError."""
    loads_or_refuses(file, content, {"HOME": "/root"})


@pytest.mark.slow
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


@pytest.mark.slow
@hypothesis_settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(environ=ENVIRONMENTS)
@example(environ={"HOLDFAST_\udcff": "x"})
@example(environ={"HOLDFAST_PLANS__\udcff__HANDLER": "x"})
@example(environ={"HOLDFAST_X:\u00b2": "x"})
def test_any_environment_loads_or_is_refused(file: Path, environ: dict[str, str]) -> None:
    """No variable raises anything but a ConfigError."""
    loads_or_refuses(file, (STORE + "plans: {Web: {handler: tar}}").encode(), environ)
