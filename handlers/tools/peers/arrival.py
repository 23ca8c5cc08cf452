"""Looks at what came from a remote peer: what should not be there goes, the rest is hashed and compared."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Generator, Mapping
from contextlib import closing
from typing import NamedTuple

from handlers.contents import EntryType
from handlers.contract import ProblemKind
from handlers.tools.deep_tree import Way
from handlers.tools.peers.files import Dress, our_disk, put_on
from handlers.tools.peers.pulse import Pulse
from handlers.tools.peers.wanted import Wanted
from handlers.tools.remote.listing import RemoteEntry
from handlers.tools.removal import remove_at
from handlers.tools.trees.reading import LOOK, Asked, read_in_order
from handlers.tools.trees.reading import Pulse as ReadingPulse
from handlers.tools.trees.walk import Found, walk

_SECOND_NS = 1_000_000_000
_ROUNDED_NS = 1_000
"""How far a time may be off that went through a program which counts in another way than the kernel."""


class Arrived(NamedTuple):
    """One file, link or directory that came."""

    about: os.stat_result
    sha256: str | None = None
    """Of a regular file that was read."""


class Unsound(NamedTuple):
    """Why something is not as the peer says."""

    kind: ProblemKind
    detail: str


def sift(top: int, found: Wanted, pulse: Pulse) -> None:
    """Remove from an open directory what is not wanted, or of another type; make directories that did not come.

    Directories are open to us afterwards. Raises OurDisk, and what the pulse raises.
    """
    with our_disk(b"what came"), closing(Way(top)) as way:
        pending = [_sifted(way.here, b"", found)]
        paths = [b""]
        while pending:
            pulse.beat()
            if pending[-1]:
                name = pending[-1].pop()
                paths.append(paths[-1] + name + b"/")
                pending.append(_entered(way, name, paths[-1], found))
                continue
            pending.pop()
            paths.pop()
            if pending:
                way.leave()
    for path in sorted(path for path, entry in found.entries.items() if entry.type is EntryType.DIRECTORY):
        with our_disk(path):
            _make_directory(top, path)


def alike(top: int, found: Wanted) -> int:
    """How many files there are already of the size and time that the peer tells; nothing leads out of the directory."""
    count = 0
    for path in found.files:
        try:
            count += _is_alike(
                os.stat(path, dir_fd=top, follow_symlinks=False), found.entries[path], exact=found.exact_times
            )
        except OSError:
            continue
    return count


def hashed(top: int, found: Wanted, dress: Dress, pulse: Pulse, *, content: bool = True) -> dict[bytes, Arrived]:
    """All that is there and of which the peer has told, with owner, mode and time as they are to be.

    To be called after `sift`. Without `content` no file is read. Raises OurDisk, and what the pulse raises.
    """
    arrived = {}
    reading = ReadingPulse(pulse.beat, lambda size: None)
    with (
        our_disk(b"what came"),
        closing(_asked(top, found, dress, content=content)) as asked,
        closing(read_in_order(asked, reading)) as read,
    ):
        for (path, about), got in read:
            if isinstance(got, OSError):
                raise got
            arrived[path] = Arrived(about, None if got is None else got.sha256)
    return arrived


def judged(found: Wanted, arrived: Mapping[bytes, Arrived], *, by_sums: bool) -> dict[bytes, Unsound]:
    """Everything wanted that did not arrive as the peer says it is; with `by_sums` a file needs a sum of the peer's."""
    unsound = {}
    for path, entry in found.entries.items():
        there = arrived.get(path)
        if there is None:
            if entry.type is not EntryType.DIRECTORY:
                unsound[path] = Unsound(ProblemKind.OTHER, "it did not come")
        elif entry.type is EntryType.FILE:
            if not _is_alike(there.about, entry, exact=found.exact_times):
                unsound[path] = Unsound(ProblemKind.CHANGED, "its size or time is not the one that the peer tells")
            elif not by_sums:
                continue
            elif entry.sha256 is None:
                unsound[path] = Unsound(ProblemKind.OTHER, "the peer gave no SHA-256 of it")
            elif there.sha256 != entry.sha256:
                unsound[path] = Unsound(ProblemKind.OTHER, "its SHA-256 is not the one that the peer tells")
    return unsound


