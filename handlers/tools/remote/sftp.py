"""Copies files from peers that have no rsync, by sftp: sshd brings that along, without a shell."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

from handlers.contract import MAX_LISTED_PROBLEMS, ProblemKind
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.account import Account
from handlers.tools.process import PIPE, Ended, Program, disk_error
from handlers.tools.remote.copied import Copied, CopyProblem, TargetFull
from handlers.tools.remote.names import checked_directory, is_below
from handlers.tools.remote.shell import connection_trouble, kept_in
from handlers.tools.remote.ssh import Ssh

MAX_LINE_BYTES = 2000
"""A longer command is cut. Source: OpenSSH, sftp.c, interactive_loop (a buffer of 2048)."""

_SPECIAL = re.compile(rb'(["\\])')
_UNSAYABLE = re.compile(rb"[\n\r]")
_FULL = re.compile(
    r"(?:local|Couldn't write to|close) .*(?:No space left on device|Disk quota exceeded|File too large)"
)
_LARGER = "local file is larger than remote"
_KINDS = {
    _LARGER: ProblemKind.CHANGED,
    "not found": ProblemKind.VANISHED,
    "No such file": ProblemKind.VANISHED,
    "ermission denied": ProblemKind.UNREADABLE,
    "not a regular file": ProblemKind.UNKNOWN_TYPE,
}
_IS_WHOLE = re.compile(r"was not modified$|destination file same size or larger$")
"""What is said of a file to be resumed that is all there."""
_BEGIN = re.compile(r"\./")
_END = re.compile(r"""["':/ ]|$""")
_CUT = 255
_WRITE_BYTES = 64 << 10
_MAX_DETAIL = 500


def copy_with_sftp(
    ssh: Ssh,
    directory: bytes,
    target: Path,
    names: Iterable[bytes],
    *,
    resume: bool = False,
    deadline: timedelta | None = None,
    checkpoint: Callable[[], None] | None = None,
) -> Copied:
    """Copy the regular files `names` of a peer's directory into target, with times and permissions; makes directories.

    Needs no shell and no program on the peer. Set-user-id and set-group-id bits are not kept. With `resume`, what a
    file in target has already is taken for its beginning: only for those who compare sums afterwards. A file that is
    cut lies under its own name. With `ssh.local_user`, target belongs to that user. A name with a line end, or one of
    more than about a thousand bytes, comes back as a problem: sftp's batches cannot say it.

    Raises as `run_remote` does; PermanentError where there is no such directory, or no sftp there, or where something
    else lies in target in the place of a file or directory.
    """
    ssh.check()
    batch = _Batch(target, ssh.account, resume=resume)
    ended = _run(ssh, checked_directory(directory), target, batch.lines(names), batch, deadline, checkpoint)
    batch.require_space()
    if ended.killed_by:
        raise TemporaryError(f"sftp from {ssh.host} was ended by {ended.killed_by}", hint=ended.stderr or None)
    if ended.code == _CUT:
        raise connection_trouble(ssh, ended.stderr)
    if ended.code:  # all but `cd` may fail without an end
        raise PermanentError(f"{ssh.host}: sftp cannot enter {directory!r}: {ended.stderr}")
    return batch.copied()


