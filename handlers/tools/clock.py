"""The time of day, as an argument rather than a fact."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Gives the present as an aware datetime in UTC."""


def system_clock() -> datetime:
    """The system's idea of now."""
    return datetime.now(UTC)
