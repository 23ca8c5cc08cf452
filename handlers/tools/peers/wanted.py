"""What of a remote peer's own list is taken, what is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from handlers.contents import EntryType
from handlers.contract import ProblemKind
from handlers.errors import PermanentError
from handlers.tools.peers.outcome import Outcome, Rules
from handlers.tools.remote.listing import RemoteEntry, RemoteListing

_REFUSED: Mapping[EntryType, tuple[ProblemKind, str]] = {
    EntryType.SYMLINK: (ProblemKind.OTHER, "a symbolic link, and links are refused"),
    EntryType.DIRECTORY: (ProblemKind.OTHER, "a directory, and the peer is not staged recursively"),
    EntryType.FIFO: (ProblemKind.UNKNOWN_TYPE, "a named pipe; there is nothing in it"),
    EntryType.BLOCK_DEVICE: (ProblemKind.UNKNOWN_TYPE, "a device, which is never staged"),
    EntryType.CHARACTER_DEVICE: (ProblemKind.UNKNOWN_TYPE, "a device, which is never staged"),
    EntryType.UNKNOWN: (ProblemKind.SOCKET, "a socket, or something else that has no content"),
}


@dataclass(slots=True)
class Wanted:
    """What there is to fetch, by the peer's own list."""

    entries: dict[bytes, RemoteEntry] = field(default_factory=dict)
    """What may be in the set."""
    outcome: Outcome = field(default_factory=Outcome)
    """With what is left out and what is refused."""
    exact_times: bool = True

    @property
    def files(self) -> list[bytes]:
        """The regular files among them."""
        return [path for path, entry in self.entries.items() if entry.type is EntryType.FILE]

    @property
    def size_bytes(self) -> int:
        """Of the regular files, as far as the peer can tell."""
        return sum(entry.size or 0 for entry in self.entries.values() if entry.type is EntryType.FILE)


def wanted(listing: RemoteListing, rules: Rules) -> Wanted:
    """What of a peer's list is taken. Raises PermanentError where too much of it is not, or there is too much of it."""
    found = Wanted(exact_times=listing.exact_times)
    outcome = found.outcome
    for path, entry in listing.entries.items():
        if path in rules.left_out:
            outcome.left_out.append(os.fsdecode(path))
        elif not rules.recursive and b"/" in path:
            continue
        elif _is_taken(entry, rules):
            found.entries[path] = entry
        else:
            outcome.add(path, *_REFUSED[entry.type])
            outcome.refused.append(path)
    if not listing.complete:
        told = "; ".join(listing.troubles[-3:]) or "nobody says why"
        outcome.add(b".", ProblemKind.UNREADABLE, f"the peer could not list all of it: {told}")
    if rules.max_bytes is not None and any(found.entries[path].size is None for path in found.files):
        raise PermanentError(
            "the peer cannot tell how large its files are", hint="max_bytes needs GNU find, or a program stat, there"
        )
    rules.check_size(found.size_bytes)
    return found


def _is_taken(entry: RemoteEntry, rules: Rules) -> bool:
    match entry.type:
        case EntryType.FILE:
            return True
        case EntryType.DIRECTORY:
            return rules.recursive
        case EntryType.SYMLINK:
            return rules.links
        case _:
            return False
