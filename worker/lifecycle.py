"""The states of a request and the moves between them.

Pure. The table below is the whole truth; `docs/architecture.md` shows it and a test compares the two.
"""

from __future__ import annotations

from enum import StrEnum

from handlers.errors import HoldfastError


class State(StrEnum):
    """How far a request is, as the journal has it."""

    ACCEPTED = "accepted"
    """It is ours: whatever happens, it ends in an outcome."""
    PRODUCED = "produced"
    """Every part is written and fsynced, invisible."""
    STORED = "stored"
    """The manifest is there: the backup exists."""
    VERIFIED = "verified"
    """The stored set was read again, as deep as the plan asks."""
    CONCLUDED = "concluded"
    """The outcome is fixed, its events are in the outbox."""
    ANNOUNCED = "announced"
    """Somebody took every event; nothing is left to do."""


class Step(StrEnum):
    """What is done next."""

    PRODUCE = "produce"
    COMMIT = "commit"
    VERIFY = "verify"
    CONCLUDE = "conclude"
    ANNOUNCE = "announce"
    NOTHING = "nothing"


NEXT_STEP: dict[State, Step] = {
    State.ACCEPTED: Step.PRODUCE,
    State.PRODUCED: Step.COMMIT,
    State.STORED: Step.VERIFY,
    State.VERIFIED: Step.CONCLUDE,
    State.CONCLUDED: Step.ANNOUNCE,
    State.ANNOUNCED: Step.NOTHING,
}

LEGAL_MOVES: dict[State, frozenset[State]] = {
    # CONCLUDED from everywhere before it: an error, a refusal or a duplicate ends a request early.
    State.ACCEPTED: frozenset({State.PRODUCED, State.STORED, State.VERIFIED, State.CONCLUDED}),
    State.PRODUCED: frozenset({State.STORED, State.ACCEPTED, State.CONCLUDED}),
    State.STORED: frozenset({State.VERIFIED, State.CONCLUDED}),
    State.VERIFIED: frozenset({State.CONCLUDED}),
    State.CONCLUDED: frozenset({State.ANNOUNCED}),
    State.ANNOUNCED: frozenset(),
}


class IllegalMove(HoldfastError):
    """A move that the table does not know: a bug, never an operator's mistake."""


def next_step(state: State) -> Step:
    """What to do with a request in this state."""
    return NEXT_STEP[state]


def move(now: State, to: State) -> State:
    """The new state. Raises IllegalMove where the table does not allow it."""
    if to not in LEGAL_MOVES[now]:
        raise IllegalMove(f"a request cannot go from {now} to {to}")
    return to


def after_crash(state: State) -> State:
    """Where a request goes on after its worker died.

    A PRODUCED set lived in a draft whose lock died with the worker; it is swept, and made again.
    """
    return State.ACCEPTED if state is State.PRODUCED else state
