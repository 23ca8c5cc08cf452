"""Every option the operator has, in one frozen tree."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, JsonValue, StringConstraints
from pydantic_core import PydanticCustomError

from config.broker_url import accepted_url, with_password
from config.hours import parse_hours
from config.indicators import Indicators
from config.levels import Levels
from config.retention import Retention
from config.secrets import Secret
from config.section import Days, Section

NAME_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9_-])?$"
"""Names become directories, object keys, routing keys: none of them has trouble with these."""

YEAR_SECONDS: Final = 31_536_000.0
"""The longest wait that is not a slip of the finger."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise PydanticCustomError(
            "setting",
            "{message}",
            {"message": "must be an absolute path", "hint": "begin with /; ~ is not expanded"},
        )
    return path


def _hours(text: str) -> str:
    try:
        parse_hours(text)
    except ValueError as error:
        raise PydanticCustomError(
            "setting", "{message}", {"message": str(error), "hint": "for instance `mon-fri 22:00-06:00`"}
        ) from error
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PydanticCustomError(
            "setting",
            "{message}",
            {
                "message": "no time zone of this name is known here",
                "hint": "a name such as Europe/Berlin or UTC; the package tzdata brings the names",
            },
        ) from error
    return name


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
PlanName = Name
StoreName = Name
AbsolutePath = Annotated[Path, AfterValidator(_absolute), Field(json_schema_extra={"pattern": r"^(/|\$)"})]
Seconds = Annotated[float, Field(ge=0, le=YEAR_SECONDS, allow_inf_nan=False)]
SomeSeconds = Annotated[float, Field(gt=0, le=YEAR_SECONDS, allow_inf_nan=False)]
RequestBytes = Annotated[int, Field(ge=1_024, le=16_777_216)]
HoursText = Annotated[str, AfterValidator(_hours)]
AmqpName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=127)]


class Retry(Section):
    """How often, how soon a request that failed for a passing reason is tried again."""

    attempts: Annotated[int, Field(ge=1, le=1_000)] = 5
    """How often a request is tried before it counts as failed; 1 tries once."""
    first_delay_seconds: Seconds = 10.0
    """The wait after the first failed attempt; it doubles with each further one."""
    max_delay_seconds: Seconds = 3_600.0
    """The longest wait between two attempts."""
    patience_seconds: Seconds = 86_400.0
    """How long a request waits for a store that is full or away; that uses up none of its attempts, unless this is 0.
    `holdfast backup` is not as patient: there it counts as an attempt."""


class Log(Section):
    """What is written to standard error."""

    level: Literal["trace", "debug", "info", "warning", "error"] = "info"
    """The least important level that is written."""
    format: Literal["auto", "text", "json"] = "auto"
    """`text` for people, `json` for machines; `auto` is text on a terminal, JSON elsewhere."""


class Spool(Section):
    """The intake that needs no broker: a directory of request files."""

    enabled: bool = True
    """Whether requests are taken from the spool."""
    path: AbsolutePath | None = None
    """The directory of the spool; by default `spool` in `state_dir`."""
    scan_seconds: SomeSeconds = 30.0
    """How often the spool is looked through even if no file event came."""
    keep_events_days: Days = 7.0
    """How long the outcome events in the spool are kept."""
    keep_done_days: Days = 7.0
    """How long request files are kept after their outcome."""
    max_request_bytes: RequestBytes = 262_144
    """The largest request file that is read; a larger one is refused."""


class Queue(Section):
    """The intake that talks to a message broker."""

    url: Annotated[Secret, AfterValidator(accepted_url)]
    """Where the broker is: `amqp://`, `amqps://`, `redis://` or `rediss://`."""
    password: Secret | None = None
    """Replaces the password in `url`, so that the URL itself need not be secret."""
    name: AmqpName = "holdfast.requests"
    """The queue requests are taken from; give it the same name on each worker that shares the work."""
    exchange: AmqpName = "holdfast"
    """The topic exchange requests are published to."""
    routing_keys: Annotated[tuple[AmqpName, ...], Field(min_length=1)] = ("#",)
    """Which requests reach the queue, as binding patterns of the topic exchange."""
    events_exchange: AmqpName = "holdfast.events"
    """The topic exchange outcome events are published to."""
    dead_letter_exchange: AmqpName = "holdfast.dead"
    """The exchange that takes what was refused or could not be read."""
    type: Literal["quorum", "classic"] = "quorum"
    """The kind of queue in RabbitMQ; `classic` does not survive the loss of a broker node."""
    delivery_limit: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """How often RabbitMQ delivers one message before it goes to the dead letter exchange."""
    heartbeat_seconds: Annotated[int, Field(ge=1, le=3_600)] = 30
    """How soon worker and broker notice that the other is gone."""
    connect_timeout_seconds: SomeSeconds = 10.0
    """How long one attempt to reach the broker may take."""
    reply_to_allowed: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "amq.rabbitmq.reply-to*",
        "amq.gen-*",
        "holdfast.reply.*",
    )
    """The reply queues a message may name, as shell patterns; an empty list allows none."""
    visibility_timeout_seconds: Annotated[int, Field(ge=1, le=43_200)] = 3_600
    """After how long Redis hands an unsettled message to another worker."""
    max_request_bytes: RequestBytes = 262_144
    """The largest message that is read; a larger one is refused."""

    @property
    def connection_url(self) -> Secret:
        """The URL to connect with: `url`, with `password` in it where that is set."""
        return self.url if self.password is None else with_password(self.url, self.password)


