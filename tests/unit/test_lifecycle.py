"""The states of a request and the moves between them."""

from __future__ import annotations

import pytest

from worker.lifecycle import LEGAL_MOVES, NEXT_STEP, IllegalMove, State, Step, after_crash, move, next_step

BEFORE_THE_END = [State.ACCEPTED, State.PRODUCED, State.STORED, State.VERIFIED]


def reachable(start: State) -> set[State]:
    """Every state that legal moves lead to, without the start unless they lead back."""
    found: set[State] = set()
    ahead = [start]
    while ahead:
        fresh = LEGAL_MOVES[ahead.pop()] - found
        found |= fresh
        ahead += fresh
    return found


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_next_step_and_its_moves(state: State) -> None:
    """The tables leave no state out."""
    assert next_step(state) is NEXT_STEP[state]
    assert state in LEGAL_MOVES


def test_the_steps_follow_the_way_of_a_request() -> None:
    """Make, commit, verify, conclude, announce, rest."""
    assert [next_step(state) for state in State] == [
        Step.PRODUCE,
        Step.COMMIT,
        Step.VERIFY,
        Step.CONCLUDE,
        Step.ANNOUNCE,
        Step.NOTHING,
    ]


@pytest.mark.parametrize("now", State)
@pytest.mark.parametrize("to", State)
def test_a_move_is_made_exactly_where_the_table_allows_it(now: State, to: State) -> None:
    """The new state is returned, or the move refused by name."""
    if to in LEGAL_MOVES[now]:
        assert move(now, to) is to
    else:
        with pytest.raises(IllegalMove, match=f"from {now} to {to}"):
            move(now, to)


@pytest.mark.parametrize("state", BEFORE_THE_END)
def test_every_request_can_come_to_its_end(state: State) -> None:
    """An error may end it at once; whatever happens, the way to ANNOUNCED is open."""
    assert move(state, State.CONCLUDED) is State.CONCLUDED
    assert State.ANNOUNCED in reachable(state)


def test_an_outcome_is_final() -> None:
    """Nothing is worked on again after it."""
    assert reachable(State.CONCLUDED) == {State.ANNOUNCED}
    assert reachable(State.ANNOUNCED) == set()


@pytest.mark.parametrize("state", [State.STORED, State.VERIFIED])
def test_a_stored_backup_is_never_made_again(state: State) -> None:
    """No move leads back before the commit."""
    assert reachable(state).isdisjoint({State.ACCEPTED, State.PRODUCED})


@pytest.mark.parametrize("state", State)
def test_after_a_crash_only_an_uncommitted_set_is_made_again(state: State) -> None:
    """Its draft died with the worker; everything else goes on where it was, by a legal move."""
    resumed = after_crash(state)

    if state is State.PRODUCED:
        assert resumed is move(state, State.ACCEPTED)
    else:
        assert resumed is state
