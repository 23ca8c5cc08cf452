"""Decides what becomes of a request whose work raised an error.

Pure: the attempt, the policy and the jitter come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from handlers.errors import Cancelled, HoldfastError, TemporaryError

BUG_ATTEMPTS = 2
"""How often a request is begun that runs into an unexpected exception; more of the same seldom helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a temporary error is tried again."""

    attempts: int
    first_delay: timedelta
    max_delay: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Try again, not before this has passed."""

    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class HandBack:
    """Leave the request as it was; the next start goes on with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """Conclude with the outcome `failed` (or `refused`, by the exit code)."""

    exit_code: int


Disposition = Retry | HandBack | Fail


def disposition(error: Exception, *, attempt: int, policy: RetryPolicy, jitter: float) -> Disposition:
    """What to do after the attempt-th try (from 1) ended in this error; jitter in [0, 1) spreads the delay."""
    match error:
        case Cancelled():
            return HandBack()
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


def backoff(attempt: int, policy: RetryPolicy, jitter: float) -> timedelta:
    """Twice as long after each attempt, up to the longest; between half of that and the whole, by jitter."""
    # 2^30 first delays are beyond any longest delay; a larger exponent would overflow timedelta.
    full = min(policy.first_delay * (1 << min(attempt - 1, 30)), policy.max_delay)
    return full * (0.5 + jitter / 2)
