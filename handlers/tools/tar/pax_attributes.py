"""Translates extended attributes and access lists between the kernel and the extended headers of an archive.

Both are written the way GNU tar does: attributes under `SCHILY.xattr.`, access lists also as text under
`SCHILY.acl.`, which GNU tar's `--acls` restores without root; here the text has numbers for users, not their names.
"""

from __future__ import annotations

import grp
import os
import pwd
import struct
from collections.abc import Callable, Iterator

from handlers.tools.dressing import NONE_THERE
from handlers.tools.tar.access import numbered_lists
from handlers.tools.tar.archive_format import ACL, XATTR, Malformed
from handlers.tools.tar.header import Record

_ACL_PREFIX = "system.posix_acl_"
_ACL_VERSION = 2
_HEAD = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NOBODY = 0xFFFFFFFF
_TAGS = {
    (b"user", False): 0x01,
    (b"user", True): 0x02,
    (b"group", False): 0x04,
    (b"group", True): 0x08,
    (b"mask", False): 0x10,
    (b"other", False): 0x20,
}
"""By word and whether somebody is named. Source: Linux, include/uapi/linux/posix_acl.h."""


def attribute_records(
    place: int | str, *, xattrs: bool, acls: bool, complain: Callable[[str, int | None], None]
) -> Iterator[Record]:
    """What an archive says of the attributes of an open file, or of a path, which is not followed.

    `complain` is told in words what cannot be read, with the number of the error; the rest is there all the same.
    """
    try:
        names = os.listxattr(place) if isinstance(place, int) else os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NONE_THERE:
            complain(f"llistxattr: Cannot llistxattr: {error.strerror}", error.errno)
        return
    for name in names:
        is_acl = name.startswith(_ACL_PREFIX)
        if not (acls if is_acl else xattrs):
            continue
        try:
            value = os.getxattr(place, name) if isinstance(place, int) else _of_path(place, name)
        except OSError as error:
            if error.errno not in NONE_THERE:
                complain(f"lgetxattr: Cannot lgetxattr {name}: {error.strerror}", error.errno)
            continue
        record = (XATTR + os.fsencode(name).replace(b"%", b"%25").replace(b"=", b"%3D"), value)
        if is_acl:
            text = ACL + os.fsencode(name.removeprefix(_ACL_PREFIX))
            try:
                yield from numbered_lists({text: b"", record[0]: value}).items()
            except Malformed as error:
                complain(f"acl: Cannot read the access list: {error}", None)
                continue
        if xattrs:
            yield record


def attribute_of(record: Record) -> tuple[str, bytes] | None:
    """The extended attribute that a record of an archive stands for; None for one that is about something else.

    Raises ValueError for an access list that is none, or names somebody who is not known here.
    """
    keyword, value = record
    if keyword.startswith(ACL):
        return _ACL_PREFIX + os.fsdecode(keyword.removeprefix(ACL)), _acl_value(value)
    if keyword.startswith(XATTR):
        return os.fsdecode(keyword.removeprefix(XATTR).replace(b"%3D", b"=").replace(b"%25", b"%")), value
    return None


def _of_path(place: str, name: str) -> bytes:
    return os.getxattr(place, name, follow_symlinks=False)


def _acl_value(text: bytes) -> bytes:
    """The access list as the kernel has it. Raises ValueError unless the text is one with numbers."""
    value = _HEAD.pack(_ACL_VERSION)
    for line in text.replace(b"\n", b",").split(b","):
        entry = line.partition(b"#")[0].strip()
        if not entry:
            continue
        kind, _, rest = entry.partition(b":")
        who, _, letters = rest.partition(b":")
        tag = _TAGS.get((kind, bool(who)))
        if tag is None or len(letters) != 3 or letters.strip(b"rwx-"):
            raise ValueError(f"access list with entry {entry.decode('utf-8', 'backslashreplace')!r}")
        rights = sum(bit for letter, bit in ((b"r", 4), (b"w", 2), (b"x", 1)) if letter in letters)
        value += _ENTRY.pack(tag, rights, _number(kind, os.fsdecode(who)) if who else _NOBODY)
    return value


def _number(kind: bytes, who: str) -> int:
    """GNU tar 1.34 writes names; where it keeps attributes as well, the numbers are there too."""
    if who.isdecimal():
        return int(who)
    try:
        return pwd.getpwnam(who).pw_uid if kind == b"user" else grp.getgrnam(who).gr_gid
    except KeyError:
        raise ValueError(f"access list with unknown {kind.decode()} {who!r}") from None