class LocalStore(Section):
    """A store in a directory of this machine, or in one mounted on it."""

    kind: Literal["local"]
    """The kind of store: `local` is a directory."""
    path: AbsolutePath
    """The directory; backups lie in `<path>/<plan>/<backup_id>/`."""


Store = LocalStore
"""Any kind of store. A second kind makes this a union, told apart by `kind`."""


class Limits(Section):
    """How much of the machine the work of a plan may take."""

    nice: Annotated[int, Field(ge=0, le=19)] = 0
    """By how much the work's processor time stands back behind others': 0 not at all, 19 the most."""
    io_class: Literal["normal", "low", "idle"] = "normal"
    """How the work's disk access stands back: `low` behind others', `idle` only while nobody else wants the disk."""
    bandwidth_bytes_per_second: Annotated[int, Field(ge=1_024)] | None = None
    """How fast a backup is written to its store at most; by default as fast as it goes."""


class Plan(Section):
    """What a request may ask for by name."""

    handler: Annotated[str, Field(min_length=1)]
    """How this kind of backup is made: the name of a handler, such as `tar`."""
    store: StoreName | None = None
    """The store that takes the backups; may be left out when there is only one."""
    verify: Literal["none", "checksums", "deep"] = "checksums"
    """How a new backup is checked: read again, or (`deep`) restored into scratch too."""
    max_level: Annotated[int, Field(ge=0, le=99)] = 9
    """The deepest automatic level; the backup after it starts over with a full one, 0 makes all of them full."""
    levels: Levels = Levels()
    """When the levels begin again before that."""
    retention: Retention = Retention()
    """Which backups are kept when others expire; by default all of them."""
    on_unreadable: Literal["partial", "fail"] = "partial"
    """What a backup becomes that could not read some of its files: `partial`, with the files named; or `fail`: it is
    thrown away."""
    on_changed: Literal["warn", "partial"] = "warn"
    """What a backup becomes in which files changed while they were read: it still succeeds, with the files named
    (`warn`), or it is `partial`. The next level takes them again either way."""
    options: Mapping[str, JsonValue] = Field(default={}, repr=False)
    """The handler's own settings; `holdfast schema` prints what each handler knows."""
    labels: Mapping[str, str] = {}
    """Free text for people and routing; copied into events and manifests."""
    enabled: bool = True
    """Whether requests for this plan are worked on; else they are refused."""
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    """Which of the accepted requests is worked on first: the one whose plan has the highest number."""
    allowed_hours: tuple[HoursText, ...] = ()
    """When a worker may begin this plan's requests, such as `22:00-06:00` or `sat,sun 00:00-24:00`; outside of these
    hours they wait. By default always; what somebody starts with `holdfast backup` does not wait."""
    limits: Limits = Limits()
    """How much of the machine the work of this plan may take."""


class Settings(Section):
    """The whole configuration of a worker."""

    node: Name = Field(default_factory=socket.gethostname, validate_default=True)
    """The name of this machine in manifests, events and routing keys; by default its host name."""
    state_dir: AbsolutePath = Path("/var/lib/holdfast")
    """The directory of the journal, the locks and the scratch space; it must survive a restart."""
    concurrency: Annotated[int, Field(ge=1, le=64)] = 2
    """How many requests are worked on at once."""
    handler_concurrency: Mapping[str, Annotated[int, Field(ge=1, le=64)]] = {}
    """How many requests of one handler are worked on at once, by the handler's name; by default all of them."""
    max_accepted: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
    """How many unfinished requests one worker may hold; it takes no more until one is done."""
    accept_ahead: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """How many requests are accepted beyond those that can begin at once, so that priorities have a choice. What is
    accepted is worked on by this worker alone."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] | None = None
    """The time zone of `allowed_hours` and of `retention`, such as `Europe/Berlin`; by default that of the machine."""
    lease_seconds: Annotated[float, Field(ge=5, le=3_600)] = 60.0
    """After how long without a sign of life another worker may take over a request on a shared store."""
    keep_requests_days: Days = 30
    """How long a concluded request is remembered; asked again meanwhile, it is answered with its old outcome."""
    settle: Literal["journalled", "announced"] = "journalled"
    """When a delivery is acknowledged: once it is in the journal, or once its outcome is out."""
    drain_seconds: Seconds = 25.0
    """How long a stopping worker lets running requests go on; keep it below the grace period."""
    progress_seconds: Seconds = 30.0
    """How often a running request reports its progress; 0 sends no progress events."""
    retry: Retry = Retry()
    """How often, how soon a request that failed for a passing reason is tried again."""
    log: Log = Log()
    """What is written to standard error."""
    spool: Spool = Spool()
    """The intake that needs no broker: a directory of request files."""
    queue: Queue | None = None
    """The intake that talks to a message broker; without this section there is none."""
    indicators: Mapping[Name, Indicators] = {}
    """The intakes that watch directories for files which ask for a backup, each under a name of your choice."""
    stores: Mapping[StoreName, Store] = {}
    """Where backups live, each under a name of your choice."""
    plans: Mapping[PlanName, Plan] = {}
    """What may be backed up, each under a name of your choice; requests can name nothing else."""

    @property
    def spool_path(self) -> Path:
        """The directory of the spool, absolute."""
        return self.spool.path or self.state_dir / "spool"

    def store_of(self, plan: str) -> tuple[str, Store]:
        """The name of the store that takes this plan's backups, with the store; KeyError for an unknown plan.

        Loading has made sure that it exists.
        """
        name = self.plans[plan].store
        if name is None:
            (name,) = self.stores
        return name, self.stores[name]
