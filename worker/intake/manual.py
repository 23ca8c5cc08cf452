"""Makes the request of somebody who types a command."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from handlers.contract import PlanName
from worker.intake.wire import BackupRequest, Operation, RequestData

Level = Literal["auto", "full", "incremental"] | int


def new_id(now: datetime) -> str:
    """An id nobody else has; sorts by time, so that the sets in a directory do too."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def new_request(
    plan: PlanName,
    *,
    now: datetime,
    operation: Operation = "backup",
    level: Level = "auto",
    action: str | None = None,
    reason: str | None = None,
    labels: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> BackupRequest:
    """A request of our own. Raises pydantic's ValidationError where a value is not one a message could have."""
    data = RequestData(
        plan=plan, operation=operation, action=action, level=level, reason=reason, labels=dict(labels or {})
    )
    return BackupRequest(request_id=request_id or new_id(now), data=data)
