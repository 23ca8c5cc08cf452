"""Decides what becomes of a request whose work raised an error.

Pure: the attempt, the policy, the time and the jitter come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from handlers.errors import Cancelled, HoldfastError, TemporaryError

LONGEST_WAIT = timedelta(minutes=5)
"""Between two looks at what may be back any moment."""
BUG_ATTEMPTS = 2
"""How often a request is begun that runs into an unexpected exception; more of the same seldom helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a temporary error is tried again."""

    attempts: int
    first_delay: timedelta
    max_delay: timedelta
    patience: timedelta
    """How long a request waits for what it has no share in, such as a store that is away; without any, that uses up
    attempts like another error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again, not before this has passed."""

    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Try again, not before this has passed; the attempt does not count."""

    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """Leave the request as it was; the next start goes on with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Conclude with the outcome `failed` (or `refused`, by the exit code)."""

    exit_code: int


Disposition = Retry | Wait | HandBack | Fail


def disposition(
    error: Exception,
    *,
    attempt: int,
    policy: RetryPolicy,
    jitter: float,
    waited: timedelta = timedelta(),
    left: timedelta | None = None,
) -> Disposition:
    """What to do after the attempt-th try (from 1) ended in this error; jitter in [0, 1) spreads the delay.

    `waited` has passed since it began to wait for what it has no share in; `left` is the time to its deadline, None
    without one: a try that would begin after it is not made. Neither counts for a request in other hands: it may be
    succeeding there.
    """
    if isinstance(error, TemporaryError) and error.in_other_hands:
        return Wait(after=error.retry_after or policy.first_delay)
    verdict = _disposition(error, attempt, policy, jitter, waited)
    if isinstance(verdict, Retry | Wait) and left is not None and verdict.after > left:
        return Fail(exit_code=error.exit_code if isinstance(error, HoldfastError) else 1)
    return verdict


def _disposition(error: Exception, attempt: int, policy: RetryPolicy, jitter: float, waited: timedelta) -> Disposition:
    match error:
        case Cancelled():
            return HandBack()
        case TemporaryError(uses_up_attempt=False) if policy.patience:
            after = max(error.retry_after or timedelta(), patient(waited, policy, jitter))
            return Wait(after=after) if waited < policy.patience else Fail(exit_code=error.exit_code)
        case TemporaryError():
            if attempt >= policy.attempts:
                return Fail(exit_code=error.exit_code)
            return Retry(after=max(error.retry_after or timedelta(), backoff(attempt, policy, jitter)))
        case HoldfastError():
            return Fail(exit_code=error.exit_code)
        case _:
            if attempt >= min(BUG_ATTEMPTS, policy.attempts):
                return Fail(exit_code=1)
            return Retry(after=backoff(attempt, policy, jitter))


def is_last_try(attempt: int, policy: RetryPolicy, left: timedelta | None) -> bool:
    """Whether a TemporaryError that uses up its attempt would end the request, if it came now; `left` as above."""
    return isinstance(disposition(TemporaryError(""), attempt=attempt, policy=policy, jitter=1.0, left=left), Fail)


def backoff(attempt: int, policy: RetryPolicy, jitter: float) -> timedelta:
    """Twice as long after each attempt, up to the longest; between half of that and the whole, by jitter."""
    # 2^30 first delays are beyond any longest delay; a larger exponent would overflow timedelta.
    full = min(policy.first_delay * (1 << min(attempt - 1, 30)), policy.max_delay)
    return full * (0.5 + jitter / 2)


def patient(waited: timedelta, policy: RetryPolicy, jitter: float) -> timedelta:
    """A quarter of what was waited so far, at least the first delay, at most five minutes; spread like `backoff`."""
    full = min(max(waited / 4, policy.first_delay), policy.max_delay, LONGEST_WAIT)
    return full * (0.5 + jitter / 2)
