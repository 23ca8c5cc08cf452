"""The errors that decide what happens next to a request.

Four words carry the policy; `worker.disposition` turns them into an act. Anything else that is raised is a bug.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar


class HoldfastError(Exception):
    """An error with a meaning: a message in lower case that names the thing and the value, and perhaps a hint."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class TemporaryError(HoldfastError):
    """It may work later: the request is tried again, not before `retry_after` where that is given."""

    exit_code: ClassVar[int] = 7
    uses_up_attempt: ClassVar[bool] = True
    """False where the request has no share in it, for instance because its store is away: it waits, however often."""
    in_other_hands: ClassVar[bool] = False
    """True where somebody else works on the request just now: it has its outcome from there, and none from us yet."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after: timedelta | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class PermanentError(HoldfastError):
    """It will not work until a person changes something: the request ends as `failed`."""

    exit_code: ClassVar[int] = 1


class NothingNew(HoldfastError):
    """All there is to back up is in a set already: the request succeeds, and makes no other."""

    exit_code: ClassVar[int] = 0


class IntegrityError(HoldfastError):
    """What was stored is not what was written, or not what it claims to be: wakes a person."""

    exit_code: ClassVar[int] = 6


class Cancelled(HoldfastError):
    """Somebody asked to stop; nothing is wrong. The request is handed back untouched."""

    exit_code: ClassVar[int] = 130
