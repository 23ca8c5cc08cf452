"""Copies a directory from a peer with any program that is called as rcp is, scp among them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from handlers.contract import MAX_LISTED_PROBLEMS, ProblemKind
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.process import Program, disk_error
from handlers.tools.remote.copied import Copied, CopyProblem, TargetFull
from handlers.tools.remote.names import checked_directory
from handlers.tools.remote.shell import connection_trouble, kept_in
from handlers.tools.remote.ssh import Ssh
from handlers.tools.removal import remove_tree

_PLAIN = re.compile(rb"/[A-Za-z0-9_./+,=@-]*")
_OF_ONE_FILE = {
    "Permission denied": ProblemKind.UNREADABLE,
    "No such file or directory": ProblemKind.VANISHED,
    "not a regular file": ProblemKind.UNKNOWN_TYPE,
    "scp: Download of file": ProblemKind.OTHER,
}
_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large")
_MAX_DETAIL = 500


def scp_command(ssh: Ssh) -> list[str]:
    """OpenSSH's scp (8.7 or later) as such a program, by the sftp protocol, with all that is pinned for ssh."""
    return ["scp", "-s", "-q", "-p", "-S", ssh.program, *ssh.options_argv()]


def copy_with_rcp(
    command: Sequence[str],
    ssh: Ssh,
    directory: bytes,
    target: Path,
    *,
    deadline: timedelta | None = None,
    checkpoint: Callable[[], None] | None = None,
) -> Copied:
    """Run `command -r user@host:directory .` below target, which is empty; all that is there is copied.

    The command must know `-r`, take a remote source as rcp does (an IPv6 address in brackets), exit with 0 only when
    all was copied, and never ask. It gets nothing of `ssh` but the user's and the host's names: keys and ports are its
    own business, unless it is `scp_command`. Where the kernel can, it is kept from writing anywhere but below target.
    Set-user-id and set-group-id bits are not kept.

    Raises as `run_remote` does; PermanentError for a directory whose name the shell of an older peer would read
    otherwise. An end with complaints about single files only comes back as problems, any other is a TemporaryError.
    """
    ssh.check()
    directory = checked_directory(directory)
    if not _PLAIN.fullmatch(directory):
        raise PermanentError(
            f"cannot name {directory!r} to {command[0]}: older ones let the peer's shell read it",
            hint="letters, digits and _./+,=@- are safe; with rsync or sftp any name is",
        )
    user = "" if ssh.user is None else f"{ssh.user}@"
    # Not `directory/.`: scp by its old protocol refuses what comes back under that name. Not `directory/*`: that leaves
    # out names with a dot in front. So the directory itself comes, and is taken away around its content.
    source = f"{user}{ssh.address}:{os.fsdecode(directory)}"
    said: list[str] = []

    def hear(line: bytes) -> None:
        if line.strip() and len(said) < MAX_LISTED_PROBLEMS:
            said.append(line[:_MAX_DETAIL].decode("utf-8", "backslashreplace").strip())

    with ExitStack() as undo:
        landing = _landing(target, ssh)
        undo.callback(remove_tree, landing)
        with Program(
            kept_in([*command, "-r", source, "."], ssh),
            directory=landing,
            deadline=deadline,
            checkpoint=checkpoint,
            on_error_line=hear,
            account=ssh.account,
        ) as program:
            ended = program.wait()
        # Reading at the peer needs no space: whatever the program calls it, it is about the disk here.
        if full := next((line for line in said if _FULL.search(line)), None):
            raise TargetFull(f"{command[0]}: {full}", hint="free some space")
        if ended.killed_by:
            raise TemporaryError(f"{command[0]} was ended by {ended.killed_by}", hint=ended.stderr or None)
        problems = [problem for line in said if (problem := _problem(line))]
        if ended.code and (not problems or len(problems) < len(said)):
            raise connection_trouble(ssh, ended.stderr)
        came = os.path.join(os.fsencode(landing), os.path.basename(directory))  # noqa: PTH118, PTH119  # bytes
        if os.path.islink(came) or not os.path.isdir(came):  # noqa: PTH112, PTH114
            brought = f"{command[0]} brought no directory {os.fsdecode(directory)}"
            raise PermanentError(brought, hint=ended.stderr or None)
        _lift(came, target)
    return Copied(problems=tuple(problems), problem_count=len(problems))


def _landing(target: Path, ssh: Ssh) -> Path:
    """A new directory in target that belongs to whoever runs the command."""
    landing = target / ".holdfast-landing"
    if landing.is_symlink() or landing.exists():  # of an attempt that died
        remove_tree(landing)
    landing.mkdir(0o700)
    if (who := ssh.account) is not None:
        os.chown(landing, who.uid, who.gid)
    return landing


def _lift(came: bytes, target: Path) -> None:
    """Move what came up into target.

    If we die half way, a part of it is in target: the caller throws target away, or fetches all again.
    """
    _take_set_id(came)
    try:
        for name in os.listdir(came):  # noqa: PTH208
            os.rename(os.path.join(came, name), os.path.join(os.fsencode(target), name))  # noqa: PTH104, PTH118
    except OSError as error:
        trouble = disk_error(error, f"cannot move what came to {target}")
        raise TargetFull(trouble.message, hint=trouble.hint) from error


def _problem(line: str) -> CopyProblem | None:
    """What a complaint tells of one file; the file's name is somewhere in it."""
    for words, kind in _OF_ONE_FILE.items():
        if words in line and "(publickey" not in line:
            return CopyProblem(path=b".", kind=kind, detail=line)
    return None


def _take_set_id(root: bytes) -> None:
    for _, _, names, at in os.fwalk(root):
        for name in names:
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(name, stat.S_IMODE(mode) & 0o777, dir_fd=at)
