"""The connection to a message broker, whichever kind of broker it is.

kombu's and its transports' errors end here: callers hear of BrokerAway (later), BrokerRefused (a person must look) and
Unroutable (this message has no taker).
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import amqp
import redis
from amqp.exceptions import AMQPError, MessageNacked
from kombu.connection import Connection
from kombu.exceptions import KombuError

from config.settings import Queue
from handlers.errors import PermanentError, TemporaryError
from worker.broker.rescue import RedisTransport, tolerant_frame_handler

SWEEP_SECONDS: Final = 1.0
"""How long a pump sleeps at most: heartbeats and Redis' lost messages are looked after that often."""

LEASE_SHARE: Final = 1 / 3
"""The part of Redis' visibility timeout after which a lease is renewed: two renewals may fail before it ends."""

_PARTIAL_FRAME_SECONDS: Final = 0.05
"""How long to wait for the rest of a frame; what was read of it is kept for the next time."""

_TROUBLE: Final = (AMQPError, MessageNacked, KombuError, redis.RedisError, OSError)
_PASSING: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.OutOfMemoryError,
    redis.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_PASSING_WORDS: Final = re.compile(r"\b(LOADING|MISCONF|BUSY|MASTERDOWN|NOREPLICAS|OOM|READONLY)\b")
"""Answers of Redis that are gone when somebody has made room, or has finished; a pipeline puts words before them."""


_KOMBU_CONNECTION: Final[Any] = Connection  # kombu has no types


class BrokerAway(TemporaryError):
    """The broker cannot be reached, or has no room: nothing was promised."""


class BrokerRefused(PermanentError):
    """The broker answered, and the answer is no: a person must look."""


class Unroutable(PermanentError):
    """The broker has no queue for this message."""


class Kind(StrEnum):
    """Brokers that differ in what they promise."""

    AMQP = "amqp"
    REDIS = "redis"


class Link:
    """One open connection. It belongs to the thread that opened it."""

    def __init__(self, settings: Queue, *, role: str, heartbeats: bool) -> None:
        """Connect to the first broker of the URL that answers; raises BrokerAway or BrokerRefused.

        Without heartbeats, a connection that is not used for long may be found dead on its next use.
        """
        self.settings = settings
        self._role = role
        self._heartbeat_seconds = settings.heartbeat_seconds if heartbeats else 0
        brokers = settings.connection_url.reveal().split(";")
        self.kind = kind_of(settings)
        for number, url in enumerate(brokers, start=1):
            self.address = address(url)
            try:
                with self.translated("connect"):
                    self._connection: Any = self._connected(url)
                    # kombu's own methods would connect again behind our back, and mix up what belongs to which
                    # connection: so they are not used.
                    self._transport: Any = self._connection.transport
                    self._raw: Any = self._connection.connection
                break
            except (BrokerAway, BrokerRefused):
                if number == len(brokers):
                    raise

    @property
    def server(self) -> tuple[str, str]:
        """Product and version, as the broker tells them."""
        if self.kind is Kind.AMQP:
            properties = self._raw.server_properties
            return str(properties.get("product", "unknown")), str(properties.get("version", "unknown"))
        with self.translated("ask for the version"):
            info = self.channel().client.info("server")
        return str(info.get("server_name", "redis")), str(info.get("redis_version", "unknown"))

    def channel(self) -> Any:  # kombu has no types
        """A new channel, which gives bodies as the bytes they are."""
        with self.translated("open a channel"):
            channel = self._transport.create_channel(self._raw)
        channel.auto_decode = False
        return channel

    def drain(self) -> None:
        """Let the callbacks of consumers have what has arrived; never waits."""
        timeout = _PARTIAL_FRAME_SECONDS if self.kind is Kind.AMQP else 0
        with self.translated("receive"):
            while self._readable():
                try:
                    self._transport.drain_events(self._raw, timeout=timeout)
                except TimeoutError:
                    return

    def beat(self) -> None:
        """Keep the connection alive and find out whether it is; call at least every `pause_seconds`, after `drain`."""
        if self.kind is Kind.AMQP:
            with self.translated("heartbeat"):
                self._transport.heartbeat_check(self._raw, rate=2)

    @property
    def pause_seconds(self) -> float:
        """How long `wait` may take without harm to the heartbeats, or to the leases of Redis."""
        if self.kind is Kind.REDIS:
            return min(SWEEP_SECONDS, self.settings.visibility_timeout_seconds * LEASE_SHARE)
        return min(SWEEP_SECONDS, (self._heartbeat_seconds or 60) / 4)

    def wait(self, *, wake: int | None = None, at_most: float = SWEEP_SECONDS) -> None:
        """Sleep until something arrives, the file descriptor `wake` is readable, or `pause_seconds` have passed."""
        if self._buffered():
            return
        poll = select.poll()
        for descriptor in (*self._descriptors(), *(() if wake is None else (wake,))):
            poll.register(descriptor, select.POLLIN)
        poll.poll(min(self.pause_seconds, at_most) * 1000)

    def close(self) -> None:
        """Say goodbye to the broker; what is unsettled goes back to its queue. Safe to repeat, raises nothing."""
        with contextlib.suppress(BrokerAway, BrokerRefused), self.translated("close"):
            self._connection.release()

    def abandon(self) -> None:
        """Let go of a connection that is broken, without a word to the broker. Safe to repeat, raises nothing."""
        with contextlib.suppress(BrokerAway, BrokerRefused), self.translated("close"):
            if self.kind is Kind.AMQP:
                self._connection.collect()
                return
            for channel in self._transport.channels:
                # kombu would hand back what is unsettled at a moment of its own choice, over a new connection.
                channel.qos.restore_at_shutdown = False
            self._connection.release()

    @contextlib.contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Run the block; what the broker's library raises in it comes out as one of our errors."""
        try:
            yield
        except _TROUBLE as error:
            raise _translate(error, f"{doing}: {self.address}") from error

    def _connected(self, url: str) -> Any:
        seconds = self.settings.connect_timeout_seconds
        secure = urlsplit(url).scheme.lower() in {"amqps", "rediss"}
        connection: Any = _KOMBU_CONNECTION(
            url,
            transport=RedisTransport if self.kind is Kind.REDIS else None,
            heartbeat=self._heartbeat_seconds,
            connect_timeout=seconds,
            ssl=_ssl_options(self.kind, url) if secure else False,
            transport_options=self._options(),
        )
        try:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        except ValueError as error:
            if isinstance(error, OSError):  # a certificate's refusal is both
                raise
            raise BrokerRefused(
                f"connect: {self.address}: {error}", hint="the path of a Redis URL is a number, such as /0"
            ) from error
        if self.kind is Kind.AMQP:
            # amqp waits for answers without end: a broker that hangs would take the thread with it.
            connection.connection.sock.settimeout(seconds)
        return connection

    def _options(self) -> dict[str, object]:
        seconds, name = self.settings.connect_timeout_seconds, self.settings.name
        match self.kind:
            case Kind.AMQP:
                return {
                    "confirm_publish": True,
                    "client_properties": {"connection_name": f"holdfast {self._role}"},
                    "frame_handler": tolerant_frame_handler,
                    # amqp's default is one second: the smallest hiccup of the network would end the connection.
                    "socket_settings": {socket.TCP_USER_TIMEOUT: int(seconds * 1000)},
                }
            case Kind.REDIS:
                return {
                    "visibility_timeout": self.settings.visibility_timeout_seconds,
                    "socket_timeout": seconds,
                    "socket_connect_timeout": seconds,
                    "socket_keepalive": True,
                    "client_name": f"holdfast-{self._role.replace(' ', '-')}",
                    # By default every user of kombu in one database shares these, with the shortest visibility timeout.
                    "unacked_key": f"{name}.unacked",
                    "unacked_index_key": f"{name}.unacked_index",
                    "unacked_mutex_key": f"{name}.unacked_mutex",
                    # Held by whoever looks for what dead workers held. Killed meanwhile, it would keep all others from
                    # looking, for kombu's five minutes. Two at once do no harm.
                    "unacked_mutex_expire": 5,
                    # Every second look at an empty queue goes on to look for what dead workers held; kombu's tenth
                    # would add some ten seconds.
                    "unacked_restore_throttle": 2,
                }

    def _descriptors(self) -> Sequence[int]:
        if self.kind is Kind.AMQP:
            return (self._raw.sock.fileno(),)
        return tuple(self._transport.cycle.fds)

    def _readable(self) -> bool:
        if self.kind is not Kind.AMQP or self._buffered():
            return True
        return bool(select.select(self._descriptors(), (), (), 0)[0])

    def _buffered(self) -> bool:
        # What TLS has decrypted already makes no socket readable.
        if self.kind is not Kind.AMQP:
            return False
        return isinstance(self._raw.sock, ssl.SSLSocket) and self._raw.sock.pending() > 0


