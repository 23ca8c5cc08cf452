"""One request as it arrived, together with the promise to settle it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol


class Settlement(StrEnum):
    """What becomes of a delivery."""

    ACCEPT = "accept"
    """It is in safe hands: the intake forgets it."""
    REJECT = "reject"
    """It is no request: the intake puts it with the dead letters."""
    HAND_BACK = "hand_back"
    """Nothing was done with it: the intake keeps it for whoever comes next."""


class Delivery(Protocol):
    """One arrival of one message. The same message may arrive many times."""

    @property
    def body(self) -> bytes:
        """The message, as it came."""

    @property
    def intake(self) -> str:
        """Which intake brought it: spool or queue."""

    @property
    def message_id(self) -> str | None:
        """The transport's own id for the message, if it has one."""

    @property
    def reply_to(self) -> str | None:
        """A reply queue named by the transport's properties."""

    @property
    def correlation_id(self) -> str | None:
        """Named by the transport's properties; given back with the outcome."""

    @property
    def redelivered(self) -> bool:
        """Whether this message may have arrived before."""

    def settle(self, settlement: Settlement, reason: str = "") -> None:
        """Say what becomes of it; safe from any thread, safe to repeat, and never blocks on a network.

        When it has taken effect is the intake's affair: until then the message may arrive again.
        """

    def defer(self, after: timedelta) -> None:
        """Its request failed for a passing reason: nobody needs this arrival before so much time has passed.

        From here on it keeps no other from being brought. The intake keeps it, or has its transport bring it again as
        a redelivery; should this process die, it comes again in any case. It may still be settled, which changes
        nothing where it is with the transport already. Any thread, safe to repeat, never blocks on a network.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How an intake and the worker agree on how much may come in."""

    deliver: Callable[[Delivery], None]
    """Hands over one delivery; returns when it is journalled or refused. Raises nothing but bugs."""
    room: Callable[[], int]
    """How many more requests the worker would begin now; 0 means bring nothing."""


class Intake(Protocol):
    """A place where requests arrive. Runs in a thread of its own."""

    @property
    def name(self) -> str:
        """For logs and `status`."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be brought at this moment; None when all is well. Any thread."""

    def run(self, gate: Gate) -> None:
        """Bring deliveries until `stop`; returns when every settlement was carried out or handed back.

        Survives the transport's failures by itself (it says so in the log, once each time). Raises only bugs.
        """

    def poke(self) -> None:
        """There may be room again: look. Any thread."""

    def stop(self) -> None:
        """Bring nothing new; `run` still carries out settlements until `close`. Any thread."""

    def close(self) -> None:
        """No more settlements will come: `run` may return. Any thread."""
