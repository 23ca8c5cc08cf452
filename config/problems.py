"""What is wrong with a configuration, told so that it can be put right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Final, TypeAlias

from config.secrets import MASK, without_userinfo

Location: TypeAlias = tuple[str | int, ...]
"""The way from the root of the tree to a key: names in mappings, numbers in lists."""

SHOWN_PROBLEMS: Final = 100
"""How many problems `str(ConfigError)` lists; `problems` has all of them."""

_SHOWN_CHARACTERS: Final = 80
_QUOTED_CHARACTERS: Final = 1_000
_LISTED_NAMES: Final = 24
_COMPARED_NAMES: Final = 500
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing an operator has to put right."""

    path: str
    """The key, such as `plans.web.handler` or `queue.routing_keys[0]`; empty for the file as a whole."""
    message: str
    """What is wrong, in lower case, without a full stop."""
    value: str | None
    """What was given, shortened, `********` for a secret; None where that says nothing."""
    hint: str | None
    """What to do about it."""
    where: str
    """`file:line`, the name of an environment variable, or the command line."""

    def __str__(self) -> str:
        subject = f" {self.path}:" if self.path else ""
        value = f" (given: {self.value})" if self.value is not None else ""
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return f"{self.where}:{subject} {self.message}{value}{hint}"


class ConfigError(Exception):
    """The configuration cannot be used: `problems` has everything that is wrong with it, never empty."""

    exit_code: ClassVar[int] = 2

    def __init__(self, problems: Iterable[Problem], *, tree: object = None, origins: Origins | None = None) -> None:
        """`tree` is what was read, as far as it could be, so that others can look for further problems in it."""
        self.problems = tuple(problems)
        self.tree = tree
        self.origins = origins
        super().__init__(self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        lines = [f"the configuration has {count} problem{'s' if count != 1 else ''}:"]
        lines += [f"  {problem}" for problem in self.problems[:SHOWN_PROBLEMS]]
        if count > SHOWN_PROBLEMS:
            lines.append(f"  ... {count - SHOWN_PROBLEMS} more")
        return "\n".join(lines)


class Origins:
    """Where each key of a tree was given."""

    def __init__(self, fallback: str = "defaults") -> None:
        self._fallback = fallback
        self._places: dict[Location, str] = {}

    def __contains__(self, location: Location) -> bool:
        return location in self._places

    def record(self, location: Location, where: str) -> None:
        """From now on the key is told to come from there."""
        self._places[location] = where

    def where(self, location: Location) -> str:
        """Where the key was given, or the nearest one around it; what the whole is called if there is none."""
        for length in range(len(location), -1, -1):
            if place := self._places.get(location[:length]):
                return place
        return self._fallback

    def replace(self, location: Location, other: Origins) -> None:
        """Forget the key and what is below it; take over what the other origins know there."""
        length = len(location)
        for known in [known for known in self._places if known[:length] == location]:
            del self._places[known]
        self.record(location, other.where(location))
        for known, place in other._places.items():
            if known[:length] == location:
                self._places[known] = place


class Report:
    """The problems found so far, the first of a key silencing later ones of it, or of what is below it."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._told: set[Location] = set()

    def add(
        self,
        location: Location,
        message: str,
        *,
        where: str,
        value: str | None = None,
        hint: str | None = None,
        silences: bool = True,
    ) -> None:
        """Add a problem, unless the key or one around it has one that silences it."""
        if self.told(location):
            return
        if silences:
            self._told.add(location)
        path = shown_path(location)
        self._problems.append(Problem(path=path, message=message, value=value, hint=hint, where=where))

    def silence(self, location: Location) -> None:
        """Say no more about the key: what is wrong with it has been told under another one."""
        self._told.add(location)

    def told(self, location: Location) -> bool:
        """Whether the key or one around it has a problem already; the root counts only for itself."""
        return any(location[:length] in self._told for length in range(min(1, len(location)), len(location) + 1))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All problems, in the order of the lines they stand on."""
        return tuple(sorted(self._problems, key=_by_line))


def _by_line(problem: Problem) -> tuple[str, int]:
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (problem.where, 0)


def shown_path(location: Location) -> str:
    """The location as text: dots between names, numbers and unusual names in brackets."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step) and len(step) <= _SHOWN_CHARACTERS:
            text += f".{step}" if text else step
        else:
            text += f"[{_shortened(ascii(step))}]"
    return text


def shown_value(value: object, *, hidden: bool = False) -> str:
    """The value for a message: short, on one line, the mask when hidden; collections are never quoted."""
    match value:
        case _ if hidden:
            return MASK
        case dict():
            return f"a mapping with {len(value)} keys"
        case list() | tuple():
            return f"a list of {len(value)}"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str() if len(value) > _QUOTED_CHARACTERS:
            return f"text of {len(value)} characters"
        case str():
            return _shortened(repr(without_userinfo(value)))
        case _:
            return _shortened(str(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def closest(given: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, whatever the letter case, if any is near enough."""
    compared = {name.lower(): name for name in islice(known, _COMPARED_NAMES)}
    matches = difflib.get_close_matches(given[:_SHOWN_CHARACTERS].lower(), compared, n=1, cutoff=0.6)
    return compared[matches[0]] if matches else None


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """A hint that names what was probably meant, else what there is if that is not too much."""
    names = sorted(known)
    if match := closest(given, names):
        return f"did you mean {match}?"
    return f"known: {', '.join(names)}" if 0 < len(names) <= _LISTED_NAMES else None
