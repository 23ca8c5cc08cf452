"""Compares two trees file by file, in all that a backup must bring back.

Nothing here uses the product's code, nor its index: a mistake there must not be repeated here. Trees may be deeper than
PATH_MAX: no more than one name is used at once. A tree is photographed, so that it may change before it is compared.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

OWNERS = frozenset({"uid", "gid"})
"""What only root can bring back."""

_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One file, of any type."""

    type: str
    """As `ls -l` prints it: - d l b c p s."""
    mode: int
    """With set-user-id, set-group-id and sticky bit."""
    uid: int
    gid: int
    mtime_ns: int
    size: int | None = None
    """Of a regular file, holes included."""
    content: str | None = None
    """SHA-256 of a regular file: of each block that is not all zeros, with its place."""
    data_bytes: int | None = None
    """Of a regular file: what is no hole, in whole blocks of 4 KiB."""
    target: bytes | None = None
    """Of a symbolic link."""
    device: tuple[int, int] | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    """Of all namespaces that this process may see."""
    acls: Mapping[bytes, bytes] = field(default_factory=dict)
    """POSIX access control lists, as the kernel has them: owners are numbers."""
    shares: frozenset[bytes] | None = None
    """All names below the top that are this very file, if there are several."""


Photograph = Mapping[bytes, Facts]
"""A tree by path relative to its top, which is `.`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one tree has and the other has not."""

    path: bytes
    aspect: str
    """`missing`, `extra`, or the name of one of the `Facts`."""
    expected: object = None
    found: object = None


def photograph(top: Path) -> Photograph:
    """All that is there. Raises OSError for what cannot be read."""
    taken: dict[bytes, Facts] = {}
    shared: dict[tuple[int, int], list[bytes]] = {}
    for path, about, facts in _walk(top):
        taken[path] = facts
        if facts.type != "d" and about.st_nlink > 1:
            shared.setdefault((about.st_dev, about.st_ino), []).append(path)
    for paths in shared.values():
        if len(paths) > 1:
            for path in paths:
                taken[path] = _with_shares(taken[path], frozenset(paths))
    return taken


def differences(expected: Photograph, found: Photograph, *, without: frozenset[str] = frozenset()) -> list[Difference]:
    """Where the second tree is not the first; `without` are aspects that do not matter. Equal trees: an empty list.

    A file may have more holes than expected, not fewer.
    """
    different = [Difference(path, "missing") for path in expected.keys() - found.keys()]
    different += [Difference(path, "extra") for path in found.keys() - expected.keys()]
    aspects = [fact.name for fact in fields(Facts) if fact.name not in without]
    for path in expected.keys() & found.keys():
        for aspect in aspects:
            wanted, there = getattr(expected[path], aspect), getattr(found[path], aspect)
            same = wanted == there
            if aspect == "data_bytes" and wanted is not None and there is not None:
                same = there <= wanted
            if not same:
                different.append(Difference(path, aspect, wanted, there))
    return sorted(different, key=lambda one: (one.path, one.aspect))


def below(tree: Photograph, path: bytes) -> Photograph:
    """One path of a tree with all below it, what it shares with files elsewhere left out."""
    chosen = {key: facts for key, facts in tree.items() if key == path or key.startswith(path + b"/") or path == b"."}
    return {
        key: facts if facts.shares is None else _with_shares(facts, facts.shares & chosen.keys())
        for key, facts in chosen.items()
    }


def _with_shares(facts: Facts, shares: frozenset[bytes]) -> Facts:
    told = {fact.name: getattr(facts, fact.name) for fact in fields(Facts)}
    return Facts(**told | {"shares": shares if len(shares) > 1 else None})


def _walk(top: Path) -> Iterator[tuple[bytes, os.stat_result, Facts]]:
    """Every file with its facts. One directory is open at a time: it is left by its `..`."""
    at = os.open(top, _ENTER)
    path = b""
    pending: list[list[bytes]] = []
    try:
        about = os.fstat(at)
        yield b".", about, _facts(at, b".", about)
        pending.append(_names(at))
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    at = _moved(at, b"..")
                    path = path.rpartition(b"/")[0]
                continue
            name = pending[-1].pop()
            about = os.lstat(name, dir_fd=at)
            here = path + b"/" + name if path else name
            yield here, about, _facts(at, name, about)
            if stat.S_ISDIR(about.st_mode):
                at = _moved(at, name)
                path = here
                pending.append(_names(at))
    finally:
        os.close(at)


def _names(directory: int) -> list[bytes]:
    return sorted((os.fsencode(name) for name in os.listdir(directory)), reverse=True)


def _moved(at: int, name: bytes) -> int:
    there = os.open(name, _ENTER, dir_fd=at)
    os.close(at)
    return there


def _facts(at: int, name: bytes, about: os.stat_result) -> Facts:
    kind = stat.filemode(about.st_mode)[0]
    attributes = _attributes(at, name)
    digest = data_bytes = None
    if kind == "-":
        digest, data_bytes = _content(at, name)
    return Facts(
        type=kind,
        mode=stat.S_IMODE(about.st_mode),
        uid=about.st_uid,
        gid=about.st_gid,
        mtime_ns=about.st_mtime_ns,
        size=about.st_size if kind == "-" else None,
        content=digest,
        data_bytes=data_bytes,
        target=os.readlink(name, dir_fd=at) if kind == "l" else None,
        device=(os.major(about.st_rdev), os.minor(about.st_rdev)) if kind in "bc" else None,
        xattrs={key: value for key, value in attributes.items() if not key.startswith(b"system.posix_acl_")},
        acls={key: value for key, value in attributes.items() if key.startswith(b"system.posix_acl_")},
    )


def _attributes(at: int, name: bytes) -> dict[bytes, bytes]:
    # The directory by number, then one name: attributes cannot be asked for by `dir_fd`.
    place = b"/proc/self/fd/%d/%s" % (at, name)
    return {
        os.fsencode(key): os.getxattr(place, key, follow_symlinks=False)
        for key in os.listxattr(place, follow_symlinks=False)
    }


def _content(at: int, name: bytes) -> tuple[str, int]:
    """Digest and bytes of data of a file; holes cost no time."""
    digest = hashlib.sha256()
    data_bytes = 0
    file = _opened(at, name)
    try:
        for begin, end in _regions(file):
            data_bytes += end - begin
            for place in range(begin, end, _BLOCK):
                block = os.pread(file, _BLOCK, place)
                if block != _ZEROS[: len(block)]:
                    digest.update(b"%d " % place + block)
    finally:
        os.close(file)
    return digest.hexdigest(), data_bytes


def _opened(at: int, name: bytes) -> int:
    try:
        return os.open(name, _READ, dir_fd=at)
    except PermissionError:
        # Only the owner may leave the time of access alone.
        return os.open(name, _READ & ~os.O_NOATIME, dir_fd=at)


def _regions(file: int) -> Iterator[tuple[int, int]]:
    """Begin and end of what is no hole, in whole blocks."""
    end = 0
    while (begin := _data_from(file, end)) is not None:
        hole = os.lseek(file, begin, os.SEEK_HOLE)
        begin = max(end, begin - begin % _BLOCK)
        end = hole + -hole % _BLOCK
        if end > begin:
            yield begin, end


def _data_from(file: int, place: int) -> int | None:
    try:
        return os.lseek(file, place, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
