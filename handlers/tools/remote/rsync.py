"""Copies trees with rsync: from a local directory, or a peer by ssh."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from pathlib import Path

from handlers.contract import ProblemKind
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.lines import Lines
from handlers.tools.process import NOTHING, PIPE, Ended, Program, run
from handlers.tools.remote.copied import Copied, CopyProblem
from handlers.tools.remote.names import checked_directory, is_below
from handlers.tools.remote.rsync_messages import LOSSES, Messages, trouble
from handlers.tools.remote.shell import CONNECTION, connection_trouble, is_of_ssh, kept_in
from handlers.tools.remote.ssh import Ssh

OLDEST = (3, 1, 0)
"""The first rsync with --info."""

PARTIAL = ".holdfast-partial"
"""Where a file that was cut lies until it is resumed, beside where it belongs. No file of a peer may be called so."""

_VERSION = re.compile(r"rsync +version +v?(\d+)\.(\d+)\.(\d+)")
_WILD = re.compile(rb"([*?\[\\])")
_SSH_ENDS = (10, 12, 30)
_WRITE_BYTES = 64 << 10


class Links(StrEnum):
    """What becomes of symbolic links."""

    SKIP = "skip"
    KEEP = "keep"
    """Copied as links, wherever they point."""
    SAFE = "safe"
    """Copied as links unless they point out of the tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A directory to copy from; its content is copied, not the directory itself."""

    directory: bytes
    """Absolute."""
    ssh: Ssh | None = None
    """None for a directory of this machine."""
    rsync_path: str | None = None
    """Where the peer's rsync is, if not on its PATH."""

    @property
    def where(self) -> str:
        """The machine, for messages."""
        return "this machine" if self.ssh is None else self.ssh.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is copied, and how exactly. Times are always kept."""

    links: Links = Links.KEEP
    devices: bool = False
    """Whether devices and other special files are made too; left out otherwise."""
    owners: bool = False
    """Whether owners and groups are kept, by number; rsync can as root only."""
    modes: bool = True
    set_id: bool = False
    """Whether set-user-id and set-group-id bits are among the modes; they make programs of a peer dangerous here."""
    hard_links: bool = False
    acls: bool = False
    attributes: bool = False
    sparse: bool = False
    checksum: bool = False
    """Whether files are compared by content where size and time are equal."""
    delete: bool = False
    """Whether what the source does not have is removed from the target."""
    one_file_system: bool = False
    excluded: tuple[str, ...] = ()
    """Patterns as rsync's --exclude has them."""
    link_to: tuple[Path, ...] = ()
    """Directories whose unchanged files are hard-linked instead of copied (--link-dest)."""
    keep_partial: bool = True
    """Whether a file that was cut is kept in PARTIAL for the next attempt."""
    silence: timedelta = timedelta(minutes=5)
    """After how long without a byte the copy is given up."""
    bytes_per_second: int | None = None
    """None for as fast as it goes."""


def version() -> str:
    """The local rsync's version, for instance 3.2.7. Raises PermanentError where there is none, or one too old."""
    return _version(os.pathsep.join(os.get_exec_path()))