class _Batch:
    """The commands for one copy, what came of them."""

    def __init__(self, target: Path, account: Account | None, *, resume: bool) -> None:
        self._target = target
        self._account = account
        self._get = b"-get -pa" if resume else b"-get -p"
        self._asked: list[bytes] = []
        self._unsayable: list[bytes] = []
        self._said: list[str] = []
        self._told: dict[str, str] = {}

    def lines(self, names: Iterable[bytes]) -> Iterator[bytes]:
        """One command for each name that can be said; what it needs in target is made before."""
        for name in names:
            if not is_below(name):
                raise PermanentError(f"not a name below a directory: {name!r}")
            quoted = b'"./' + _SPECIAL.sub(rb"\\\1", name) + b'"'
            line = b"%s %s %s\n" % (self._get, quoted, quoted)
            if _UNSAYABLE.search(name) or len(line) > MAX_LINE_BYTES:
                self._unsayable.append(name)
                continue
            self._make_way(name)
            self._asked.append(name)
            yield line

    def hear(self, line: bytes) -> None:
        """One line of stderr."""
        said = line[:_MAX_DETAIL].decode("utf-8", "backslashreplace").rstrip()
        if not said or _IS_WHOLE.search(said) or len(self._said) >= MAX_LISTED_PROBLEMS:
            return
        self._said.append(said)
        # The name it tells begins behind some `./` and ends somewhere: all that it may be, for many names to look up.
        for start in _BEGIN.finditer(said):
            for end in _END.finditer(said, start.end()):
                self._told.setdefault(said[start.end() : end.start()], said)

    def require_space(self) -> None:
        """Raises TargetFull where the disk here was full."""
        if full := next((line for line in self._said if _FULL.search(line)), None):
            raise TargetFull(f"sftp: {full}", hint="free some space")

    def copied(self) -> Copied:
        """What is in the target now, and what is not."""
        # A file that is there may be half a file: then something was said of it.
        lost = [name for name in self._asked if not self._tidy(name) or _printed(name) in self._told]
        problems = [*map(_unsayable_problem, self._unsayable[:MAX_LISTED_PROBLEMS])]
        problems += map(self._problem, lost[: MAX_LISTED_PROBLEMS - len(problems)])
        unclear = [] if lost else [CopyProblem(path=b".", kind=ProblemKind.OTHER, detail=line) for line in self._said]
        return Copied(
            problems=(*problems, *unclear)[:MAX_LISTED_PROBLEMS],
            problem_count=len(self._unsayable) + len(lost) + len(unclear),
            files=len(self._asked) - len(lost),
        )

    def _problem(self, name: bytes) -> CopyProblem:
        said = self._told.get(_printed(name)) or "sftp did not bring it"
        if _LARGER in said:  # it is not the beginning of what is there now: the next attempt fetches it anew
            os.unlink(os.path.join(os.fsencode(self._target), name))  # noqa: PTH108, PTH118  # bytes
        kind = next((kind for words, kind in _KINDS.items() if words in said), ProblemKind.OTHER)
        return CopyProblem(path=name, kind=kind, detail=said)

    def _tidy(self, name: bytes) -> bool:
        """Whether there is such a file now; what nobody else may hand us is taken from its mode."""
        path = os.path.join(os.fsencode(self._target), name)  # noqa: PTH118  # bytes
        try:
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(path, stat.S_IMODE(mode) & 0o777)  # noqa: PTH101
        except FileNotFoundError:
            return False
        return stat.S_ISREG(mode)

    def _make_way(self, name: bytes) -> None:
        """Make the directories of a name; nothing on the way, nor at its end, is a link or anything else."""
        *parents, last = name.split(b"/")
        try:
            with ExitStack() as opened:
                at = _entered(self._target, None, opened)
                for parent in parents:
                    at = self._enter(at, parent, opened)
                with suppress(FileNotFoundError):
                    if not stat.S_ISREG(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
                        raise PermanentError(f"{name!r} in {self._target} is not a file")
        except OSError as error:
            # ENOTDIR is what Linux says of a link, too, where a directory is asked for and links are not followed.
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise PermanentError(f"{name!r} in {self._target}: something is in its way") from error
            trouble = disk_error(error, f"cannot make the directory of {name!r} in {self._target}")
            raise TargetFull(trouble.message, hint=trouble.hint) from error

    def _enter(self, at: int, name: bytes, opened: ExitStack) -> int:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=at)
            if self._account is not None:
                os.chown(name, self._account.uid, self._account.gid, dir_fd=at, follow_symlinks=False)
        return _entered(name, at, opened)


def _entered(name: Path | bytes, at: int | None, opened: ExitStack) -> int:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    opened.callback(os.close, descriptor)
    return descriptor


def _printed(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _unsayable_problem(name: bytes) -> CopyProblem:
    detail = "its name has a line end, or is too long for sftp: install rsync there"
    return CopyProblem(path=name, kind=ProblemKind.OTHER, detail=detail)


def _run(
    ssh: Ssh,
    directory: bytes,
    target: Path,
    lines: Iterator[bytes],
    batch: _Batch,
    deadline: timedelta | None,
    checkpoint: Callable[[], None] | None,
) -> Ended:
    # Whatever is said on stderr counts: a greeting of the peer must not be among it.
    options = ["LogLevel=ERROR" if word == "LogLevel=INFO" else word for word in ssh.options_argv()]
    argv = ["sftp", "-S", ssh.program, *options, "-b", "-", "--", ssh.address]
    with Program(
        kept_in(argv, ssh),
        stdin=PIPE,
        stdout=PIPE,
        directory=target,
        deadline=deadline,
        checkpoint=checkpoint,
        on_error_line=batch.hear,
        account=ssh.account,
    ) as sftp:
        sftp.drain(sftp.stdout, lambda piece: None)
        with suppress(BrokenPipeError):  # how it ended tells more
            sftp.write(b'cd "' + _SPECIAL.sub(rb"\\\1", directory) + b'"\n')
            chunk = bytearray()
            for line in lines:
                chunk += line
                if len(chunk) >= _WRITE_BYTES:
                    sftp.write(chunk)
                    chunk.clear()
            sftp.write(chunk)
        return sftp.wait()