def remove_all(top: int, names: Collection[bytes]) -> None:
    """Remove these, so that they come anew: a copying program goes by size and time alone. Raises OurDisk."""
    for path in names:
        with our_disk(path), closing(Way(top)) as way:
            *above, last = path.split(b"/")
            try:
                for name in above:
                    way.enter(name, lambda here: None)
            except FileNotFoundError:
                continue
            remove_at(way.here, last)


def _entered(way: Way, name: bytes, path: bytes, found: Wanted) -> list[bytes]:
    return way.enter(name, lambda here: _sifted(here, path, found))


def _sifted(directory: int, path: bytes, found: Wanted) -> list[bytes]:
    os.fchmod(directory, 0o700)
    directories = []
    with os.scandir(directory) as scanned:
        entries = list(scanned)
    for entry in entries:
        name = os.fsencode(entry.name)
        listed = found.entries.get(path + name)
        about = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if listed is None or not _is_of_type(about, listed.type):
            remove_at(directory, name)
        elif stat.S_ISDIR(about.st_mode):
            directories.append(name)
    return directories


def _is_of_type(about: os.stat_result, listed: EntryType) -> bool:
    """A file with a second name may be one that lies elsewhere: no peer may give us those."""
    match listed:
        case EntryType.FILE:
            return stat.S_ISREG(about.st_mode) and about.st_nlink == 1
        case EntryType.DIRECTORY:
            return stat.S_ISDIR(about.st_mode)
        case _:
            return listed is EntryType.SYMLINK and stat.S_ISLNK(about.st_mode)


def _make_directory(top: int, path: bytes) -> None:
    *above, last = path.split(b"/")
    with closing(Way(top)) as way:
        for name in above:
            way.enter(name, lambda here: None)
        try:
            os.mkdir(last, 0o700, dir_fd=way.here)
        except FileExistsError:
            return


def _asked(
    top: int, found: Wanted, dress: Dress, *, content: bool
) -> Generator[Asked[tuple[bytes, os.stat_result]], None, None]:
    for here in walk(top):
        if here.error is not None:
            raise here.error
        entry = found.entries.get(here.path)
        about, descriptor = here.about, None
        if entry is None:
            continue  # the top; all else was removed
        if entry.type is EntryType.DIRECTORY:
            _dress_directory(here, entry, dress)
        elif entry.type is EntryType.SYMLINK:
            _dress_link(here, dress)
        else:
            about, descriptor = _dressed_file(here, dress)
            if not content:
                os.close(descriptor)
                descriptor = None
        yield Asked((here.path, about), about, descriptor)


def _is_alike(about: os.stat_result, entry: RemoteEntry, *, exact: bool) -> bool:
    """Whether size and time are the peer's; what it cannot tell is not held against it."""
    if entry.size is not None and entry.size != about.st_size:
        return False
    if entry.mtime_ns is None:
        return True
    # Copying programs and file systems may cut a time to whole seconds.
    in_seconds = not exact or not about.st_mtime_ns % _SECOND_NS
    return abs(about.st_mtime_ns - entry.mtime_ns) < (_SECOND_NS if in_seconds else _ROUNDED_NS)


def _dressed_file(here: Found, dress: Dress) -> tuple[os.stat_result, int]:
    descriptor = os.open(here.name, LOOK, dir_fd=here.at)
    try:
        about = os.fstat(descriptor)
        as_wanted = stat.S_IMODE(about.st_mode) == dress.file_mode(about)
        if as_wanted and dress.owner_of(about) in {(-1, -1), (about.st_uid, about.st_gid)}:
            return about, descriptor  # most are: rsync keeps what we want to be kept
        put_on(descriptor, about, dress)
        return os.fstat(descriptor), descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _dress_directory(here: Found, entry: RemoteEntry, dress: Dress) -> None:
    uid, gid = dress.owner_of(here.about)
    if (uid, gid) != (-1, -1):
        os.fchown(here.at, uid, gid)
    mode = dress.directory_mode
    if mode is None:
        mode = (0o755 if entry.mode is None else entry.mode & 0o777) | stat.S_IRUSR | stat.S_IXUSR
    os.fchmod(here.at, mode)
    if entry.mtime_ns is not None:
        os.utime(here.at, ns=(entry.mtime_ns, entry.mtime_ns))


def _dress_link(here: Found, dress: Dress) -> None:
    uid, gid = dress.owner_of(here.about)
    if (uid, gid) != (-1, -1):
        os.chown(here.name, uid, gid, dir_fd=here.at, follow_symlinks=False)
