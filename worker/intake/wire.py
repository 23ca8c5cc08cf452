"""Turns the bytes of a message into a `BackupRequest`.

The request on the wire is a CloudEvents 1.0 structured JSON message of type `holdfast.backup.requested`, or its `data`
as plain JSON with an `id`. Described for producers in `docs/requests.md`. A message is untrusted: it can name a plan,
narrow what is done, and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Literal, NewType, Self

import orjson
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from handlers.contract import BackupId
from handlers.errors import PermanentError

RequestId = NewType("RequestId", str)
"""The producer's name for a request; the same id means the same request, however often it is delivered."""

Operation = Literal["backup", "verify", "expire", "manage"]

REQUEST_TYPE = "holdfast.backup.requested"
MAX_ID = 512

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
_Text = Annotated[str, StringConstraints(max_length=1024)]
_Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID, pattern=r"^[^\x00-\x1f\x7f]+$")]


class MessageRefused(PermanentError):
    """The message is no request; it goes to the dead letters with this reason."""

    exit_code = 4

    def __init__(self, message: str, *, request_id: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.request_id = request_id


class RequestData(BaseModel):
    """What a request may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: _Name
    """The plan to run; one that the operator configured."""
    operation: Operation = "backup"
    """`backup` makes a set; `verify` reads the plan's newest set again; `expire` lets go of the sets that the plan's
    retention no longer wants; `manage` has the plan's managed peers carry out `action`."""
    action: _Name | None = None
    """What `manage` has them do, by a name that the plan's configuration allows; `level: full` asks for the whole
    instead of what is new."""
    level: Literal["auto", "full", "incremental"] | Annotated[int, Field(ge=0, le=99, strict=True)] = "auto"
    """Which level to make: chosen by the plan, from scratch, on top of the newest, or this number."""
    reason: _Text | None = None
    """Why, in the caller's words; kept in the manifest."""
    labels: dict[_Name, _Text] = Field(default={}, max_length=32)
    """Kept in the manifest and repeated in events."""
    not_after: AwareDatetime | None = None
    """A deadline: a request that has not begun by then is refused, not run."""
    reply_to: _Id | None = None
    """A queue that gets the outcome too, where the worker's configuration allows it."""

    @model_validator(mode="after")
    def _action_of_manage(self) -> Self:
        if (self.operation == "manage") != (self.action is not None):
            raise ValueError("operation manage names an action, and no other operation does")
        return self


class PlainRequest(RequestData):
    """A request as plain JSON: the data together with its id."""

    id: _Id
    """The request's id."""


class CloudEvent(BaseModel):
    """The envelope of a request, CloudEvents 1.0 in structured mode."""

    model_config = ConfigDict(frozen=True, extra="allow")

    specversion: Literal["1.0"]
    type: Literal["holdfast.backup.requested"]
    source: _Id
    id: _Id
    time: AwareDatetime | None = None
    datacontenttype: Literal["application/json"] | None = None
    subject: str | None = None
    data: RequestData


class BackupRequest(BaseModel):
    """A request that is well formed; whether it is allowed is for `worker.policy` to say."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    data: RequestData
    reply_to: str | None = None
    """Where the outcome goes besides the usual places."""
    correlation_id: str | None = None
    """Given back with the outcome."""

    @property
    def content_digest(self) -> str:
        """Tells two requests of one id apart; where the answer goes is not part of what is asked."""
        # Journals and manifests have digests from before there were actions.
        left_out = {"reply_to"} if self.data.action is not None else {"reply_to", "action"}
        content = self.data.model_dump(mode="json", exclude=left_out)
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def backup_id(self) -> BackupId:
        """The name of the set this request makes: always the same, readable, safe as a file name and S3 key."""
        return backup_id(RequestId(self.request_id))


def backup_id(request_id: RequestId) -> BackupId:
    """The set's name for a request: the id's harmless characters, then a part of its SHA-256.

    The hash alone makes it unique; the readable half is there for the person who lists a directory.
    """
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", request_id).strip(".-_").lower()[:40].rstrip(".-_")
    fingerprint = hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return BackupId(f"{readable}-{fingerprint}" if readable else fingerprint)


def parse(
    body: bytes,
    *,
    message_id: str | None = None,
    reply_to: str | None = None,
    correlation_id: str | None = None,
) -> BackupRequest:
    """The request in a message's body; transport properties fill what the body leaves out.

    A body without an id takes the transport's message_id. Raises MessageRefused saying what is wrong with it, with the
    id where one can be read.
    """
    document = _document(body)
    message_id, reply_to, correlation_id = _clean(message_id), _clean(reply_to), _clean(correlation_id)
    if "specversion" in document:
        return _from_event(document, reply_to, correlation_id)
    if message_id is not None:
        document.setdefault("id", message_id)
    try:
        plain = PlainRequest.model_validate_json(_encoded(document))
    except ValidationError as error:
        raise _refusal(error, document) from error
    data = RequestData.model_construct(**{name: getattr(plain, name) for name in RequestData.model_fields})
    return BackupRequest(
        request_id=plain.id, data=data, reply_to=data.reply_to or reply_to, correlation_id=correlation_id
    )


def _from_event(document: dict[str, object], reply_to: str | None, correlation_id: str | None) -> BackupRequest:
    try:
        event = CloudEvent.model_validate_json(_encoded(document))
    except ValidationError as error:
        raise _refusal(error, document) from error
    return BackupRequest(
        # CloudEvents: "source + id is unique for each distinct event". A space cannot be confused with either.
        request_id=f"{event.source} {event.id}",
        data=event.data,
        reply_to=event.data.reply_to or reply_to,
        correlation_id=correlation_id,
    )


def _encoded(document: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        # Reading takes deeper nesting than writing does.
        raise MessageRefused(f"the message cannot be taken apart: {error}") from error


def _clean(text: str | None) -> str | None:
    # A transport's properties may be no UTF-8, and come as lone surrogates, which neither JSON nor SQLite take.
    return text if text is None else text.encode("utf-8", "backslashreplace").decode()


def _document(body: bytes) -> dict[str, object]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MessageRefused(f"the message is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise MessageRefused(f"the message is a JSON {type(document).__name__}, not an object")
    return document


def _refusal(error: ValidationError, document: dict[str, object]) -> MessageRefused:
    faults = [
        f"{'.'.join(str(step) for step in fault['loc']) or 'message'}: {fault['msg'].lower()}"
        for fault in error.errors(include_url=False, include_input=False)
    ]
    raw_id, source = document.get("id"), document.get("source")
    readable: str | None = raw_id if isinstance(raw_id, str) and 0 < len(raw_id) <= MAX_ID else None
    if readable is not None and "specversion" in document and isinstance(source, str):
        readable = f"{source[:MAX_ID]} {readable}"
    return MessageRefused(
        "; ".join(faults[:10]),
        request_id=readable,
        hint="`holdfast schema request` prints what a request may say",
    )
