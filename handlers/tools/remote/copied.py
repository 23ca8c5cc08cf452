"""What the copying programs tell: how far they are, what they could not copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers.contract import ProblemKind
from handlers.errors import TemporaryError


class TargetFull(TemporaryError):
    """The directory to copy into cannot be written, mostly because its disk is full; it is no fault of the peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyProblem:
    """One name that could not be copied as it should be."""

    path: bytes
    """Relative to the directory where it lies below it, as the program names it otherwise."""
    kind: ProblemKind
    """VANISHED, UNREADABLE, CHANGED (it was written meanwhile), SOCKET or UNKNOWN_TYPE (left out), OTHER."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """How a copy ended that came to its end. What was asked for has to be looked for in the target all the same."""

    problems: tuple[CopyProblem, ...] = ()
    """The first MAX_LISTED_PROBLEMS."""
    problem_count: int = 0
    files: int | None = None
    """Regular files that were fetched, where the program tells."""
    bytes_received: int | None = None
    """Over the line, where the program tells."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions of the local programs."""

    @property
    def complete(self) -> bool:
        """Whether nothing was left behind, as far as the program tells."""
        return not self.problem_count
