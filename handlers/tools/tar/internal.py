"""Writes an archive of a directory without GNU tar: the same members, lists of names and listing as GNU tar's level 0.

Nothing is ever reached through a path of more than one name: directories are held open, and no symbolic link is
followed, whatever somebody does to the tree meanwhile. The working directory of the process stays what it was.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from handlers.contract import FileProblem, ProblemKind, printable
from handlers.errors import TemporaryError
from handlers.tools.tar.match import Excluded
from handlers.tools.tar.members import MemberWriter, Output, Replaced, reached

LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LOOK_INTO = LOOK | os.O_DIRECTORY

_OPEN_DIRECTORIES = 64
"""Of a deep tree only the lowest directories are held open; the way back up is `..`, checked."""

_NAMES_BETWEEN_CHECKPOINTS = 256
_DIRECTORY, _FILE = b"\0D", b"\0Y"
"""How a name ends in our lists; a byte that no name has keeps them in order."""

_LOOKS = 3
"""How often a name is looked at again that is something else by the time it is opened."""

Tell = Callable[[FileProblem, bytes], None]
"""Called with a problem, and the member's name as the archive has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walking:
    """What to archive."""

    root: Path
    names: Sequence[str]
    """Names below root, `.` for all of it."""
    exclude: Sequence[str] = ()
    one_file_system: bool = False
    xattrs: bool = True
    acls: bool = True
    sparse: bool = True


@dataclass(slots=True)
class _Directory:
    """One directory on the way from the top to where the walk is."""

    name: bytes
    path: bytes
    descriptor: int
    """-1 while it is closed."""
    about: os.stat_result
    waiting: list[bytes] = field(default_factory=list)
    """Directories in it that are still to be walked, the first one last."""


def member_name(name: str) -> bytes:
    """What the archive calls a name of the plan."""
    return b"." if name == "." else b"./" + os.fsencode(name)


def write_archive(walking: Walking, output: Output, tell: Tell) -> None:
    """Write all members with their listing, and the end of the archive.

    Every file that is not archived as it should be is told of, in the words of GNU tar. What `output` raises passes
    through; nothing stays open. Raises TemporaryError where root itself cannot be read, PermanentError for a pattern
    that only GNU tar understands.
    """
    walk = _Walk(walking, output, tell)
    try:
        walk.run()
    finally:
        walk.close()


