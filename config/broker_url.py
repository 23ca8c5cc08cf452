"""Which broker URLs are accepted."""

from __future__ import annotations

from typing import Final, NoReturn
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic_core import PydanticCustomError

from config.secrets import Secret

SCHEMES: Final = ("amqp", "amqps", "redis", "rediss")
"""The transports whose delivery guarantees are tested."""

_LOSING: Final = frozenset({"filesystem", "sqla", "sqlalchemy", "sqlite", "postgresql", "mysql"})


def accepted_url(url: Secret) -> Secret:
    """The same URL; a PydanticCustomError, which never quotes it, unless a queue can be trusted behind it.

    Several brokers of one cluster are separated by `;`, as kombu has it.
    """
    text = url.reveal()
    if text != text.strip() or any(character.isspace() or ord(character) < 32 for character in text):
        _refuse("has white space in it", "percent-encode it, and look for a line end in the secret's file")
    kinds = {_scheme(part) for part in text.split(";")}
    if len(kinds) > 1:
        _refuse("names brokers of different kinds", f"they are {', '.join(sorted(kinds))}")
    return url


def _scheme(part: str) -> str:
    scheme, separator, _ = part.partition("://")
    scheme = scheme.lower()
    if not separator:
        _refuse("is not a URL", "write amqp://user@host/vhost; a ; in a password is written %3B")
    if scheme.partition("+")[0] in _LOSING:
        _refuse(
            "names a transport that loses or strands requests when a worker is killed",
            "leave out the queue and use the spool: a directory that survives kill -9 and power loss",
        )
    if scheme == "memory":
        _refuse(
            "names a transport that lives in one process: nobody else could send a request",
            "leave out the queue and use the spool",
        )
    if scheme not in SCHEMES:
        _refuse("has an unknown scheme", f"known: {', '.join(f'{known}://' for known in SCHEMES)}")
    if not _well_formed(part):
        _refuse(
            "is not well formed after the scheme",
            "percent-encode / # ? @ : ; in the password, or give it as password or password_file",
        )
    return scheme


def _well_formed(part: str) -> bool:
    # The error is dropped: it quotes what stands where the port is looked for, which may be half a password.
    try:
        _ = urlsplit(part).port
    except ValueError:
        return False
    return True


def _refuse(message: str, hint: str) -> NoReturn:
    raise PydanticCustomError("setting", "{message}", {"message": message, "hint": hint})


def with_password(url: Secret, password: Secret) -> Secret:
    """The URL with this password in each of its parts; what was there as a password is gone."""
    encoded = quote(password.reveal(), safe="")
    return Secret(";".join(_replace_password(part, encoded) for part in url.reveal().split(";")))


def _replace_password(part: str, password: str) -> str:
    split = urlsplit(part)
    userinfo, _, host = split.netloc.rpartition("@")
    user = userinfo.partition(":")[0]
    return urlunsplit(split._replace(netloc=f"{user}:{password}@{host}"))
