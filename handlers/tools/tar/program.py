"""What GNU tar is told when it makes an archive, what its exit codes mean, how its messages read.

Names only ever reach it as literal lines of a file, patterns only behind `--exclude=`: neither can become an option.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from handlers.contract import FileProblem, ProblemKind, printable
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.process import Ended, run
from handlers.tools.tar.match import spelled
from handlers.tools.tar.quoting import unquoted

PROGRAM = "tar"
OLDEST = (1, 29)
"""The first GNU tar with `--verbatim-files-from`."""

HINT = "install GNU tar 1.29 or later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archiving:
    """One run of tar that writes an archive to its stdout."""

    root: Path
    snapshot: Path
    """The snapshot file, updated in place; where it is absent tar makes a level 0."""
    index: str
    """Where tar writes the listing."""
    names: Path
    """File with the names to archive, each followed by a zero byte, all starting with `.`."""
    exclude: Sequence[str] = ()
    one_file_system: bool = False
    xattrs: bool = True
    acls: bool = True
    sparse: bool = True

    def argv(self) -> list[str]:
        """The command. `block N` in the listing is where a member starts, extended header included."""
        return [
            PROGRAM,
            "--create",
            "--file=-",
            "--format=posix",
            # Records of 64 KiB: a sixth of the default's writes, and little padding at the end.
            "--blocking-factor=128",
            # Times of access and of the inode would make every level differ; the default name holds a process id.
            "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f",
            f"--listed-incremental={self.snapshot}",
            # A remount changes the device number: without this everything would look changed.
            "--no-check-device",
            "--numeric-owner",
            *(["--sparse"] if self.sparse else []),
            "--xattrs" if self.xattrs else "--no-xattrs",
            # Access lists are extended attributes as well: `--no-acls` alone would keep them as such.
            *(["--acls"] if self.acls else ["--no-acls", "--xattrs-exclude=system.posix_acl_*"]),
            *(["--one-file-system"] if self.one_file_system else []),
            "--verbose",
            "--verbose",
            "--full-time",
            "--utc",
            "--block-number",
            "--quoting-style=c",
            f"--index-file={self.index}",
            "--warning=no-new-directory",
            f"--directory={self.root}",
            *_excluding(self.exclude),
            "--null",
            "--verbatim-files-from",
            f"--files-from={self.names}",
        ]


def _excluding(patterns: Sequence[str]) -> Iterator[str]:
    """The options for our patterns, see `TarOptions.exclude`. All members' names start with `./`.

    Wildcards are on by default here. An explicit `--wildcards` would make GNU tar 1.34 write no directories at all,
    neither into the archive nor into the snapshot: nothing would be incremental any more.
    """
    for pattern in patterns:
        anchored, across, variants = spelled(pattern)
        yield "--anchored" if anchored else "--no-anchored"
        yield "--wildcards-match-slash" if across else "--no-wildcards-match-slash"
        for variant in variants:
            yield f"--exclude={variant}"


@cache
def _version_of(path: str) -> tuple[int, ...] | None:
    answer = run([path, "--version"])
    found = re.match(rb"tar \(GNU tar\) (\d+(?:\.\d+)*)", answer.stdout)
    return tuple(int(number) for number in found[1].split(b".")) if found else None


def version() -> str:
    """The version of the tar on PATH, asked for once per process. Raises PermanentError unless it will do."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise PermanentError("program tar not found", hint=HINT)
    numbers = _version_of(path)
    if numbers is None:
        raise PermanentError(f"{path} is not GNU tar", hint=HINT)
    shown = ".".join(map(str, numbers))
    if numbers < OLDEST:
        raise PermanentError(f"GNU tar {shown} is too old", hint=HINT)
    return shown


class Noise:
    """A line that says nothing of the archive."""


@dataclass(frozen=True, slots=True)
class Fatal:
    """A line that tells why there is no archive worth keeping."""

    text: str
    usage: bool = False
    """Whether tar did not understand what it was told: trying again is useless."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A line that names no member: harmless while the exit code is."""

    text: str


@dataclass(frozen=True, slots=True)
class OfFile:
    """A line about one member."""

    problem: FileProblem
    name: bytes
    """As tar knows it, for instance `./dir/file`; a bare `file` where tar does not say in which directory."""
    missing: bool
    """Whether nothing of it came into the archive, or nothing of what is in it."""


Said = Noise | Fatal | Unknown | OfFile

_PREFIX = re.compile(rb'(?:[^"\n]*/)?g?tar: ')
_NAMED = re.compile(rb'"((?:[^"\\]|\\.)*)": (?:Warning: )?(.*)')

