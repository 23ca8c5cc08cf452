"""The program as such: usage, errors, configuration, schemas, streams, start-up."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.e2e.workshop import PROGRAM, Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A place of its own for each test."""
    return Workshop(tmp_path)


def test_the_version_is_told(workshop: Workshop) -> None:
    """`--version` prints name and version."""
    done = workshop.run("--version")

    assert (done.returncode, re.fullmatch(r"holdfast \d+\.\d+\S*\n", done.stdout) is not None) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bakcup"], "did you mean 'backup'"),
        (["backup"], "missing argument 'PLAN'"),
        (["list", "--nonsense"], "no such option"),
        (["backup", "web", "--level", "many"], "level 'many' is none"),
        (["backup", "web", "--label", "team"], "label 'team' is none"),
        (["backup", "../web"], "plan:"),
        (["request", "web", "--not-after", "soon"], "time 'soon' is none"),
        (["request", "web", "--timeout", "3"], "--timeout"),
        (["schema", "nonsense"], "'nonsense' is not one of"),
        (["schema", "handler", "nonsense"], "unknown handler 'nonsense'"),
        (["schema", "event", "tar"], "takes no name"),
        (["show", "nonsense"], "no backup set 'nonsense'"),
        (["list", "nonsense"], "no plan 'nonsense'"),
        (["verify", "nonsense", "--all"], "nothing is stored"),
        (["--log-level", "loud", "list"], "log.level"),
    ],
)
def test_wrong_usage_is_one_block_and_exit_code_2(workshop: Workshop, arguments: list[str], told: str) -> None:
    """Whatever is wrong is told in one block, without a traceback."""
    done = workshop.run(*arguments)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert told.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_problem_of_the_configuration_is_told_at_once(workshop: Workshop) -> None:
    """`config check` tells all of them, with their places, and ends with 2."""
    workshop.config.write_text("concurrency: many\nnonsense: 1\n")

    done = workshop.run("config", "check")

    assert done.returncode == 2
    assert "2 problems" in done.stderr
    assert f"{workshop.config}:1: concurrency" in done.stderr
    assert f"{workshop.config}:2: nonsense" in done.stderr


def test_problems_of_a_handlers_options_are_told_too(workshop: Workshop) -> None:
    """What only the handler knows is checked as well."""
    workshop.configure("  other: {handler: tar, options: {nonsense: 1}}\n")

    done = workshop.run("config", "check")

    assert done.returncode == 2
    assert "plans.other.options" in done.stderr


def test_a_good_configuration_is_ok(workshop: Workshop) -> None:
    """`config check` says so in one line."""
    done = workshop.run("config", "check")

    assert (done.returncode, done.stdout) == (0, f"ok: {workshop.config}: 1 plan, 1 store\n")


def test_the_shown_configuration_is_the_configuration(workshop: Workshop) -> None:
    """What `config show` prints can be loaded, and means the same."""
    shown = workshop.run("config", "show").stdout
    copy = workshop.top / "copy.yaml"
    copy.write_text(shown.replace("path: null", "path: " + str(workshop.top / "state" / "spool")))
    again = subprocess.run([PROGRAM, "-c", str(copy), "config", "show", "--json"], capture_output=True, text=True)
    original = json.loads(workshop.run("config", "show", "--json").stdout)

    original["spool"]["path"] = str(workshop.top / "state" / "spool")

    assert json.loads(again.stdout) == original
    assert f"# {workshop.config}:1" in shown


def test_no_secret_is_shown(workshop: Workshop) -> None:
    """A password is a row of stars."""
    workshop.config.write_text(workshop.config.read_text() + "queue: {url: 'amqp://u:hunter2@localhost/'}\n")

    done = workshop.run("config", "show")

    assert done.returncode == 0
    assert "hunter2" not in done.stdout
    assert "********" in done.stdout


@pytest.mark.parametrize("which", [["request"], ["config"], ["manifest"], ["event"], ["handler", "tar"]])
def test_every_format_has_a_schema(workshop: Workshop, which: list[str]) -> None:
    """Each is a valid JSON Schema."""
    done = workshop.run("schema", *which)

    assert done.returncode == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(done.stdout))


def test_a_reader_that_went_away_is_no_error(workshop: Workshop) -> None:
    """The rest is left unsaid, quietly."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(workshop.command("schema", "config"), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_output_that_cannot_be_written_is_an_error(workshop: Workshop) -> None:
    """A full disk is told."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(workshop.command("schema", "config"), stdout=full, stderr=subprocess.PIPE)

    assert done.returncode == 1
    assert b"error: standard output could not be written: No space left on device" in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["config", "show"], ["backup", "web"]])
def test_heavy_libraries_are_loaded_when_they_are_needed(workshop: Workshop, arguments: list[str]) -> None:
    """Nobody waits for the broker's library, file events or a progress bar that is not drawn."""
    command = [sys.executable, "-X", "importtime", "-m", "worker.cli", "--config", str(workshop.config), *arguments]

    done = subprocess.run(command, capture_output=True, text=True)

    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0, done.stderr[-2000:]
    assert loaded.isdisjoint({"kombu", "watchdog", "rich", "amqp", "boto3"})


@pytest.mark.parametrize(("typed", "offered"), [("holdfast backup w", "web"), ("holdfast sh", "show")])
def test_the_shell_completes(workshop: Workshop, typed: str, offered: str) -> None:
    """Commands and plans."""
    words = typed.split()
    asked = {"_HOLDFAST_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    environment = {**workshop.environment(), "HOLDFAST_CONFIG": str(workshop.config), **asked}

    done = subprocess.run([PROGRAM], capture_output=True, text=True, env=environment)

    assert offered in done.stdout.split()


def test_completion_is_silent_about_a_broken_configuration(workshop: Workshop) -> None:
    """Nobody could read an error in the middle of a command line."""
    workshop.config.write_text("nonsense: [")
    asked = {"_HOLDFAST_COMPLETE": "complete_bash", "COMP_WORDS": "holdfast backup w", "COMP_CWORD": "2"}
    environment = {**workshop.environment(), "HOLDFAST_CONFIG": str(workshop.config), **asked}

    done = subprocess.run([PROGRAM], capture_output=True, text=True, env=environment)

    assert (done.stdout.strip(), done.stderr) == ("", "")