def address(url: str) -> str:
    """Where the broker is, for people: neither user nor password."""
    split = urlsplit(url)
    port = f":{split.port}" if split.port else ""
    return f"{split.scheme}://{split.hostname or 'localhost'}{port}{split.path}"


def body_of(message: Any) -> bytes:  # kombu has no types
    """The body of a received message as the bytes it is; amqp has text for an empty one."""
    return message.body if isinstance(message.body, bytes) else str(message.body or "").encode()


def kind_of(settings: Queue) -> Kind:
    """The kind of broker behind the URL; BrokerRefused for one that nobody has tried yet."""
    scheme = urlsplit(settings.url.reveal()).scheme.lower()
    match scheme:
        case "amqp" | "amqps":
            return Kind.AMQP
        case "redis" | "rediss":
            return Kind.REDIS
        case _:
            raise BrokerRefused(
                f"queue.url has the scheme {scheme}://, which this release does not speak",
                hint="known: amqp://, amqps://, redis://, rediss://",
            )


def _ssl_options(kind: Kind, url: str) -> dict[str, object]:
    # Left to itself kombu checks no host name for amqps, and nothing at all for rediss.
    return {"server_hostname": urlsplit(url).hostname} if kind is Kind.AMQP else {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def _translate(error: Exception, doing: str) -> TemporaryError | PermanentError:
    text = " ".join(str(getattr(error, "reply_text", None) or error or type(error).__name__).split())
    message = f"{doing}: {text}"
    match error:
        case (
            amqp.AccessRefused()
            | amqp.NotAllowed()
            | redis.AuthenticationError()
            | redis.exceptions.AuthorizationError()
        ):
            return BrokerRefused(message, hint="look at user, password, virtual host and permissions of queue.url")
        case ssl.SSLCertVerificationError():
            return BrokerRefused(
                message,
                hint="SSL_CERT_FILE names the CAs to trust; the certificate has to be for the host in queue.url",
            )
        case redis.ResponseError() if not isinstance(error, _PASSING) and not _PASSING_WORDS.search(text):
            return Unroutable(message) if "WRONGTYPE" in text else BrokerRefused(message)
        case amqp.NotFound():
            return BrokerRefused(message)
        case MessageNacked():
            return BrokerAway(f"{doing}: the broker takes no more messages", hint="is a queue full, or a disk?")
        case _:
            return BrokerAway(message)
