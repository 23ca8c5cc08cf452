"""What a handler may be able to do beyond making backups, bringing them back.

A handler has an ability when it has its methods; the worker asks with isinstance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pydantic import BaseModel

from handlers.contract import Control, SetReader


@runtime_checkable
class Acknowledging(Protocol):
    """A handler that tells others when their data is safe."""

    def acknowledge(self, options: BaseModel, made: SetReader, control: Control) -> Sequence[str]:
        """Tell them that this set is committed, verified. Returns a sentence on each who could not be told.

        Called again after a crash, and when the same request comes again, perhaps days later: what was told already,
        or is not true any more, is not told again. Raises nothing but Cancelled and bugs.
        """


@runtime_checkable
class Gathering(Protocol):
    """A handler whose sets may each hold only some of what the plan names."""

    def may_lack_some(self, options: BaseModel) -> bool:
        """Whether a newer set may lack what an older one holds, and none can be let go for the newer one's sake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Managed:
    """What became of an action on one peer."""

    peer: str
    exit_code: int | None
    """None where the command did not come to an end: the peer could not be reached, or time was up."""
    output: str = ""
    """The end of what it wrote, standard output and standard error together."""
    error: str | None = None
    """What went wrong in words; None when nothing did."""


@runtime_checkable
class Managing(Protocol):
    """A handler that can have its peers do things."""

    def actions(self, options: BaseModel) -> Sequence[str]:
        """The actions that the configuration allows, by name."""

    def manage(self, options: BaseModel, action: str, *, full: bool, control: Control) -> Sequence[Managed]:
        """Have each peer that is managed carry out an action; one after the other fails by itself.

        `full` asks for the whole instead of what is new. Raises PermanentError for an action that is not allowed.
        """
