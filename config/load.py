"""From a file, the environment and flags to settings that can be relied on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel, ValidationError

from config.consistency import report_conflicts
from config.document import read_document
from config.environment import COMMAND_LINE, CONFIG_VARIABLE, from_environment, from_flags
from config.layers import Layer, expanded, lay_over, read_secrets, refuse_both
from config.problems import ConfigError, Location, Origins, Problem, Report
from config.settings import Settings
from config.show import show
from config.validation import problems_from_validation, report_validation

DEFAULT_FILE: Final = Path("/etc/holdfast/config.yaml")
"""The file that is read when neither a flag nor `HOLDFAST_CONFIG` names one; it need not exist."""

MAX_FILE_BYTES: Final = 1_048_576
"""A configuration file that is larger was named by mistake."""

_NO_FLAGS: Final[Mapping[str, object]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings without a problem, with where they came from."""

    settings: Settings
    file: Path | None
    """The file that was read, None when there was none."""
    digest: str
    """SHA-256 of the effective settings without their secrets, as 64 hexadecimal digits.

    Equal settings have equal digests, whichever way they were given. A changed secret does not change it.
    """
    origins: Origins

    def locate(self, *location: str | int) -> str:
        """Where the key, or the nearest one around it, was given: `file:line`, a variable, the command line."""
        return self.origins.where(location)

    def problems(self, error: ValidationError, prefix: Location, model: type[BaseModel]) -> list[Problem]:
        """What is wrong with the part below `prefix` that `model` has refused, each with its place.

        Meant for the `options` of a plan: `loaded.problems(error, ("plans", "web", "options"), Options)`.
        """
        return problems_from_validation(error, prefix, self.origins, model)


def load(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] = _NO_FLAGS,
) -> Loaded:
    """The settings: defaults < file < environment < flags.

    Without `file` the one that `HOLDFAST_CONFIG` names is read, else `DEFAULT_FILE` if there is one. `environ` is
    the environment of the process unless given; keys of `flags` are dotted paths, a value of None says nothing.

    Raises ConfigError with every problem that can be seen at once; nothing else is raised, whatever is in the
    file. No problem quotes a secret.
    """
    if environ is None:
        environ = os.environ
    report = Report()
    chosen, text = _read(file, environ)
    below = _file_layer(chosen, text, environ, report)
    for upper in (from_environment(environ, Settings, below.tree, report), from_flags(flags, Settings, report)):
        refuse_both(upper, Settings, report)
        below = lay_over(below, upper, Settings)
    read_secrets(below, Settings, report)
    report_conflicts(below.tree, below.origins, report)
    settings = _validated(below, report)
    if settings is None or report.problems:
        raise ConfigError(report.problems, tree=below.tree, origins=below.origins)
    return Loaded(settings=settings, file=chosen, digest=digest(settings), origins=below.origins)


def digest(settings: Settings) -> str:
    """What `Loaded.digest` describes."""
    canonical = json.dumps(show(settings), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _file_layer(file: Path | None, text: str, environ: Mapping[str, str], report: Report) -> Layer:
    """The layer of the file, with its variables replaced; raises ConfigError when it is not YAML."""
    where = "defaults" if file is None else str(file)
    tree, origins = read_document(text, where=where, report=report)
    if report.told(()):
        raise ConfigError(report.problems)
    layer = Layer(tree={} if tree is None else tree, origins=origins)
    refuse_both(layer, Settings, report)
    return expanded(layer, Settings, environ, report)


def _validated(layer: Layer, report: Report) -> Settings | None:
    # As JSON, for only there does strictness mean what an operator expects: "4" is no number, /a/b is a path.
    text = json.dumps(layer.tree, default=_not_plain)
    try:
        return Settings.model_validate_json(text, strict=True)
    except ValidationError as error:
        report_validation(error, (), layer.origins, Settings, report)
        return None


def _not_plain(value: object) -> object:
    raise TypeError(f"a flag must be text, a number, true or false, not {type(value).__name__}")


def _read(file: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, str]:
    """The file to read with its text; raises ConfigError when a file that was asked for cannot be read."""
    chosen, where = DEFAULT_FILE, str(DEFAULT_FILE)
    if file is not None:
        chosen, where = file, COMMAND_LINE
    elif named := environ.get(CONFIG_VARIABLE):
        chosen, where = Path(named), CONFIG_VARIABLE
    try:
        with chosen.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        if chosen is DEFAULT_FILE and isinstance(error, FileNotFoundError | NotADirectoryError):
            return None, ""
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        problem = _file_problem(f"the configuration file cannot be read: {reason}", chosen, where)
    else:
        if len(content) <= MAX_FILE_BYTES:
            return chosen, _decoded(content, chosen)
        problem = _file_problem(f"the configuration file has more than {MAX_FILE_BYTES} bytes", chosen, where)
    raise ConfigError([problem])


def _file_problem(message: str, file: Path, where: str) -> Problem:
    return Problem(path="", message=message, value=repr(str(file)), hint=None, where=where)


def _decoded(content: bytes, file: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    problem = Problem(
        path="", message="is not UTF-8", value=None, hint="save the file as UTF-8", where=f"{file}:{line}"
    )
    raise ConfigError([problem])
