"""Decides what makes and unpacks archives: GNU tar, or our own code where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from handlers.errors import PermanentError
from handlers.tools.tar import program as tar

Wanted = Literal["auto", "gnu", "internal"]


@dataclass(frozen=True, slots=True)
class Gnu:
    """GNU tar of this version: any number of levels."""

    version: str

    def __str__(self) -> str:
        return f"GNU tar {self.version}"


@dataclass(frozen=True, slots=True)
class Internal:
    """Our own code: level 0 only."""

    because: str

    def __str__(self) -> str:
        return f"internal, because {self.because}: level 0 only"


Engine = Gnu | Internal


class LevelUnavailable(PermanentError):
    """A level above 0 was asked for, and there is no GNU tar."""

    exit_code = 4


def engine(wanted: Wanted) -> Engine:
    """What serves a plan that wants this engine, as things are now.

    Raises PermanentError where GNU tar is wanted and there is none that will do.
    """
    if wanted == "internal":
        return Internal("the plan asks for it")
    try:
        return Gnu(tar.version())
    except PermanentError as error:
        if wanted == "gnu":
            raise
        return Internal(error.message)


def is_internal(wanted: Wanted) -> bool:
    """Whether a plan that wants this engine gets full backups only, as things are now."""
    return wanted != "gnu" and isinstance(engine(wanted), Internal)


def require_level(made_by: Engine, level: int) -> None:
    """Return if this engine makes this level. Raises LevelUnavailable."""
    if level and isinstance(made_by, Internal):
        raise LevelUnavailable(
            f"level {level} takes GNU tar, but the tar engine is {made_by}",
            hint=f"ask for level `auto` or 0, or {tar.HINT}",
        )


def has_gnu_tar() -> bool:
    """Whether there is a GNU tar that will do."""
    return not is_internal("auto")


def require_gnu_tar() -> None:
    """Return if what a chain of levels takes to be restored is there. Raises PermanentError."""
    try:
        tar.version()
    except PermanentError as error:
        raise PermanentError(
            f"a chain of levels takes GNU tar to be restored: {error.message}",
            hint=f"{tar.HINT}; single paths come back without it",
        ) from error
