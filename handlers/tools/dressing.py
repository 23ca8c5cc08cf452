"""Gives a new file its owner, mode, extended attributes and time, whatever type it has."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping
from typing import NamedTuple

from handlers.contract import printable

NONE_THERE = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODATA})
"""Errors that mean that there is no such attribute, or that the filesystem knows of none."""

_NOT_HERE = NONE_THERE | {errno.EPERM, errno.EACCES}
"""Errors of an attribute that this filesystem, or this user, cannot have: that is no reason to give up."""

Unset = Callable[[str, str], None]
"""Called with the name of an extended attribute that could not be set, and with which file and why."""


class Dress(NamedTuple):
    """What is set when the content is there."""

    path: bytes
    """For messages."""
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    attributes: Mapping[str, bytes]
    """Extended attributes, access lists among them."""


def dress(descriptor: int, about: Dress, unset: Unset) -> None:
    """Dress an open file or directory; the owner only as root. Raises OSError.

    Owner first: changing it takes set-id bits and capabilities away. Time last.
    """
    if os.geteuid() == 0:
        os.fchown(descriptor, about.uid, about.gid)
    os.fchmod(descriptor, about.mode)
    _set_attributes(about, lambda key, value: os.setxattr(descriptor, key, value), unset)
    os.utime(descriptor, ns=(about.mtime_ns, about.mtime_ns))


def dress_unopened(parent: int, name: bytes, about: Dress, unset: Unset, *, is_link: bool) -> None:
    """Dress what must not be opened, or cannot be: links, devices, pipes. Raises OSError."""
    if os.geteuid() == 0:
        os.chown(name, about.uid, about.gid, dir_fd=parent, follow_symlinks=False)
    if not is_link:
        _change_mode(parent, name, about.mode)
    place = by_descriptor(parent, name)
    _set_attributes(about, lambda key, value: os.setxattr(place, key, value, follow_symlinks=False), unset)
    os.utime(name, ns=(about.mtime_ns, about.mtime_ns), dir_fd=parent, follow_symlinks=False)


def attributes_of(place: int | str) -> dict[str, bytes]:
    """The extended attributes of an open file, or of a path, which is not followed. Raises OSError."""
    follows = isinstance(place, int)
    found = {}
    try:
        for name in os.listxattr(place, follow_symlinks=follows):
            found[name] = os.getxattr(place, name, follow_symlinks=follows)
    except OSError as error:
        if error.errno not in NONE_THERE:
            raise
    return found


def by_descriptor(parent: int, name: bytes) -> str:
    """A path to a name in an open directory, for what takes no descriptors."""
    return f"/proc/self/fd/{parent}/{os.fsdecode(name)}"


def _set_attributes(about: Dress, put: Callable[[str, bytes], None], unset: Unset) -> None:
    is_root = os.geteuid() == 0
    for key, value in about.attributes.items():
        if is_root or key.startswith(("user.", "system.posix_acl_")):
            try:
                put(key, value)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                unset(key, f"'{key}' of {printable(about.path)}: {error.strerror}")


def _change_mode(parent: int, name: bytes, mode: int) -> None:
    """Of what cannot be opened: Linux has no chmod that does not follow links, but by descriptor."""
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(place).st_mode):
            os.chmod(f"/proc/self/fd/{place}", mode)  # noqa: PTH101  # there is no other path to it
    finally:
        os.close(place)
