"""Values that are never shown."""

from __future__ import annotations

import difflib
import hmac
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MASK: Final = "********"
"""What stands in the place of a secret, whatever its length."""

MAX_SECRET_BYTES: Final = 65_536
"""A file that is larger was named by mistake."""

_WORDS: Final = ("password", "passphrase", "passwd", "secret", "token", "credential", "credentials")
_SHORT_WORDS: Final = frozenset({"pass", "pw", "pwd", "key", "apikey", "auth", "dsn", "url", "uri", "private"})


class Secret:
    """Text that shows itself to nobody but a caller of `reveal`: not in repr, str, format, JSON or pickles."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the one call that needs it; never log it, never put it into a message."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a secret is not pickled")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Text in (never empty), `MASK` out when serialised to JSON."""
        from_text = core_schema.no_info_after_validator_function(_not_empty, core_schema.str_schema())
        return core_schema.json_or_python_schema(
            json_schema=from_text,
            python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_text]),
            serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Text that an editor had better not echo."""
        return {"type": "string", "minLength": 1, "format": "password", "writeOnly": True}


def _not_empty(value: str) -> Secret:
    if not value:
        raise PydanticCustomError(
            "setting", "{message}", {"message": "is empty", "hint": "a secret has at least one character"}
        )
    return Secret(value)


class SecretUnreadable(Exception):
    """A secret could not be had from its file: `args[0]` says why, `hint` what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def read_secret(path: Path) -> str:
    """The text of the file without its last line end; never empty.

    Raises SecretUnreadable, which does not quote the content, unless this is a regular file of at most
    `MAX_SECRET_BYTES` of UTF-8 that not everybody may read.
    """
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        hint = "a secret that cannot be read never counts as not set"
        raise SecretUnreadable(f"the file cannot be read: {reason}", hint) from None
    if len(content) > MAX_SECRET_BYTES:
        raise SecretUnreadable(f"the file has more than {MAX_SECRET_BYTES} bytes", "is this the right file?")
    return _text(content)


def _content(path: Path) -> bytes:
    # O_NONBLOCK: opening a named pipe would wait for its writer, perhaps for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SecretUnreadable("is not a regular file", "name a file that holds nothing but the secret")
        if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise SecretUnreadable(
                f"everybody may read or write the file: its mode is {stat.S_IMODE(status.st_mode):04o}",
                "chmod o-rwx; in Kubernetes defaultMode: 0440, in a compose file mode: 0440",
            )
        return os.read(descriptor, MAX_SECRET_BYTES + 1)
    finally:
        os.close(descriptor)


def _text(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SecretUnreadable("the file does not hold text", "a secret is text in UTF-8")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise SecretUnreadable("the file is empty", "an empty secret never counts as not set")
    return text


def looks_secret(name: str) -> bool:
    """Whether a key of this name may well hold a secret, also when it is misspelt; in doubt it does."""
    for word in re.split(r"[^a-z0-9]+", name.lower()):
        if word in _SHORT_WORDS or difflib.get_close_matches(word[:40], _WORDS, n=1, cutoff=0.75):
            return True
    return False


def without_userinfo(text: str) -> str:
    """The text with the passwords of the URLs in it masked."""
    return re.sub(r"\S+", lambda word: _without_password(word[0]), text)


def _without_password(word: str) -> str:
    scheme, separator, rest = word.partition("://")
    userinfo, at, host = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    return f"{scheme}{separator}{user}:{MASK}@{host}" if at and colon else word
