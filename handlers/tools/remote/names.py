"""Tells names of hosts, users, directories from what a program would take for something else."""

from __future__ import annotations

import ipaddress
import re

from handlers.errors import PermanentError

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,254}")

_MAX_HOST = 253
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 64 << 10


def checked_host(host: str) -> str:
    """The host: a name after RFC 1123 (underscores are found in practice and taken), an IPv4 or IPv6 address.

    Raises PermanentError for anything else.
    """
    if is_ipv6(host) or (len(host) <= _MAX_HOST and _HOST.fullmatch(host)):
        return host
    raise PermanentError(
        f"not a host: {host!r}", hint="a name like web01.example.com, an IPv4 or an IPv6 address; no user, no brackets"
    )


def is_ipv6(host: str) -> bool:
    """Whether it is an IPv6 address, perhaps with a zone."""
    address, percent, zone = host.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(zone) is not None


def bracketed(host: str) -> str:
    """The host as it stands before a colon and a path."""
    return f"[{host}]" if is_ipv6(host) else host


def checked_user(user: str) -> str:
    """The user's name. Raises PermanentError where it is none."""
    if not _USER.fullmatch(user):
        raise PermanentError(f"not a user's name: {user!r}", hint="letters, digits, any of _.+-; no dash in front")
    return user


def checked_directory(directory: bytes) -> bytes:
    """An absolute path without a slash at its end. Raises PermanentError where it is not absolute, or has a NUL."""
    if not directory.startswith(b"/") or b"\0" in directory:
        raise PermanentError(f"not an absolute path on a peer: {directory!r}")
    return directory.rstrip(b"/") or b"/"


def is_below(path: bytes) -> bool:
    """Whether a path, taken below a directory, can only be a name below it, spelt in the one way there is."""
    if not path or len(path) > _MAX_PATH_BYTES or b"\0" in path:
        return False
    return all(part not in {b"", b".", b".."} and len(part) <= _MAX_NAME_BYTES for part in path.split(b"/"))
