"""The page about the command line tells of every command and option, and of nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from worker.commands.program import app
from worker.events import ExitCode

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()


def test_every_command_and_option_is_on_the_page_and_vice_versa() -> None:
    """Each command has a section with a table of its options."""
    documented = {
        title: set(
            re.findall(r"`(--?[a-zA-Z0-9][a-z-]*)`", " ".join(re.findall(r"^\|([^|]*)\|", section, re.MULTILINE)))
        )
        for title, section in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        if title != "Exit codes"
    }

    existing = {name: _options(command) for name, command in _commands(typer.main.get_command(app))}
    existing["Before the command"] |= {"--help", "-h"}

    assert documented == existing


def test_every_exit_code_is_on_the_page_and_vice_versa() -> None:
    """The table is the one of the events."""
    section = PAGE.partition("## Exit codes")[2].partition("## ")[0]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}

    assert documented == {value for name, value in vars(ExitCode).items() if name.isupper()}


def _commands(root: Any) -> Iterator[tuple[str, Any]]:
    yield "Before the command", root
    for name, command in root.commands.items():
        below = getattr(command, "commands", None)
        if below is None:
            yield name, command
        else:
            yield from ((f"{name} {inner}", each) for inner, each in below.items())


def _options(command: Any) -> set[str]:
    return {
        text
        for parameter in command.params
        if parameter.param_type_name == "option"
        for text in (*parameter.opts, *parameter.secondary_opts)
        if text not in {"--help", "-h"}
    }