_NOISE = re.compile(
    rb"Exiting with failure status due to previous errors|Error exit delayed from previous errors"
    rb"|Removing leading .* from (?:member names|hard link targets)"
)
_NOISE_OF_FILE = re.compile(
    rb"Directory is new|implausibly old time stamp .*|time stamp .* in the future"
    rb"|(?:file|directory) is on a different filesystem; not dumped|contains a cache directory tag .*"
)
_FATAL = re.compile(
    rb"Error is not recoverable: exiting now|memory exhausted|.*: Cannot write: .*|.*[Nn]o space left on device.*"
)
_USAGE = re.compile(
    rb"(?:unrecognized|invalid|ambiguous) option.*|option .* (?:is ambiguous|requires an argument).*"
    rb"|Try '.*' (?:or '.*' )?for more information\.?|.*[Ii]nvalid argument .* for .*|Unknown .*keyword.*"
)
_ATTRIBUTES = re.compile(rb"Cannot [^:]*(?:xattr|acl_|filecon)[^:]*: .*")
_KINDS = (
    (re.compile(rb"file changed as we read it"), ProblemKind.CHANGED),
    (re.compile(rb"File shrank by \d+ bytes?(?:; padding with zeros)?"), ProblemKind.CHANGED),
    (re.compile(rb"File removed before we read it"), ProblemKind.VANISHED),
    (re.compile(rb"Cannot [^:]*: No such file or directory"), ProblemKind.VANISHED),
    # Tar opens what it saw as a directory without following links: something else has the name now.
    (re.compile(rb"Cannot (?:open|stat): (?:Not a directory|Too many levels of symbolic links)"), ProblemKind.CHANGED),
    (re.compile(rb"socket ignored"), ProblemKind.SOCKET),
    (re.compile(rb"door ignored|Unknown file type; file ignored"), ProblemKind.UNKNOWN_TYPE),
    (re.compile(rb"Directory has been renamed.*"), ProblemKind.RENAMED),
    (re.compile(rb"(?:acl|file_has_acl|l?l?getxattr|llistxattr|getfilecon|lgetfilecon).*"), ProblemKind.OTHER),
    (_ATTRIBUTES, ProblemKind.OTHER),
    (re.compile(rb"Cannot [^:]*: .*|Read error at byte .*"), ProblemKind.UNREADABLE),
)
_MISSING = re.compile(rb"Cannot |File removed before we read it")


def meaning(line: bytes) -> Said:
    """What one line of tar's stderr says; names are quoted as with `--quoting-style=c`."""
    prefix = _PREFIX.match(line)
    text = line[prefix.end() :] if prefix else line
    if not text or _NOISE.fullmatch(text):
        return Noise()
    named = _NAMED.fullmatch(text)
    if named is not None:
        try:
            name = unquoted(named[1]).rstrip(b"/")
        except ValueError:
            return Unknown(printable(text))
        if name == b"." or name.startswith(b"./"):
            return _of_file(name, named[2])
        if b"/" not in name and _ATTRIBUTES.fullmatch(named[2]):
            # GNU tar 1.34 leaves out the directory here.
            detail = f"{printable(named[2])} (tar does not say in which directory)"
            return OfFile(FileProblem(kind=ProblemKind.OTHER, path=printable(name), detail=detail), name, missing=False)
    shown = printable(text)
    if _USAGE.fullmatch(text):
        return Fatal(shown, usage=True)
    if _FATAL.fullmatch(text):
        return Fatal(shown)
    return Unknown(shown)


def _of_file(name: bytes, text: bytes) -> Said:
    if _NOISE_OF_FILE.fullmatch(text):
        return Noise()
    kind = next((kind for pattern, kind in _KINDS if pattern.fullmatch(text)), ProblemKind.OTHER)
    missing = kind is not ProblemKind.OTHER and _MISSING.match(text) is not None
    if name == b"." and missing:
        return Fatal(f"the subject itself: {printable(text)}")
    path = printable(name.removeprefix(b"./"))
    return OfFile(FileProblem(kind=kind, path=path, detail=printable(text)), name, missing)


def require_archive(ended: Ended, *, fatal: Fatal | None, unknown: str | None, problems: int) -> None:
    """Return if the archive is whole but for the files that tar complained about by name.

    Exit code 0 is fine, 1 means that some files changed, 2 that some could not be read, or that tar gave up: then
    its messages decide, and what is not understood counts as giving up. Raises TemporaryError, or PermanentError
    where tar did not understand what it was told.
    """
    why = ": ".join(filter(None, (unknown, fatal.text if fatal else None))) or ended.stderr.rpartition("\n")[2]
    if fatal is not None and fatal.usage:
        raise PermanentError(f"tar refused its arguments: {why}", hint=HINT)
    if ended.killed_by is not None:
        raise TemporaryError(f"tar was ended by {ended.killed_by}")
    if fatal is not None or ended.code > 2:
        raise TemporaryError(f"tar gave up with exit code {ended.code}: {why}")
    if ended.code == 2 and (unknown is not None or not problems):
        raise TemporaryError(f"tar failed with exit code 2: {why or 'it did not say why'}")