def copy_with_rsync(
    source: Source,
    target: Path,
    *,
    rules: Rules | None = None,
    names: Iterable[bytes] | None = None,
    deadline: timedelta | None = None,
    checkpoint: Callable[[], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Copied:
    """Copy the source's content, or only `names` below it (a directory's name without what is in it), into target.

    Target exists; with `ssh.local_user` it belongs to that user (its parents need not be open to them). Files appear
    under their names when they are whole. Where the kernel can, rsync is kept from writing anywhere else, whatever a
    peer sends. `on_progress` gets the names and the bytes copied so far, from a thread of its own.

    A copy with losses comes back with problems. Raises TemporaryError (no connection, cut, killed, beyond the
    deadline, disk full here) or PermanentError (no rsync here or there: `NoRsyncThere`, no such directory, versions or
    options that do not fit); what was copied until then stays, for the next attempt.
    """
    rules = rules or Rules()
    used = version()
    if source.ssh is not None:
        source.ssh.check()
    directory = checked_directory(source.directory)
    heard = Messages((directory, os.fsencode(target.resolve())))

    def hear(line: bytes) -> None:
        if heard.hear(line) and on_progress is not None:
            on_progress(heard.files, heard.bytes_received)

    argv = rsync_argv(source, rules, has_names=names is not None)
    ended = _run(
        source, _kept_in(argv, source, rules), target, names, hear, heard, deadline=deadline, checkpoint=checkpoint
    )
    _raise_on_trouble(source, ended, heard)
    if ended.code and not heard.problem_count:
        heard.problem_count = 1
        heard.problems.append(CopyProblem(path=b".", kind=ProblemKind.OTHER, detail=ended.stderr))
    return Copied(
        problems=tuple(heard.problems),
        problem_count=heard.problem_count,
        files=heard.files,
        bytes_received=heard.bytes_received,
        tools={"rsync": used},
    )


def rsync_argv(source: Source, rules: Rules, *, has_names: bool) -> list[bytes]:
    """The command that copies into its working directory; names come on stdin, each ended by NUL."""
    # -s: the peer's shell sees none of our arguments, whatever is in them; the name --secluded-args is newer.
    words = ["rsync", "-s", "--times", "--numeric-ids", "--info=progress2,nonreg1,symsafe1", "--no-human-readable"]
    words += ["--from0", "--files-from=-"] if has_names else ["--recursive"]
    words += _rule_words(rules)
    argv = [os.fsencode(word) for word in words]
    directory = checked_directory(source.directory).rstrip(b"/") + b"/"
    if source.ssh is None:
        return [*argv, b"--", directory, b"."]
    argv += [b"-e", b" ".join(_rsync_quoted(word) for word in source.ssh.remote_shell())]
    if source.rsync_path is not None:
        argv.append(b"--rsync-path=" + os.fsencode(source.rsync_path))
    # The rsync there expands wildcards by itself.
    directory = _WILD.sub(rb"\\\1", directory)
    return [*argv, b"--", os.fsencode(source.ssh.address) + b":" + directory, b"."]


def _rule_words(rules: Rules) -> list[str]:
    links = {Links.SKIP: ["--no-links"], Links.KEEP: ["--links"], Links.SAFE: ["--links", "--safe-links"]}
    words = links[rules.links] + (["--devices", "--specials"] if rules.devices else ["--no-devices", "--no-specials"])
    asked = {
        "--owner": rules.owners,
        "--group": rules.owners,
        "--perms": rules.modes,
        "--hard-links": rules.hard_links,
        "--acls": rules.acls,
        "--xattrs": rules.attributes,
        "--sparse": rules.sparse,
        "--checksum": rules.checksum,
        "--delete": rules.delete,
        "--one-file-system": rules.one_file_system,
        f"--partial-dir={PARTIAL}": rules.keep_partial,
    }
    if rules.modes and not rules.set_id:
        words.append("--chmod=ug-s")
    words += [word for word, is_asked in asked.items() if is_asked]
    words += [f"--exclude={pattern}" for pattern in rules.excluded]
    words += [f"--link-dest={directory.absolute()}" for directory in rules.link_to]
    words.append(f"--timeout={max(1, round(rules.silence.total_seconds()))}")
    if rules.bytes_per_second is not None:
        words.append(f"--bwlimit={max(1, rules.bytes_per_second // 1024)}")
    return words


def _kept_in(argv: list[bytes], source: Source, rules: Rules) -> list[bytes]:
    """The command, unable to change files but below its working directory; a hard link would cross that border."""
    if rules.link_to or source.ssh is None:
        return argv
    return [os.fsencode(word) for word in kept_in([os.fsdecode(word) for word in argv], source.ssh)]


def _run(
    source: Source,
    argv: list[bytes],
    target: Path,
    names: Iterable[bytes] | None,
    hear: Callable[[bytes], None],
    heard: Messages,
    *,
    deadline: timedelta | None,
    checkpoint: Callable[[], None] | None,
) -> Ended:
    lines = Lines(hear, ends=b"\r\n")
    with Program(
        argv,
        stdin=NOTHING if names is None else PIPE,
        stdout=PIPE,
        directory=target,
        deadline=deadline,
        checkpoint=checkpoint,
        on_error_line=heard.hear_error,
        account=None if source.ssh is None else source.ssh.account,
    ) as rsync:
        rsync.drain(rsync.stdout, lines.take)
        if names is not None:
            with suppress(BrokenPipeError):  # how it ended tells more
                _write_names(rsync, names)
        ended = rsync.wait()
        lines.finish()
    return ended


def _write_names(rsync: Program, names: Iterable[bytes]) -> None:
    chunk = bytearray()
    for name in names:
        if not is_below(name):
            raise PermanentError(f"not a name below a directory: {name!r}")
        # With `./` in front no name is a comment: a local rsync drops `#` and `;` lines even with --from0.
        chunk += b"./" + name + b"\0"
        if len(chunk) >= _WRITE_BYTES:
            rsync.write(chunk)
            chunk.clear()
    rsync.write(chunk)
    rsync.close_stdin()


def _raise_on_trouble(source: Source, ended: Ended, heard: Messages) -> None:
    if ended.code and heard.disk_full is not None:  # whatever became of the connection then
        raise trouble(ended.code, ended.stderr, heard, source.where)
    if ended.killed_by:
        raise TemporaryError(f"rsync from {source.where} was ended by {ended.killed_by}", hint=ended.stderr or None)
    of_ssh = ended.code == CONNECTION or (ended.code in _SSH_ENDS and is_of_ssh(ended.stderr))
    if source.ssh is not None and of_ssh:
        raise connection_trouble(source.ssh, ended.stderr)
    is_loss = ended.code in LOSSES and heard.no_directory is None
    if ended.code and not is_loss:
        raise trouble(ended.code, ended.stderr, heard, source.where)


def _rsync_quoted(word: bytes) -> bytes:
    """The word as rsync's -e takes it: split at blanks, a quote inside quotes is doubled, a backslash means nothing."""
    return b"'" + word.replace(b"'", b"''") + b"'"


@cache
def _version(_path: str) -> str:
    said = run(["rsync", "--version"]).stdout.decode(errors="replace")
    found = _VERSION.search(said)
    if found is None:
        raise PermanentError(
            f"this rsync is not one we know: {said.splitlines()[:1]}", hint="install rsync 3.1 or later"
        )
    numbers = tuple(int(number) for number in found.groups())
    if numbers < OLDEST:
        raise PermanentError(f"rsync {'.'.join(found.groups())} is too old", hint="install rsync 3.1 or later")
    return ".".join(found.groups())
