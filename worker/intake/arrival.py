"""A message as it came off the wire, and the copies that are made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from worker.broker.outlet import MAX_SHORT_STRING, Outgoing, writable
from worker.broker.rescue import UNREADABLE_HEADER

REASON_HEADER: Final = "x-holdfast-reason"
"""On a dead letter: why it was refused."""

QUEUE_HEADER: Final = "x-holdfast-queue"
"""On a dead letter: the queue it was taken from."""

RETURNS_HEADER: Final = "x-holdfast-returns"
"""On a message that was sent round to come again later: how often that has been done."""

MOST_RETURNS: Final = 200
"""How often a message is sent round; they take more than a day. Each copy starts with a clean delivery count: without
an end, a request that takes its worker down together with the journal would go round for ever."""

LONGEST_REASON: Final = 2_000
"""Characters of a reason that are kept."""
_LONGEST_HEADERS: Final = 16_000
"""Characters copied of the headers of a refused message. RabbitMQ takes 128 KiB, the longest character has 4 bytes."""
_NOT_COPIED: Final = frozenset({"CC", "BCC", "x-death", "x-delivery-count", UNREADABLE_HEADER})
"""Headers that a copy does without: the first two would send it to further queues, the rest speaks of the original."""
_KEPT: Final = ("type", "app_id", "timestamp")
"""Properties that mean something to others only. Not kept: an expiration, for what was taken in does not expire; and
the user id, which RabbitMQ takes from nobody but that user."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrival:
    """A message as it came off the wire."""

    tag: Any
    body: bytes
    headers: Mapping[str, object]
    properties: Mapping[str, object]
    redelivered: bool
    """Whether the broker, or a worker that sent it round, says that it was here before."""

    @property
    def message_id(self) -> str | None:
        """The producer's id for the message."""
        return self._text("message_id")

    @property
    def reply_to(self) -> str | None:
        """The queue that wants the outcome."""
        return self._text("reply_to")

    @property
    def correlation_id(self) -> str | None:
        """What the caller wants to hear back with the outcome."""
        return self._text("correlation_id")

    @property
    def failed_deliveries(self) -> int:
        """How often a quorum queue has delivered it before, without a settlement."""
        return _count(self.headers.get("x-delivery-count"))

    @property
    def returns(self) -> int:
        """How often it was sent round."""
        return _count(self.headers.get(RETURNS_HEADER))

    @property
    def digest(self) -> bytes:
        """Tells it from other messages, on whatever connection it comes."""
        return hashlib.sha256(f"{self.message_id}\n".encode("utf-8", "surrogatepass") + self.body).digest()

    def refusal(self, max_bytes: int) -> str | None:
        """Why this cannot be a request, as far as the transport can tell."""
        if (unreadable := self.headers.get(UNREADABLE_HEADER)) is not None:
            return str(unreadable)
        if len(self.body) > max_bytes:
            return f"the message has {len(self.body)} bytes, queue.max_request_bytes allows {max_bytes}"
        return None

    def dead_letter(self, reason: str, queue: str) -> Outgoing:
        """A copy that tells why it was refused. It does not expire, and goes nowhere but to the dead letters."""
        return self._copy({**self._plain_headers(), REASON_HEADER: reason[:LONGEST_REASON], QUEUE_HEADER: queue})

    def once_more(self) -> Outgoing:
        """A copy that is the same request, and says that it was here before."""
        headers = {name: value for name, value in self.headers.items() if name not in _NOT_COPIED}
        kept = headers if writable(headers) else self._plain_headers()
        priority = self.properties.get("priority")
        return replace(
            self._copy({**kept, RETURNS_HEADER: self.returns + 1}),
            priority=priority if isinstance(priority, int) else None,
            further={name: self.properties[name] for name in _KEPT if self.properties.get(name) is not None},
        )

    def _copy(self, headers: Mapping[str, object]) -> Outgoing:
        return Outgoing(
            body=self.body,
            content_type=self._text("content_type"),
            content_encoding=self._text("content_encoding"),
            headers=headers,
            message_id=self.message_id,
            correlation_id=self.correlation_id,
            reply_to=self.reply_to,
        )

    def _plain_headers(self) -> dict[str, object]:
        # Only what can be written again, and no more than fits into one frame together with our own.
        headers: dict[str, object] = {}
        left = _LONGEST_HEADERS
        for name, value in self.headers.items():
            if name in _NOT_COPIED or not isinstance(name, str):
                continue
            plain = value if isinstance(value, str | bool | int | float) else f"({type(value).__name__})"
            left -= len(name) + (len(plain) if isinstance(plain, str) else 9)
            if left < 0:
                break
            headers[name] = plain
        return headers

    def _text(self, name: str) -> str | None:
        # In AMQP these are short strings; in Redis anything that is JSON.
        value = self.properties.get(name)
        if not isinstance(value, str) or not value or len(value.encode("utf-8", "surrogatepass")) > MAX_SHORT_STRING:
            return None
        return value


def _count(value: object) -> int:
    return max(value, 0) if isinstance(value, int) else 0
