"""Whatever a producer puts into a message, the libraries can read what is made of it."""

from __future__ import annotations

import base64
import struct

import orjson
from amqp.serialization import decode_properties_basic, loads
from hypothesis import given
from hypothesis import strategies as st

from worker.broker.rescue import UNREADABLE_HEADER, decodable_delivery, decodable_header, readable_envelope

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["body", "properties", "headers", "body_encoding", "delivery_tag", "delivery_info", "priority"])
envelopes = st.dictionaries(names, json_values | st.dictionaries(names, json_values, max_size=4), max_size=5)
items = st.binary(max_size=60) | json_values.map(orjson.dumps) | envelopes.map(orjson.dumps)


@given(items)
def test_anything_in_a_redis_list_becomes_an_envelope(item: bytes) -> None:
    """It has a body, a tag, headers and the queue it goes back to, and kombu needs no more."""
    envelope = orjson.loads(readable_envelope(item, queue="q"))

    properties = envelope["properties"]
    assert isinstance(base64.b64decode(envelope["body"], validate=True), bytes)
    assert isinstance(properties["delivery_tag"], str)
    assert properties["delivery_info"]["routing_key"] == "q"
    assert isinstance(envelope["headers"], dict)


@given(items)
def test_an_envelope_that_was_made_readable_stays_as_it_is(item: bytes) -> None:
    """Handed back and delivered again, it is still the same message."""
    once = readable_envelope(item, queue="q")

    assert orjson.loads(readable_envelope(once, queue="q")) == orjson.loads(once)


@given(flags=st.integers(0, 0xFFFF), rest=st.binary(max_size=80))
def test_any_content_header_can_be_decoded(flags: int, rest: bytes) -> None:
    """Properties that cannot be read are replaced by a header that says so; the size of the body stays."""
    payload = struct.pack(">HHQH", 60, 0, 7, flags) + rest

    mended = decodable_header(payload)

    properties, _ = decode_properties_basic(mended, 12)
    assert struct.unpack_from(">HHQ", mended) == (60, 0, 7)
    if mended != payload:
        assert UNREADABLE_HEADER in properties["application_headers"]


@given(tag=st.binary(max_size=20), exchange=st.binary(max_size=20), key=st.binary(max_size=20))
def test_any_delivery_can_be_decoded(tag: bytes, exchange: bytes, key: bytes) -> None:
    """A routing key is any bytes; number and redelivery of the message stay."""
    strings = [bytes([len(each)]) + each for each in (tag, exchange, key)]
    payload = struct.pack(">HH", 60, 60) + strings[0] + struct.pack(">QB", 5, 1) + strings[1] + strings[2]

    mended = decodable_delivery(payload)

    values, _ = loads("sLbss", mended, 4)
    assert values[1:3] == [5, True]