class _Walk:
    def __init__(self, walking: Walking, output: Output, tell: Tell) -> None:
        self._walking = walking
        self._output = output
        self._tell_name = tell
        self._excluded = Excluded(walking.exclude)
        self._members = MemberWriter(
            output, xattrs=walking.xattrs, acls=walking.acls, sparse=walking.sparse, problem=self._problem
        )
        self._trail: list[_Directory] = []
        self._closed = 0
        """How many directories of the trail, after the top, are closed."""

    def run(self) -> None:
        root = self._open_root()
        try:
            for name in self._walking.names:
                self._top(root, name)
        finally:
            os.close(root)
        self._members.end()

    def close(self) -> None:
        for directory in self._trail:
            if directory.descriptor >= 0:
                os.close(directory.descriptor)
        self._trail.clear()

    def _open_root(self) -> int:
        root = self._walking.root
        try:
            return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TemporaryError(f"cannot read the subject {root}: {error.strerror}") from error

    def _top(self, root: int, name: str) -> None:
        """One of the names of the plan, with all below it."""
        path = member_name(name)
        if self._excluded(path):
            return
        above, _, own = name.rpartition("/")
        try:
            # What the plan names may be reached through a symbolic link, as with GNU tar; itself it is not followed.
            parent = os.open(above or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        except OSError as error:
            self._problem(path, *_failed("stat", error))
            return
        try:
            self._visit(parent, os.fsencode(own), path, device=None)
        finally:
            os.close(parent)
        while self._trail:
            self._next()

    def _next(self) -> None:
        """One step of the walk: into the next directory, or back up."""
        here = self._trail[-1]
        if not here.waiting:
            self._leave()
            return
        name = here.waiting.pop()
        path = here.path + b"/" + name
        if here.descriptor < 0:
            self._problem(path, ProblemKind.UNREADABLE, "Cannot open: its directory was moved meanwhile")
            return
        self._visit(here.descriptor, name, path, device=here.about.st_dev)

    def _visit(self, parent: int, name: bytes, path: bytes, *, device: int | None) -> None:
        """Archive one name; of a directory the walk goes on inside. `device` is its directory's; None at the top."""
        self._output.checkpoint()
        try:
            for _ in range(_LOOKS):
                with suppress(Replaced):
                    self._look(parent, name, path, device)
                    return
        except OSError as error:
            self._problem(path, *_failed("stat", error))
            return
        self._problem(path, ProblemKind.UNREADABLE, "Cannot open: it was replaced again and again")

    def _look(self, parent: int, name: bytes, path: bytes, device: int | None) -> None:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode):
            self._enter(parent, name, path, about, device)
        elif stat.S_ISSOCK(about.st_mode):
            self._problem(path, ProblemKind.SOCKET, "socket ignored")
        elif not self._walking.one_file_system or device in {None, about.st_dev}:
            self._members.write(parent, name, path, about)

    def _enter(self, parent: int, name: bytes, path: bytes, about: os.stat_result, device: int | None) -> None:
        try:
            descriptor = os.open(name, _LOOK_INTO, dir_fd=parent)
        except OSError as error:
            if _is_other(parent, name, about):
                raise Replaced from error
            self._problem(path, *_failed("open", error))
            self._members.write_directory(reached(parent, name), path, about, None)
            return
        directory = _Directory(name=name, path=path, descriptor=descriptor, about=os.fstat(descriptor))
        self._trail.append(directory)
        foreign = self._walking.one_file_system and device not in {None, directory.about.st_dev}
        files = self._list(directory, is_foreign=foreign)
        self._save_descriptors()
        for file in files:
            self._visit(descriptor, file, path + b"/" + file, device=directory.about.st_dev)

    def _list(self, directory: _Directory, *, is_foreign: bool) -> Iterator[bytes]:
        """Write the member of this directory; returns what is in it, but for the directories.

        Of one that is on another filesystem, where the plan does not want that, only the directory is archived.
        """
        try:
            entries = [] if is_foreign else self._entries(directory)
        except OSError as error:
            self._problem(directory.path, ProblemKind.UNREADABLE, f"Cannot read: {error.strerror}")
            entries = []
        names = bytearray()
        for entry in entries:
            names += entry[-1:] + entry[:-1]
        self._members.write_directory(directory.descriptor, directory.path, directory.about, bytes(names) + b"\0")
        directory.waiting = [entry[:-2] for entry in reversed(entries) if entry.endswith(_DIRECTORY)]
        return (entry[:-2] for entry in entries if not entry.endswith(_DIRECTORY))

    def _entries(self, directory: _Directory) -> list[bytes]:
        """Every name with what GNU tar's list has for it, in order: one object each, for there may be a million."""
        entries = []
        prefix = directory.path + b"/"
        with os.scandir(directory.descriptor) as found:
            for number, entry in enumerate(found):
                if number % _NAMES_BETWEEN_CHECKPOINTS == 0:
                    self._output.checkpoint()
                name = os.fsencode(entry.name)
                if not self._excluded(prefix + name):
                    entries.append(name + (_DIRECTORY if entry.is_dir(follow_symlinks=False) else _FILE))
        entries.sort()
        return entries

    def _leave(self) -> None:
        """Go back up from a directory that is done."""
        done = self._trail.pop()
        if done.descriptor < 0:
            self._closed -= 1
        else:
            after = os.fstat(done.descriptor)
            if (after.st_mtime_ns, after.st_ctime_ns) != (done.about.st_mtime_ns, done.about.st_ctime_ns):
                self._problem(done.path, ProblemKind.CHANGED, "file changed as we read it")
        if self._trail and self._trail[-1].descriptor < 0:
            self._reopen(done.descriptor)
        if done.descriptor >= 0:
            os.close(done.descriptor)

    def _save_descriptors(self) -> None:
        """Close the highest directory but the top where too many are open."""
        if len(self._trail) - self._closed > _OPEN_DIRECTORIES:
            # The top stays open: from there every other one can be found again.
            self._closed += 1
            upper = self._trail[self._closed]
            os.close(upper.descriptor)
            upper.descriptor = -1

    def _reopen(self, below: int) -> None:
        """Open the last directory of the trail again; it stays closed if it is not where it was."""
        here = self._trail[-1]
        here.descriptor = _same(below, b"..", here.about) if below >= 0 else -1
        if here.descriptor < 0:
            here.descriptor = self._found_from_top()
        if here.descriptor >= 0:
            self._closed -= 1

    def _found_from_top(self) -> int:
        at = os.dup(self._trail[0].descriptor)
        for directory in self._trail[1:]:
            above, at = at, _same(at, directory.name, directory.about)
            os.close(above)
            if at < 0:
                break
        return at

    def _problem(self, path: bytes, kind: ProblemKind, detail: str) -> None:
        self._tell_name(FileProblem(kind=kind, path=printable(path.removeprefix(b"./")), detail=detail), path)


def _same(parent: int, name: bytes, about: os.stat_result) -> int:
    """A descriptor of this directory if it is the one that `about` tells of; otherwise -1."""
    try:
        descriptor = os.open(name, _LOOK_INTO, dir_fd=parent)
    except OSError:
        return -1
    if os.path.samestat(os.fstat(descriptor), about):
        return descriptor
    os.close(descriptor)
    return -1


def _is_other(parent: int, name: bytes, about: os.stat_result) -> bool:
    """Whether the name is something else by now. Raises OSError where nothing is there."""
    return not os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), about)


def _failed(call: str, error: OSError) -> tuple[ProblemKind, str]:
    """What GNU tar says when this call fails for a file."""
    if isinstance(error, FileNotFoundError):
        return ProblemKind.VANISHED, "File removed before we read it"
    return ProblemKind.UNREADABLE, f"Cannot {call}: {error.strerror}"
