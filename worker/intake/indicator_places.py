"""Finds the directories in which indicators may be, without ever being led elsewhere.

A pattern's beginning, up to its first wildcard, is the operator's own word and may lead through symbolic links. What is
below may belong to somebody hostile: it is opened name by name, each in the directory before, and no link is followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

_PASS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Directories as the operator names them."""

    text: str
    base: str
    """What comes before the first wildcard, without the last name."""
    steps: tuple[str, ...]
    """The names below, from there on; some with wildcards."""

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """An absolute path, in some of whose names `*`, `?` and `[...]` stand for parts of names."""
        names = [name for name in text.split("/") if name not in {"", "."}]
        fixed = next((at for at, name in enumerate(names) if is_wild(name)), max(len(names) - 1, 0))
        return cls(text=text, base="/" + "/".join(names[:fixed]), steps=tuple(names[fixed:]))


@dataclass(frozen=True, slots=True)
class Place:
    """One directory in which an indicator may be."""

    base: str
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        """Where it is, to be shown."""
        return os.path.join(self.base, *self.names)  # noqa: PTH118 - never opened by this name

    @property
    def name(self) -> str:
        """Its own name."""
        return os.path.basename(self.path)  # noqa: PTH119 - only a word

    def open(self, *, to_list: bool = False) -> int:
        """A descriptor of it, to be closed; good for reading its names and for fsync only with `to_list`.

        Raises OSError.
        """
        descriptor = open_base(self.base, to_list=to_list and not self.names)
        for number, name in enumerate(self.names, 1):
            try:
                inner = open_step(descriptor, name, to_list=to_list and number == len(self.names))
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor


def is_wild(step: str) -> bool:
    """Whether it stands for more than one name."""
    return _WILD.search(step) is not None


def fits(name: str, step: str) -> bool:
    """Whether a name is one of those; as in a shell, a wildcard at the beginning leaves hidden names out."""
    if not is_wild(step):
        return name == step
    return fnmatchcase(name, step) and (not name.startswith(".") or step.startswith("."))


def open_base(base: str, *, to_list: bool) -> int:
    """The directory where a pattern begins. Raises OSError."""
    return os.open(base, _LIST if to_list else _PASS)


def open_step(descriptor: int, name: str, *, to_list: bool) -> int:
    """A directory in that one; raises OSError, also where it is only a link to one."""
    return os.open(name, (_LIST if to_list else _PASS) | os.O_NOFOLLOW, dir_fd=descriptor)


def names_in(descriptor: int, step: str) -> list[str]:
    """The directories in this one that the step stands for, and links that fit. Raises OSError."""
    with os.scandir(descriptor) as entries:
        return sorted(
            entry.name
            for entry in entries
            if fits(entry.name, step) and (entry.is_dir(follow_symlinks=False) or entry.is_symlink())
        )


def all_places(patterns: Sequence[Pattern]) -> Iterator[Place]:
    """Every directory there is now; one that cannot be reached is left out."""
    for pattern in patterns:
        yield from _below(Place(pattern.base, ()), pattern.steps)


def _below(place: Place, steps: Sequence[str]) -> Iterator[Place]:
    with suppress(OSError):
        wild = bool(steps) and is_wild(steps[0])
        descriptor = place.open(to_list=wild)
        try:
            names = names_in(descriptor, steps[0]) if wild else list(steps[:1])
        finally:
            os.close(descriptor)
        if not steps:
            yield place
        for name in names:
            yield from _below(Place(place.base, (*place.names, name)), steps[1:])
