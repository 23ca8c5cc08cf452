"""Requests arrive from a real RabbitMQ and a real Redis, and are settled there."""

from __future__ import annotations

import threading
import time

import pytest

from config.settings import Queue
from tests.services.brokers import declared, emptied, raw_channel, raw_redis, request
from tests.services.desk import at_work, queue_settings
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import RedisServer
from tests.services.server import wait_until
from worker.broker.publisher import ping
from worker.broker.topology import dead_queue
from worker.intake.delivery import Settlement

Server = RabbitMQ | RedisServer


@pytest.fixture(params=["rabbitmq", "redis_server"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each kind of broker in turn."""
    found: Server = request.getfixturevalue(request.param)
    return found


def test_a_request_arrives_with_the_properties_of_its_message(server: Server) -> None:
    """Body, id, reply queue and correlation id come out as the producer put them in."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)

        request(settings, b'{"plan": "web"}', request_id="r-1", reply_to="amq.gen-x", correlation_id="c-1")

        delivery = desk.take()
        assert (delivery.body, delivery.message_id) == (b'{"plan": "web"}', "r-1")
        assert (delivery.reply_to, delivery.correlation_id) == ("amq.gen-x", "c-1")
        assert (delivery.intake, delivery.redelivered) == ("queue", False)


def test_what_is_accepted_never_comes_again(server: Server) -> None:
    """An accepted message is gone when the worker is, too."""
    settings = queue_settings(server.url)
    with at_work(settings, accept=True) as desk:
        declared(settings)
        request(settings)
        desk.take()

    with at_work(settings) as second:
        assert second.nothing_comes(1)
        emptied(settings)


def test_what_is_handed_back_comes_again_as_redelivered(server: Server) -> None:
    """A delivery that nobody worked on is delivered again, and says so."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)
        request(settings, request_id="r-1")

        desk.take().settle(Settlement.HAND_BACK)

        again = desk.take()
        assert (again.message_id, again.redelivered) == ("r-1", True)


def test_settling_twice_is_settling_once(server: Server) -> None:
    """The first word counts; the second does no harm to the connection."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)
        request(settings, request_id="first")
        delivery = desk.take()

        for settlement in (Settlement.ACCEPT, Settlement.HAND_BACK, Settlement.REJECT):
            delivery.settle(settlement, "too late")

        request(settings, request_id="second")
        assert desk.take().message_id == "second"
        assert len(desk.taken) == 2
        assert not ping(settings).dead


def test_a_dead_letter_tells_why_it_was_refused_in_rabbitmq(rabbitmq: RabbitMQ) -> None:
    """Reason, origin, body and properties are on the copy among the dead letters."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings) as desk:
        declared(settings)
        request(settings, b"no request", request_id="r-1", correlation_id="c-1", content_type="text/plain")

        desk.take().settle(Settlement.REJECT, "the message is not JSON")

        emptied(settings, dead=1)
    with raw_channel(settings) as channel:
        letter = channel.basic_get(dead_queue(settings))
    assert letter.body in {b"no request", "no request"}
    assert letter.headers["x-holdfast-reason"] == "the message is not JSON"
    assert letter.headers["x-holdfast-queue"] == settings.name
    assert letter.properties["message_id"] == "r-1"
    assert letter.properties["correlation_id"] == "c-1"
    assert letter.properties["content_type"] == "text/plain"
    assert letter.properties["delivery_mode"] == 2


def test_a_dead_letter_tells_why_it_was_refused_in_redis(redis_server: RedisServer) -> None:
    """Redis has no dead letters of its own: the worker puts them into a list, with the reason."""
    settings = queue_settings(redis_server.url)
    with at_work(settings) as desk:
        request(settings, b"no request", request_id="r-1")

        desk.take().settle(Settlement.REJECT, "the message is not JSON")

        emptied(settings, dead=1)
    letter = raw_redis(settings).rpop(dead_queue(settings))
    assert b"the message is not JSON" in letter
    assert b"r-1" in letter
    assert raw_redis(settings).hlen(f"{settings.name}.unacked") == 0


def test_dead_letters_of_two_queues_do_not_mix(rabbitmq: RabbitMQ) -> None:
    """Workers that share the exchanges keep what they refused apart."""
    web = queue_settings(rabbitmq.url, routing_keys=["web"])
    mail = queue_settings(
        rabbitmq.url,
        routing_keys=["mail"],
        exchange=web.exchange,
        dead_letter_exchange=web.dead_letter_exchange,
        events_exchange=web.events_exchange,
    )
    with at_work(web) as desk, at_work(mail):
        declared(web)
        declared(mail)

        request(web, plan="web")
        desk.take().settle(Settlement.REJECT, "no")

        emptied(web, dead=1)
        assert ping(mail).dead == 0


def test_the_routing_keys_choose_the_worker(rabbitmq: RabbitMQ) -> None:
    """A request reaches the queue that binds its plan, and no other."""
    web = queue_settings(rabbitmq.url, routing_keys=["web.*"])
    mail = queue_settings(rabbitmq.url, routing_keys=["mail"], exchange=web.exchange)
    with at_work(web, accept=True) as webdesk, at_work(mail, accept=True) as maildesk:
        declared(web)
        declared(mail)

        request(web, plan="web.shop", request_id="shop")

        assert webdesk.take().message_id == "shop"
        assert maildesk.nothing_comes(0.5)


def test_a_message_above_the_limit_is_refused_at_the_door(server: Server) -> None:
    """It goes to the dead letters with both numbers in the reason, and is never handed to the worker."""
    settings = queue_settings(server.url, max_request_bytes=2_048)
    with at_work(settings, accept=True) as desk:
        declared(settings)
        request(settings, b"x" * 2_049)
        request(settings, b"x" * 2_048)

        assert len(desk.take().body) == 2_048
        emptied(settings, dead=1)
        assert len(desk.taken) == 1


def test_without_room_nothing_is_taken_and_nothing_is_requeued(rabbitmq: RabbitMQ) -> None:
    """A full worker leaves messages where another worker can have them, untouched."""
    settings = queue_settings(rabbitmq.url)
    with at_work(settings, room=1) as desk:
        declared(settings)
        for number in range(3):
            request(settings, request_id=f"r-{number}")
        first = desk.take()

        desk.room = 0
        first.settle(Settlement.ACCEPT)

        wait_until(lambda: ping(settings).consumers == 0, what="the worker stops consuming")
        wait_until(lambda: ping(settings).ready == 2, what="the rest waits in the queue")
    with raw_channel(settings) as channel:
        for _ in range(2):
            message = channel.basic_get(settings.name)
            assert not message.delivery_info["redelivered"]
            assert (message.headers or {}).get("x-delivery-count", 0) == 0


def test_the_last_free_slot_is_not_overrun(server: Server) -> None:
    """When a delivery takes the last room, the next message stays with the broker although the first is accepted."""
    settings = queue_settings(server.url)
    with at_work(settings, room=1, accept=True) as desk:
        # As the worker does: what it took in occupies the room before the delivery is settled.
        desk.on_delivery = lambda: setattr(desk, "room", 0)
        declared(settings)
        for number in range(3):
            request(settings, request_id=f"r-{number}")

        desk.take()

        assert desk.nothing_comes(1.5)
        assert ping(settings).ready == 2
        for number in (1, 2):
            desk.room = 1
            desk.intake.poke()
            assert desk.take(1).message_id == f"r-{number}"
        assert not any(delivery.redelivered for delivery in desk.taken)


def test_announced_settlement_holds_as_many_as_there_is_room_for(server: Server) -> None:
    """Deliveries stay unsettled while they are worked on; each settlement lets exactly one more in."""
    settings = queue_settings(server.url)
    with at_work(settings, room=3, settle="announced") as desk:
        desk.on_delivery = lambda: setattr(desk, "room", desk.room - 1)
        declared(settings)
        for number in range(6):
            request(settings, request_id=f"r-{number}")
        held = [desk.take() for _ in range(3)]
        assert desk.nothing_comes(1.2)

        for delivery in held:
            delivery.settle(Settlement.ACCEPT)
            desk.room += 1
            desk.intake.poke()

        assert {desk.take().message_id for _ in range(3)} == {"r-3", "r-4", "r-5"}
        assert len(desk.taken) == 6
        assert not any(delivery.redelivered for delivery in desk.taken)


def test_a_thousand_settlements_from_eight_threads(server: Server) -> None:
    """Deciding is for any thread; the connection sees one."""
    settings = queue_settings(server.url)
    total, threads = 1_000, []
    with at_work(settings, room=64, settle="announced") as desk:
        declared(settings)
        publish_many(settings, total)

        def work() -> None:
            while True:
                delivery = desk.take(10)
                if delivery.body == b"enough":
                    return
                delivery.settle(Settlement.ACCEPT)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(desk.taken) >= total, what="all have arrived")
        emptied(settings)
        publish_many(settings, 8, body=b"enough")
        for thread in threads:
            thread.join(10)

        assert len(desk.taken) == total + 8
        assert not any(delivery.redelivered for delivery in desk.taken)


def publish_many(settings: Queue, count: int, body: bytes = b"{}") -> None:
    """Publish over one connection."""
    from worker.broker.link import Kind, kind_of
    from worker.broker.outlet import Outgoing
    from worker.broker.publisher import BrokerPublisher

    publisher = BrokerPublisher(settings)
    amqp_kind = kind_of(settings) is Kind.AMQP
    for number in range(count):
        publisher.publish(
            Outgoing(body=body, message_id=str(number)),
            exchange=settings.exchange if amqp_kind else "",
            routing_key="web" if amqp_kind else settings.name,
            mandatory=True,
        )
    publisher.close()


def test_a_settlement_takes_effect_at_once(server: Server) -> None:
    """The intake is woken: nobody waits for its next look around."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)
        request(settings)
        held = desk.take()
        request(settings)
        moments = []
        for _ in range(20):
            moments.append(time.monotonic())
            held.settle(Settlement.ACCEPT)
            arrived, held = desk.take_timed()
            moments[-1] = arrived - moments[-1]
            request(settings)

        assert sorted(moments)[len(moments) // 2] < 0.1


def test_waiting_costs_no_processor_time(server: Server) -> None:
    """An idle intake sleeps."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)
        assert desk.thread.ident is not None
        clock = time.pthread_getcpuclockid(desk.thread.ident)
        before = time.clock_gettime(clock)

        assert desk.nothing_comes(2)

        assert time.clock_gettime(clock) - before < 0.02


def test_what_was_fetched_but_not_delivered_is_handed_back_at_stop(server: Server) -> None:
    """Stopping leaves every message with the broker, ready for the next worker."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)
        for number in range(3):
            request(settings, request_id=f"r-{number}")
        desk.take()

        desk.intake.stop()

        wait_until(lambda: ping(settings).ready == 2, what="the others wait")
    assert ping(settings).ready == 3


def test_after_stop_deliveries_can_still_be_settled(server: Server) -> None:
    """A drain ends with the outcomes of what is running."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)
        request(settings)
        delivery = desk.take()
        desk.intake.stop()

        delivery.settle(Settlement.ACCEPT)
        desk.intake.close()
        desk.thread.join(10)

        assert ping(settings).ready == 0


def test_a_settlement_after_the_end_is_no_error(server: Server) -> None:
    """The thread that worked may be slower than the intake."""
    settings = queue_settings(server.url)
    with at_work(settings) as desk:
        declared(settings)
        request(settings)
        delivery = desk.take()

    delivery.settle(Settlement.ACCEPT)

    assert ping(settings).ready == 1


def test_a_queue_that_was_declared_otherwise_is_named_with_the_difference(rabbitmq: RabbitMQ) -> None:
    """The operator reads which queue, which argument, what it is and what it should be."""
    from worker.broker.link import BrokerRefused
    from worker.intake.queue_session import QueueSession

    settings = queue_settings(rabbitmq.url)
    with raw_channel(settings) as channel:
        channel.queue_declare(settings.name, durable=True, auto_delete=False)

    with pytest.raises(BrokerRefused) as caught:
        QueueSession(settings, node="n", prefetch=1)

    assert settings.name in caught.value.message
    assert "x-dead-letter" in caught.value.message or "x-queue-type" in caught.value.message
    assert "delete it" in str(caught.value.hint)


def test_a_classic_queue_works_as_well(rabbitmq: RabbitMQ) -> None:
    """Delivery, return and refusal do not depend on the kind of queue."""
    settings = queue_settings(rabbitmq.url, type="classic")
    with at_work(settings) as desk:
        declared(settings)
        request(settings)

        desk.take().settle(Settlement.HAND_BACK)
        desk.take().settle(Settlement.REJECT, "no")

        emptied(settings, dead=1)
