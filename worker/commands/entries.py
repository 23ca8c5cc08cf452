"""Shows the entries of a directory to people and scripts."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from handlers.contents import EntryType
from handlers.contract import printable

if TYPE_CHECKING:
    from handlers.contents import Entry

_TYPE_BITS: Mapping[EntryType, int] = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.BLOCK_DEVICE: stat.S_IFBLK,
    EntryType.CHARACTER_DEVICE: stat.S_IFCHR,
}
_PLAIN = re.compile(r"[^\s'\"\\$`!#&*()|;<>?\[\]{}~]+")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def quoted(name: bytes) -> str:
    """A name for a terminal, so that a shell takes it back for the same name; as it is where that is safe."""
    text = name.decode("utf-8", "surrogateescape")
    if _PLAIN.fullmatch(text) and text.isprintable():
        return text
    if text.isprintable():
        return "'" + text.replace("'", "'\\''") + "'"
    pieces = []
    for character in text:
        if character in "\\'":
            pieces.append("\\" + character)
        elif character.isprintable():
            pieces.append(character)
        else:
            pieces.extend(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
    return f"$'{''.join(pieces)}'"


def mode_text(entry: Entry) -> str:
    """Type and permissions as `ls -l` has them, `?` for what no set tells."""
    bits = _TYPE_BITS.get(entry.type)
    if bits is None:
        return "?" * 10
    return stat.filemode(bits)[0] + "?" * 9 if entry.mode is None else stat.filemode(bits | entry.mode)


def time_text(mtime_ns: int | None) -> str:
    """A time on this machine's clock."""
    if mtime_ns is None:
        return "?"
    try:
        return f"{(_EPOCH + timedelta(seconds=mtime_ns // 10**9)).astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):
        return f"@{mtime_ns // 10**9}"


def numbers(entry: Entry) -> str:
    """All but the name of a line of `ls -l`."""
    size = ",".join(map(str, entry.device)) if entry.device else str(entry.size)
    shown = size if entry.type is not EntryType.UNKNOWN else "?"
    uid, gid = ("?" if number is None else str(number) for number in (entry.uid, entry.gid))
    return f"{mode_text(entry)} {uid:>5} {gid:>5} {shown:>12} {time_text(entry.mtime_ns):19}"


def document(entry: Entry) -> dict[str, object]:
    """An entry for scripts; what no set tells is left out."""
    found: dict[str, object] = {"path": printable(entry.path), "type": entry.type, "size": entry.size}
    more: dict[str, object | None] = {
        "mode": None if entry.mode is None else f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime_ns": entry.mtime_ns,
        "target": None if entry.target is None else printable(entry.target),
        "device": entry.device,
        "held_by": entry.held_by,
        "missing": entry.missing,
        "outdated": entry.outdated,
    }
    return found | {name: value for name, value in more.items() if value is not None}
