"""What a set is called, by what is wrong with its files."""

from __future__ import annotations

from typing import Literal

import pytest

from handlers.contract import FileProblem, ProblemKind, Produced
from worker.policy import SubjectUnreadable, outcome_of

LOSSES = [kind for kind in ProblemKind if kind.is_loss]
HARMLESS = [kind for kind in ProblemKind if not kind.is_loss and kind is not ProblemKind.CHANGED]


def made(kind: ProblemKind, path: str = "etc/shadow") -> Produced:
    """A set with one problem."""
    problem = FileProblem(kind=kind, path=path, detail="Permission denied")
    return Produced(parts=(), files=3, bytes_in=9, problems=(problem,), problem_counts={kind: 1})


def test_a_set_without_problems_has_succeeded() -> None:
    """Whatever the plan says about problems."""
    whole = Produced(parts=(), files=3, bytes_in=9)

    assert outcome_of(whole, on_unreadable="fail", on_changed="partial") == "succeeded"


@pytest.mark.parametrize("kind", LOSSES)
def test_a_lost_file_makes_a_set_partial(kind: ProblemKind) -> None:
    """Never a success where content is missing."""
    assert outcome_of(made(kind), on_unreadable="partial", on_changed="warn") == "partial"


@pytest.mark.parametrize("kind", LOSSES)
def test_a_lost_file_fails_a_plan_that_wants_all_or_nothing(kind: ProblemKind) -> None:
    """The error names the file, with what the system said, and what can be done."""
    with pytest.raises(SubjectUnreadable, match="etc/shadow: Permission denied") as caught:
        outcome_of(made(kind), on_unreadable="fail", on_changed="warn")

    assert "on_unreadable: partial" in (caught.value.hint or "")


@pytest.mark.parametrize(("on_changed", "word"), [("warn", "succeeded"), ("partial", "partial")])
def test_a_changed_file_is_what_the_plan_says(on_changed: Literal["warn", "partial"], word: str) -> None:
    """Some subjects always change while they are read, in others it is a sign of trouble."""
    assert outcome_of(made(ProblemKind.CHANGED), on_unreadable="fail", on_changed=on_changed) == word


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_is_no_loss_is_no_reason(kind: ProblemKind) -> None:
    """Sockets, for one, have nothing to back up."""
    assert outcome_of(made(kind), on_unreadable="fail", on_changed="partial") == "succeeded"
