"""Sees to it that extended attributes and access control lists come back as they were: by number, and no more of them.

GNU tar 1.34 writes access lists with names of users, and looks these up again when it restores: on a machine where the
name belongs to another number, or to nobody, the wrong user would get in. It writes them by number as well, as the
attribute that they are to the kernel; that is what counts here. And it never takes an attribute away from a directory
that is there already: what a later level no longer has would stay.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from handlers.tools.deep_tree import ENTER, reached
from handlers.tools.tar.archive_format import ACL, XATTR, Malformed

LISTS = {
    ACL + b"access": XATTR + b"system.posix_acl_access",
    ACL + b"default": XATTR + b"system.posix_acl_default",
}
"""Keywords of extended headers with access lists: in words, and as the attribute that they are to the kernel."""

_VERSION = 2
_ENTRY = struct.Struct("<HHI")
# Source: Linux, include/uapi/linux/posix_acl.h and posix_acl_xattr.h.
_TAGS = {
    0x01: b"user:",
    0x02: b"user:%d",
    0x04: b"group:",
    0x08: b"group:%d",
    0x10: b"mask:",
    0x20: b"other:",
}
_NAMED = frozenset({0x02, 0x08})


def numbered_lists(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """What must be changed in a member's extended header for its access lists to be by number.

    Nothing where the numbers are not there, because the plan leaves out attributes. Raises Malformed for a list that
    is none.
    """
    return {text: text_of_list(records[raw]) for text, raw in LISTS.items() if text in records and raw in records}


def text_of_list(raw: bytes) -> bytes:
    """The words for an access list as the kernel has it. Raises Malformed where it is none."""
    body = raw[4:]
    if len(raw) < 4 or int.from_bytes(raw[:4], "little") != _VERSION or len(body) % _ENTRY.size:
        raise Malformed(f"access list {raw[:40]!r}")
    return b"".join(_line(*entry) for entry in _ENTRY.iter_unpack(body))


def _line(tag: int, permissions: int, number: int) -> bytes:
    who = _TAGS.get(tag)
    if who is None or permissions > 7:
        raise Malformed(f"access list entry {tag}, {permissions}")
    if tag in _NAMED:
        who %= number
    letters = bytes(letter if permissions & bit else 45 for letter, bit in zip(b"rwx", (4, 2, 1), strict=True))
    return who + b":" + letters + b"\n"


def attribute_names(keywords: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The extended attributes among the keywords of an extended header, access lists left out."""
    return tuple(
        key.removeprefix(XATTR).replace(b"%3D", b"=").replace(b"%25", b"%")
        for key in keywords
        if key.startswith(XATTR) and key not in LISTS.values()
    )


def take_away(target: Path, attributes: Mapping[bytes, tuple[bytes, ...]]) -> None:
    """Remove these attributes of directories below target; `b""` is target itself. What is not there is fine.

    Without root only `user.` attributes, for no others came back. Raises OSError.
    """
    is_root = os.geteuid() == 0
    root = os.open(target, ENTER)
    try:
        for path, names in attributes.items():
            with suppress(FileNotFoundError, NotADirectoryError):
                with reached(root, path or b".") as (at, name):
                    directory = os.open(name, ENTER, dir_fd=at)
                try:
                    for attribute in names:
                        if is_root or attribute.startswith(b"user."):
                            _remove(directory, attribute)
                finally:
                    os.close(directory)
    finally:
        os.close(root)


def _remove(directory: int, name: bytes) -> None:
    try:
        os.removexattr(directory, name)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
            raise
