"""Whether a well-formed request is allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handlers.contract import PlanName
from worker.intake.wire import BackupRequest, RequestData
from worker.policy import Allowed, Denied, authorise, may_answer

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PLANS = {PlanName("web")}
ALLOWED = ("holdfast.reply.*", "amq.gen-*")


def asked(**data: object) -> BackupRequest:
    """A request for the plan `web` with some more."""
    fields = {"plan": "web", **data}
    return BackupRequest(request_id="r1", data=RequestData.model_validate(fields), reply_to=data.get("reply_to"))  # type: ignore[arg-type]


def test_configured_plan_is_allowed() -> None:
    """That is what it is configured for."""
    assert authorise(asked(), plans=PLANS, reply_to_allowed=(), now=NOW, known=False) == Allowed(plan=PlanName("web"))


def test_unknown_plan_is_denied_without_naming_the_others() -> None:
    """The answer goes to whoever sent the message."""
    verdict = authorise(asked(plan="db"), plans=PLANS, reply_to_allowed=(), now=NOW, known=False)

    assert isinstance(verdict, Denied)
    assert "'db'" in verdict.reason
    assert "web" not in f"{verdict.reason} {verdict.hint}"


def test_request_past_its_deadline_is_denied() -> None:
    """Too old a request is refused, not run."""
    verdict = authorise(
        asked(not_after=NOW - timedelta(seconds=1)), plans=PLANS, reply_to_allowed=(), now=NOW, known=False
    )

    assert isinstance(verdict, Denied)
    assert "not_after" in verdict.reason


def test_request_before_its_deadline_is_allowed() -> None:
    """The deadline itself is still in time."""
    assert isinstance(authorise(asked(not_after=NOW), plans=PLANS, reply_to_allowed=(), now=NOW, known=False), Allowed)


@pytest.mark.parametrize("queue", ["orders", "holdfast.replies", "amq.topic", "AMQ.GEN-1"])
def test_answers_go_only_where_the_operator_allows(queue: str) -> None:
    """A message must not write into any queue it likes."""
    verdict = authorise(asked(reply_to=queue), plans=PLANS, reply_to_allowed=ALLOWED, now=NOW, known=False)

    assert isinstance(verdict, Denied)
    assert not may_answer(asked(reply_to=queue), ALLOWED)


def test_allowed_reply_queue() -> None:
    """By pattern."""
    assert isinstance(
        authorise(asked(reply_to="amq.gen-x"), plans=PLANS, reply_to_allowed=ALLOWED, now=NOW, known=False), Allowed
    )


def test_request_that_was_allowed_before_stays_allowed() -> None:
    """A redelivery must not get a second outcome because its deadline passed, or its plan went, meanwhile."""
    late = asked(plan="gone", not_after=NOW - timedelta(seconds=1))

    assert isinstance(authorise(late, plans=PLANS, reply_to_allowed=(), now=NOW, known=True), Allowed)


def test_even_a_known_request_is_answered_only_where_allowed() -> None:
    """The reply queue is the delivery's, not the first one's."""
    verdict = authorise(asked(reply_to="orders"), plans=PLANS, reply_to_allowed=ALLOWED, now=NOW, known=True)

    assert isinstance(verdict, Denied)
