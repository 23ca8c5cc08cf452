"""What is taken of a peer, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from handlers.contract import ProblemKind
from handlers.errors import HoldfastError, PermanentError
from handlers.tools.peers.files import Dress

MAX_PROBLEMS = 100_000
"""Names of one peer that cannot be staged; with more of them the peer itself has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is taken of a peer, and how."""

    dress: Dress = field(default_factory=Dress)
    recursive: bool = True
    links: bool = False
    """Whether symbolic links are taken, as links."""
    hard_link: bool = False
    left_out: frozenset[bytes] = frozenset()
    """Names in the top directory that are not the peer's files."""
    max_bytes: int | None = None
    """How much the peer may offer."""

    def check_size(self, size_bytes: int) -> None:
        """Raises PermanentError where that is more than it may offer."""
        if self.max_bytes is not None and size_bytes > self.max_bytes:
            raise PermanentError(
                f"its files have more than {self.max_bytes} bytes",
                hint="clear its collect directory, or raise max_bytes",
            )


@dataclass(slots=True)
class Outcome:
    """What there is of a peer in the set."""

    files: int = 0
    """Names, directories included."""
    contents: int = 0
    """Of those, what is no directory."""
    size_bytes: int = 0
    left_out: list[str] = field(default_factory=list)
    problems: dict[bytes, tuple[ProblemKind, str]] = field(default_factory=dict)
    """Names, relative to the peer's directory, that are not in the set as they should be."""
    refused: list[bytes] = field(default_factory=list)
    """Those of them that are of a kind that is not taken."""
    taken_again: int = 0
    kept: int = 0
    """Files that an earlier attempt had brought already."""

    def add(self, path: bytes, kind: ProblemKind, detail: str) -> None:
        """One more name that is not as it should be. Raises PermanentError where there are too many of them."""
        self.problems[path] = kind, detail
        if len(self.problems) > MAX_PROBLEMS:
            raise PermanentError(f"more than {MAX_PROBLEMS} of its files cannot be staged, {detail} for instance")


def in_words(error: HoldfastError) -> str:
    """What went wrong and what to do about it, in one line."""
    return error.message if error.hint is None else f"{error.message} ({error.hint})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A peer of which all that would come has come."""

    indicator: str | None
    """Which collect indicator it had before."""
    outcome: Outcome
    compared: str
    """How what came was compared with what the peer has."""
    trouble: str | None = None
    """What kept the rest from coming."""
