"""Sorts requests for people who look over many: what is open, what ended well, what did not, what is parked.

Pure. The rule is written twice: once for an entry, once for SQLite, which keeps an index by it. A contract test holds
the two against each other.
"""

from __future__ import annotations

from enum import StrEnum

import orjson


class Standing(StrEnum):
    """Where a request stands."""

    UNFINISHED = "unfinished"
    """It has no outcome yet."""
    DONE = "done"
    """What was asked for exists; for a partial set, most of it."""
    FAILED = "failed"
    """It ended as failed or refused."""
    PARKED = "parked"
    """It failed for a reason that may pass (exit code 7), and nobody has asked again for it yet."""


EVERY = frozenset(Standing)
_GOOD = frozenset({"succeeded", "partial", "duplicate"})
_TEMPORARY = 7

# Whatever does not say that it went well did not.
ENDED_SQL = """CASE
    WHEN NOT json_valid(CAST(outcome AS TEXT)) THEN 'failed'
    WHEN json_extract(CAST(outcome AS TEXT), '$.outcome') IN ('succeeded', 'partial', 'duplicate') THEN 'done'
    WHEN again IS NULL AND json_extract(CAST(outcome AS TEXT), '$.outcome') = 'failed'
        AND json_extract(CAST(outcome AS TEXT), '$.exit_code') = 7 THEN 'parked'
    ELSE 'failed' END"""
"""The standing of a request that has an outcome, from the columns `outcome` and `again`."""


def standing(outcome: bytes | None, *, asked_again: bool) -> Standing:
    """The standing of a request with this outcome."""
    if outcome is None:
        return Standing.UNFINISHED
    try:
        told = orjson.loads(outcome)
    except orjson.JSONDecodeError:
        return Standing.FAILED
    if not isinstance(told, dict):
        return Standing.FAILED
    if told.get("outcome") in _GOOD:
        return Standing.DONE
    if told.get("outcome") == "failed" and told.get("exit_code") == _TEMPORARY and not asked_again:
        return Standing.PARKED
    return Standing.FAILED
