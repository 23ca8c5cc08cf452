"""Runs one command on a peer; tells trouble with the connection from the command's own end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.confine import confined
from handlers.tools.process import NOTHING, PIPE, Answer, Ended, Program
from handlers.tools.remote.ssh import Ssh, how_to_know, known_as

CONNECTION = 255
"""How ssh ends when it is its own trouble, or that of the connection."""
NO_PROGRAM = 127
"""How a shell ends when there is no such program."""

_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_UNKNOWN = "Host key verification failed"
_REFUSED = ("Permission denied (", "Too many authentication failures")
_NO_SFTP = "subsystem request failed"
_OURS = ("Bad configuration option", "command-line line", "Can't open user config file", "No user exists for uid")
_OF_SSH = re.compile(r"(?:ssh: |ssh_|kex_|client_|Connection |Timeout, |Bad |Host key|[^:]*: Permission denied \()")


class NoShellThere(PermanentError):
    """The peer does not run what we ask for: a forced command, sftp only, no POSIX shell."""


def run_remote(
    ssh: Ssh,
    argv: Sequence[str | bytes],
    *,
    input: bytes = b"",  # noqa: A002  # as subprocess has it
    deadline: timedelta = timedelta(seconds=60),
    checkpoint: Callable[[], None] | None = None,
    max_bytes: int = 1 << 20,
) -> Answer:
    """Run it to its end; any exit code but 255 is an answer (127: no such program there).

    Raises TemporaryError (unreachable, refused, cut, beyond the deadline, more than max_bytes of output) or
    PermanentError (the host's key is unknown or changed, our key is not taken, a local file is missing), with a hint.
    A command that is given up may run on there for a while: ssh has no way to end it.
    """
    said = bytearray()

    def take(piece: memoryview) -> None:
        nonlocal said
        said += piece
        if len(said) > max_bytes:
            raise TemporaryError(f"{ssh.host} answered with more than {max_bytes} bytes")

    ended = stream_remote(ssh, argv, take, input=input, deadline=deadline, checkpoint=checkpoint)
    return Answer(code=ended.code, stdout=bytes(said), stderr=ended.stderr)


def stream_remote(
    ssh: Ssh,
    argv: Sequence[str | bytes],
    take: Callable[[memoryview], None],
    *,
    input: bytes = b"",  # noqa: A002
    deadline: timedelta,
    checkpoint: Callable[[], None] | None = None,
) -> Ended:
    """As `run_remote`; `take` gets the output piece by piece, in a thread of its own, and what it raises is raised."""
    ssh.check()
    stdin = PIPE if input else NOTHING
    with Program(
        ssh.argv(argv), stdin=stdin, stdout=PIPE, deadline=deadline, checkpoint=checkpoint, account=ssh.account
    ) as program:
        program.drain(program.stdout, take)
        if input:
            with suppress(BrokenPipeError):  # how it ended tells more
                program.write(input)
        ended = program.wait()
    if ended.killed_by:
        raise TemporaryError(f"{program.name} to {ssh.host} was ended by {ended.killed_by}", hint=ended.stderr or None)
    if ended.code == CONNECTION:
        raise connection_trouble(ssh, ended.stderr)
    return ended


def connection_trouble(ssh: Ssh, said: str) -> TemporaryError | PermanentError:
    """The word for what ssh said when it did not come through."""
    where = f"{ssh.host} port {ssh.port}"
    if _CHANGED in said:
        return PermanentError(
            f"{where} does not have the host key that {ssh.known_hosts} tells: it is another host, or somebody is "
            "in between",
            hint=f"if the host was set up anew: ssh-keygen -R '{known_as(ssh)}' -f {ssh.known_hosts}, then "
            + how_to_know(ssh),
        )
    if _UNKNOWN in said:
        return PermanentError(f"the host key of {where} is not in {ssh.known_hosts}", hint=how_to_know(ssh))
    if any(word in said for word in _REFUSED):
        return PermanentError(
            f"{where} does not let us in: {_telling_line(said)}",
            hint=f"does the key {ssh.identity_file or '(none is configured)'} stand in the authorized_keys of "
            f"{ssh.user or 'the user'} there, and has it no passphrase?",
        )
    if _NO_SFTP in said:
        return PermanentError(f"{where} has no sftp", hint="enable it in the sshd_config there: Subsystem sftp ...")
    if any(word in said for word in _OURS):
        return PermanentError(f"ssh does not start for {where}: {_telling_line(said)}")
    return TemporaryError(f"no connection with {where}: {_telling_line(said) or 'ssh says nothing of it'}")


def is_of_ssh(said: str) -> bool:
    """Whether ssh itself said something there, for instance below rsync, which has exit codes of its own."""
    return any(_OF_SSH.match(line) or _UNKNOWN in line or _CHANGED in line for line in said.splitlines())


def kept_in(argv: Sequence[str], ssh: Ssh) -> list[str]:
    """The command of a program that talks with a peer, unable to change files but below its working directory.

    Only where the kernel can do that, and not for another user, who may change little anyway. Raises PermanentError
    where there is no such program.
    """
    if shutil.which(argv[0]) is None:
        raise PermanentError(f"program {argv[0]} not found", hint=f"install {argv[0]}, or put it on PATH")
    return list(argv) if ssh.account is not None else confined(argv, Path())


def has_program(ssh: Ssh, name: str, *, checkpoint: Callable[[], None] | None = None) -> bool:
    """Whether the peer's shell finds a program of this name. Raises as `run_remote` does."""
    answer = run_remote(ssh, ["sh", "-c", 'command -v "$1" >/dev/null', "sh", name], checkpoint=checkpoint)
    return answer.code == 0


def _telling_line(said: str) -> str:
    """What ssh itself said last; the programs that use it add lines that say less."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _OF_SSH.match(line)), lines[-1] if lines else "")
