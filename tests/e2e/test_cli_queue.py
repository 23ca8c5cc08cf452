"""`holdfast request`, `backup` and `doctor` with a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workshop import Workshop
from tests.services.rabbitmq import RabbitMQ


@pytest.fixture
def workshop(tmp_path: Path, rabbitmq: RabbitMQ) -> Iterator[Workshop]:
    """A place whose worker listens to queues of its own."""
    made = Workshop(tmp_path)
    names = "name: {0}, exchange: {0}, events_exchange: {0}.events, dead_letter_exchange: {0}.dead".format("cli.queue")
    made.config.write_text(made.config.read_text() + f"queue: {{url: '{rabbitmq.url}', {names}}}\n")
    yield made
    made.close()


def test_a_request_goes_through_the_queue_and_its_outcome_comes_back(workshop: Workshop) -> None:
    """The queue is taken where there is one; the same id is done once, and a refusal has its exit code."""
    workshop.start_worker()

    first = workshop.lines("request", "web", "--id", "one", "--wait", "--timeout", "30")
    second = workshop.lines("request", "web", "--id", "one", "--wait", "--timeout", "30")
    refused = workshop.lines("request", "nonsense", "--wait", "--timeout", "30", expect=4)
    checks = {line["check"]: line for line in workshop.lines("doctor")}

    assert [line["outcome"] for line in first] == ["succeeded"]
    assert [line["outcome"] for line in second] == ["duplicate"]
    assert [line["outcome"] for line in refused] == ["refused"]
    assert len(workshop.sets()) == 1
    assert "RabbitMQ" in checks["broker"]["message"]
    assert "guest:guest" not in checks["broker"]["message"]


def test_a_broker_that_is_away_is_temporary_for_a_request_and_no_obstacle_for_a_backup(workshop: Workshop) -> None:
    """The backup is made; its event waits for the broker."""
    text = workshop.config.read_text()
    workshop.config.write_text(text[: text.index("queue:")] + "queue: {url: 'amqp://127.0.0.1:1//'}\n")

    asked = workshop.run("request", "web")
    made = workshop.run("backup", "web")
    (status,) = workshop.lines("status")
    checks = {line["check"]: line["verdict"] for line in workshop.lines("doctor", expect=1)}

    assert asked.returncode == 7
    assert asked.stderr.startswith("error: ")
    assert made.returncode == 0
    assert status["unsent_events"] >= 1
    assert checks["broker"] == "FAIL"
