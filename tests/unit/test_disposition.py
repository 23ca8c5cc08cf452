"""What becomes of a request whose work raised an error."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import Cancelled, IntegrityError, PermanentError, TemporaryError
from worker.disposition import BUG_ATTEMPTS, Fail, HandBack, Retry, RetryPolicy, Wait, backoff, disposition, patient

POLICY = RetryPolicy(
    attempts=5, first_delay=timedelta(seconds=10), max_delay=timedelta(hours=1), patience=timedelta(days=1)
)


def test_cancelled_work_is_handed_back() -> None:
    """Nothing is wrong with it."""
    assert disposition(Cancelled("stop"), attempt=99, policy=POLICY, jitter=0) == HandBack()


def test_temporary_error_is_tried_again() -> None:
    """After the first delay, spread by jitter."""
    verdict = disposition(TemporaryError("full"), attempt=1, policy=POLICY, jitter=0)

    assert verdict == Retry(after=timedelta(seconds=5))


def test_error_may_ask_for_a_longer_wait() -> None:
    """It knows when it makes sense."""
    error = TemporaryError("away", retry_after=timedelta(minutes=7))

    assert disposition(error, attempt=1, policy=POLICY, jitter=0.5) == Retry(after=timedelta(minutes=7))


def test_attempts_are_bounded() -> None:
    """At last it is a failure, with the exit code of its kind."""
    assert disposition(TemporaryError("full"), attempt=5, policy=POLICY, jitter=0) == Fail(exit_code=7)


@pytest.mark.parametrize(("error", "code"), [(PermanentError("no"), 1), (IntegrityError("torn"), 6)])
def test_permanent_error_is_not_tried_again(error: Exception, code: int) -> None:
    """It would not help."""
    assert disposition(error, attempt=1, policy=POLICY, jitter=0) == Fail(exit_code=code)


def test_bug_is_tried_a_few_times() -> None:
    """It may have been the surroundings."""
    assert isinstance(disposition(KeyError("x"), attempt=1, policy=POLICY, jitter=0), Retry)
    assert disposition(KeyError("x"), attempt=BUG_ATTEMPTS, policy=POLICY, jitter=0) == Fail(exit_code=1)


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_delay_grows_up_to_the_longest(attempt: int, jitter: float) -> None:
    """Never longer, never shorter than half of it, never an overflow."""
    delay = backoff(attempt, POLICY, jitter)

    full = min(POLICY.first_delay * 2 ** min(attempt - 1, 20), POLICY.max_delay)
    assert full / 2 <= delay <= full


class Away(TemporaryError):
    """What the request has no share in."""

    uses_up_attempt = False


def test_what_the_request_has_no_share_in_uses_up_no_attempt() -> None:
    """However often it was tried."""
    verdict = disposition(Away("store away"), attempt=99, policy=POLICY, jitter=0, waited=timedelta(hours=2))

    assert verdict == Wait(after=timedelta(minutes=2.5))


def test_patience_has_an_end() -> None:
    """Then it is a failure like another, worth another try by somebody."""
    verdict = disposition(Away("store away"), attempt=1, policy=POLICY, jitter=0, waited=timedelta(days=1))

    assert verdict == Fail(exit_code=7)


@pytest.mark.parametrize("error", [TemporaryError("busy"), Away("store away"), KeyError("x")])
def test_no_try_is_made_after_the_deadline(error: Exception) -> None:
    """A request is never begun later than its caller wants."""
    late = disposition(error, attempt=1, policy=POLICY, jitter=0, left=timedelta(seconds=4))
    early = disposition(error, attempt=1, policy=POLICY, jitter=0, left=timedelta(seconds=6))

    assert isinstance(late, Fail)
    assert isinstance(early, Retry | Wait)


@given(waited=st.timedeltas(timedelta(), timedelta(days=3)), jitter=st.floats(0, 1, exclude_max=True))
def test_waiting_is_looked_after_ever_more_seldom(waited: timedelta, jitter: float) -> None:
    """Never sooner than half the first delay, never later than the longest."""
    assert POLICY.first_delay / 2 <= patient(waited, POLICY, jitter) <= POLICY.max_delay
