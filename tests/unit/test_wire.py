"""From the bytes of a message to a request."""

from __future__ import annotations

import json
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.intake.wire import MAX_ID, BackupRequest, MessageRefused, RequestId, backup_id, parse


def plain(**more: object) -> bytes:
    """A plain request with some more."""
    return orjson.dumps({"id": "r1", "plan": "web", **more})


def event(**more: object) -> bytes:
    """A CloudEvents request with some more."""
    envelope = {
        "specversion": "1.0",
        "type": "holdfast.backup.requested",
        "source": "/orders",
        "id": "r1",
        "data": {"plan": "web"},
    }
    return orjson.dumps(envelope | more)


def test_plain_request() -> None:
    """The data with an id."""
    request = parse(plain(level=2, reason="nightly", labels={"team": "a"}))

    assert (request.request_id, request.data.plan, request.data.level) == ("r1", "web", 2)
    assert request.data.labels == {"team": "a"}


def test_cloud_event_is_named_by_source_and_id() -> None:
    """Two services may use the same ids."""
    assert parse(event()).request_id == "/orders r1"
    assert parse(event(source="/users")).request_id != parse(event()).request_id


def test_extension_attributes_of_cloud_events_are_fine() -> None:
    """The standard allows them, for instance for tracing."""
    assert parse(event(traceparent="00-1-2-01", datacontenttype="application/json", subject="x")).data.plan == "web"


def test_transport_gives_the_id_that_the_body_leaves_out() -> None:
    """AMQP's message_id, or the file's name in the spool."""
    assert parse(b'{"plan": "web"}', message_id="m7").request_id == "m7"


def test_id_of_the_body_wins() -> None:
    """It is the producer's."""
    assert parse(plain(), message_id="m7").request_id == "r1"


def test_reply_to_of_the_body_wins() -> None:
    """It is more specific than the transport's."""
    assert parse(plain(reply_to="q1"), reply_to="q2").reply_to == "q1"
    assert parse(plain(), reply_to="q2").reply_to == "q2"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "list, not an object"),
        (b'{"plan": "web"}', "id: field required"),
        (plain(plan="../etc"), "plan"),
        (plain(plan="a/b"), "plan"),
        (plain(plan=""), "plan"),
        (plain(path="/etc/shadow"), "path: extra inputs are not permitted"),
        (plain(command="rm"), "command: extra inputs"),
        (plain(store="mine"), "store: extra inputs"),
        (plain(level=-1), "level"),
        (plain(level=100), "level"),
        (plain(level="1; rm"), "level"),
        (plain(level=1.5), "level"),
        (plain(level=True), "level"),
        (plain(operation="expire-all"), "operation"),
        (plain(not_after="2026-01-01T00:00:00"), "not_after"),
        (plain(not_after="soon"), "not_after"),
        (plain(labels={"a": 1}), "labels"),
        (plain(labels={f"l{n}": "x" for n in range(33)}), "labels"),
        (plain(id=""), "id"),
        (plain(id="a\nb"), "id"),
        (plain(id="x" * (MAX_ID + 1)), "id"),
        (plain(id=7), "id"),
        (event(type="holdfast.backup.succeeded"), "type"),
        (event(specversion="0.3"), "specversion"),
        (event(data={"plan": "web", "level": "deep"}), "data.level"),
        (event(data=None), "data"),
        (b"[" * 100_000, "not JSON"),
        (b'{"id":"x","plan":"web","z":' + b"[" * 300 + b"]" * 300 + b"}", "taken apart"),
        (event(data={"plan": "web"})[:-1] + b',"z":' + b"[" * 300 + b"]" * 300 + b"}", "taken apart"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(body: bytes, complaint: str) -> None:
    """One clear error that names the field."""
    with pytest.raises(MessageRefused, match=re.escape(complaint)):
        parse(body)


def test_refusal_tells_the_id_where_one_can_be_read() -> None:
    """So that the caller learns which of its requests it was."""
    with pytest.raises(MessageRefused) as caught:
        parse(plain(level="deep"))

    assert caught.value.request_id == "r1"


def test_refusal_of_an_event_tells_source_and_id() -> None:
    """The same name that the request would have had."""
    with pytest.raises(MessageRefused) as caught:
        parse(event(data={}))

    assert caught.value.request_id == "/orders r1"


def test_content_tells_requests_of_one_id_apart() -> None:
    """All that is asked counts; where the answer goes does not."""
    assert parse(plain(level="full")).content_digest != parse(plain()).content_digest
    assert parse(plain(reply_to="q1")).content_digest == parse(plain(), reply_to="q2").content_digest
    assert parse(b'{"plan":"web","id":"r1","level":"auto"}').content_digest == parse(plain()).content_digest


def test_properties_that_are_no_utf8_are_escaped() -> None:
    """A journal in SQLite and events in JSON could not hold them."""
    request = parse(b'{"plan": "web"}', message_id="m\udc80", reply_to="q\ud800", correlation_id="c\udfff")

    assert request.model_dump_json()
    assert request.request_id == "m\\udc80"


request_ids = st.text(st.characters(exclude_categories=["Cc"]), min_size=1, max_size=MAX_ID)


@given(request_ids)
def test_backup_id_is_safe_as_a_file_name_and_object_key(request_id: str) -> None:
    """Whatever the producer calls its request."""
    name = backup_id(RequestId(request_id))

    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name)
    assert ".." not in name or "/" not in name
    assert backup_id(RequestId(request_id)) == name


@given(st.lists(request_ids, min_size=2, max_size=20, unique=True))
def test_backup_ids_of_different_requests_differ(ids: list[str]) -> None:
    """Even where only letter case or punctuation differs."""
    assert len({backup_id(RequestId(one)) for one in ids}) == len(ids)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
fields = st.sampled_from(
    [
        "id",
        "plan",
        "level",
        "operation",
        "labels",
        "reason",
        "not_after",
        "reply_to",
        "specversion",
        "type",
        "source",
        "data",
    ]
)


@given(st.binary(max_size=300) | st.dictionaries(fields, json_values, max_size=8).map(lambda d: json.dumps(d).encode()))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    """No message raises anything else."""
    try:
        request = parse(body, message_id="m1")
    except MessageRefused:
        return

    assert isinstance(request, BackupRequest)
    assert request.data.plan
