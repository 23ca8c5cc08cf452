"""Runs programs, so that none outlives the work it was started for.

Argument lists without a shell, a clean environment, a session of its own (so that the whole group can be ended), a
deadline, the end of stderr. On leaving the `with` block the program and all it started are gone, whatever happened.

When the worker itself is killed, the kernel kills the program too, by way of util-linux's `setpriv --pdeathsig`: a
launcher, because code of ours between fork and exec is not safe in a process with threads. Where there is no such
`setpriv` the program ends with SIGPIPE as soon as it writes to a pipe of ours.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from threading import Event
from types import TracebackType
from typing import Self

from handlers.errors import PermanentError, TemporaryError
from handlers.tools.account import Account
from handlers.tools.lines import MAX_LINE_BYTES, Lines
from handlers.tools.priority import carry_over

PIPE = subprocess.PIPE
"""For stdin or stdout: a pipe of ours."""
NOTHING = subprocess.DEVNULL
"""For stdin or stdout: /dev/null."""

PIPE_BYTES = 1 << 20
"""What we ask the kernel to hold in a pipe; it may refuse."""

_POLITE_SECONDS = 2.0
_KILL_SECONDS = 30.0
_LINGER_SECONDS = 2.0
"""How long pipes of a program that has ended may be held open by what it left behind."""
_LOOK_SECONDS = 0.2
_NAP_SECONDS = 0.01
_TAIL_LINES = 20
_TAIL_LINE_BYTES = 1000

Argument = str | bytes | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended by itself."""

    code: int
    """Exit code; 128 + N where signal N ended it, as a shell has it."""
    killed_by: str | None
    """The name of the signal that ended it, for instance SIGKILL."""
    stderr: str
    """The last lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a short program printed."""

    code: int
    stdout: bytes
    stderr: str


class Program:
    """One running program; a context manager.

    To be entered, used and left in one thread: the kernel takes the end of that thread for ours.
    """

    def __init__(
        self,
        argv: Sequence[Argument],
        *,
        stdin: int = NOTHING,
        stdout: int = NOTHING,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        directory: os.PathLike[str] | None = None,
        checkpoint: Callable[[], None] | None = None,
        deadline: timedelta | None = None,
        on_error_line: Callable[[bytes], None] | None = None,
        account: Account | None = None,
    ) -> None:
        """`stdin` and `stdout` are PIPE, NOTHING or a descriptor, which stays the caller's.

        `environment` is added to PATH, LC_ALL=C and TZ=UTC, which is all that the program sees. `checkpoint` is
        called several times a second while this object waits; whatever it raises passes through. `on_error_line`
        gets each line of stderr, without its end, in a thread of its own; what it raises comes out of `checkpoint`.
        The program runs as `account`, where that is given; `directory` is entered before.
        """
        self._argv = [os.fsencode(argument) for argument in argv]
        self.name = os.fsdecode(self._argv[0]).rpartition("/")[2]
        self._stdin = stdin
        self._stdout = stdout
        self._pass_fds = tuple(pass_fds)
        self._environment = {
            "PATH": os.pathsep.join(os.get_exec_path()),
            "LC_ALL": "C",
            "TZ": "UTC",
            **(account.environment if account else {}),
            **(environment or {}),
        }
        self._directory = directory
        self._on_checkpoint = checkpoint
        self._deadline = deadline
        self._on_error_line = on_error_line
        self._account = account
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._sides: list[Future[None]] = []
        self._stop = Event()
        self._ended: Ended | None = None

    def __enter__(self) -> Self:
        """Start it. Raises PermanentError where there is no such program, TemporaryError where it cannot start."""
        argv = [*_launcher(), _found(os.fsdecode(self._argv[0])), *self._argv[1:]]
        account = self._account
        try:
            self._popen = subprocess.Popen(
                argv,
                stdin=self._stdin,
                stdout=self._stdout,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=self._environment,
                cwd=self._directory,
                pass_fds=self._pass_fds,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=account.groups if account else None,
            )
        except OSError as error:
            raise TemporaryError(f"cannot start {self.name}: {error}") from error
        self._started = time.monotonic()
        self._pidfd = _pidfd(self._popen)
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix=self.name)
        try:
            carry_over(self._popen.pid)
            self._prepare_pipes()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _prepare_pipes(self) -> None:
        popen = self._popen
        assert popen.stderr is not None
        for file in (popen.stdin, popen.stdout):
            if file is not None:
                widen(file.fileno())
        if popen.stdin is not None:
            os.set_blocking(popen.stdin.fileno(), False)
        self._sides.append(self._threads.submit(self._drain_errors, popen.stderr.fileno()))

    @property
    def pid(self) -> int:
        """Its process id, which is the id of its group as well."""
        return self._popen.pid

    @property
    def stdout(self) -> int:
        """The descriptor of our end of its stdout; read it to its end before `wait`."""
        assert self._popen.stdout is not None
        return self._popen.stdout.fileno()

    @property
    def stderr(self) -> str:
        """The last lines of its stderr so far."""
        return "\n".join(line.decode("utf-8", "backslashreplace") for line in tuple(self._tail))

    def drain(self, descriptor: int, take: Callable[[memoryview], None]) -> None:
        """Let a thread read this descriptor (which stays the caller's) to its end, handing each piece to `take`.

        `wait` waits for it. What `take` raises comes out of `checkpoint`. Made for many small writes: it lets them
        gather before it looks again.
        """
        widen(descriptor)
        self._sides.append(self._threads.submit(self._drain, descriptor, take, _NAP_SECONDS))

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Give the whole chunk to its stdin.

        Raises BrokenPipeError when it no longer reads: `wait` then tells why.
        """
        assert self._popen.stdin is not None
        descriptor = self._popen.stdin.fileno()
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        rest = memoryview(chunk).cast("B")
        while rest:
            with suppress(BlockingIOError):
                rest = rest[os.write(descriptor, rest) :]
                continue
            while not ready.poll(_LOOK_SECONDS * 1000):
                self.checkpoint()

    def close_stdin(self) -> None:
        """Let it see the end of its input; safe to repeat."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()

    def checkpoint(self) -> None:
        """Raises what a side thread met, TemporaryError beyond the deadline, and what the caller's own one raises."""
        for side in self._sides:
            if side.done():
                side.result()
        if self._deadline is not None and time.monotonic() - self._started > self._deadline.total_seconds():
            raise TemporaryError(f"{self.name} took longer than {self._deadline}", hint=self.stderr or None)
        if self._on_checkpoint is not None:
            self._on_checkpoint()

    def wait(self) -> Ended:
        """How it ended; all that it printed to stderr has been seen then."""
        if self._ended is None:
            self.close_stdin()
            while not self._is_gone(_LOOK_SECONDS):
                self.checkpoint()
            linger = time.monotonic() + _LINGER_SECONDS
            while not all(side.done() for side in self._sides) and time.monotonic() < linger:
                self.checkpoint()
                time.sleep(_NAP_SECONDS / 10)
            self._end_group()
            self._threads.shutdown()
            self._ended = self._verdict(self._popen.wait())
        for side in self._sides:
            side.result()
        return self._ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._ended is None:
                self._end_group()
                self._popen.wait()
        finally:
            self._stop.set()
            self._threads.shutdown()
            for file in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
                if file is not None:
                    file.close()
            os.close(self._pidfd)

    def _end_group(self) -> None:
        """End all that is left of the group; the leader is not reaped yet, so its id cannot have become another's.

        Raises TemporaryError for a process that even SIGKILL does not end, stuck in the kernel on a dead filesystem.
        """
        if not self._is_gone(0):
            self._signal(signal.SIGTERM)
            self._is_gone(_POLITE_SECONDS)
        self._signal(signal.SIGKILL)
        self._stop.set()
        if not self._is_gone(_KILL_SECONDS):
            raise TemporaryError(f"{self.name} (process {self.pid}) cannot be ended: it hangs in the kernel")

    def _signal(self, number: signal.Signals) -> None:
        # PermissionError: all that is left of the group has changed its user.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _is_gone(self, seconds: float) -> bool:
        ready = select.poll()
        ready.register(self._pidfd, select.POLLIN)
        return bool(ready.poll(seconds * 1000))

    def _verdict(self, code: int) -> Ended:
        if code >= 0:
            return Ended(code=code, killed_by=None, stderr=self.stderr)
        return Ended(code=128 - code, killed_by=_signal_name(-code), stderr=self.stderr)

    def _error_line(self, line: bytes) -> None:
        self._tail.append(line[:_TAIL_LINE_BYTES])
        if self._on_error_line is not None:
            self._on_error_line(line)

    def _drain_errors(self, descriptor: int) -> None:
        lines = Lines(self._error_line)
        self._drain(descriptor, lines.take, 0.0)
        lines.finish()

    def _drain(self, descriptor: int, take: Callable[[memoryview], None], nap_seconds: float) -> None:
        buffer = memoryview(bytearray(MAX_LINE_BYTES * 4))
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        while True:
            if not ready.poll(_LOOK_SECONDS * 1000):
                if self._stop.is_set():
                    return
                continue
            count = os.readv(descriptor, [buffer])
            if not count:
                return
            take(buffer[:count])
            if nap_seconds and count < len(buffer) // 2:
                self._stop.wait(nap_seconds)


def run(
    argv: Sequence[Argument],
    *,
    deadline: timedelta = timedelta(seconds=60),
    checkpoint: Callable[[], None] | None = None,
    environment: Mapping[str, str] | None = None,
    max_bytes: int = 16 << 20,
) -> Answer:
    """Run a short program to its end. Any exit code is an answer.

    Raises PermanentError where there is no such program, TemporaryError beyond the deadline, when a signal ended it,
    or when it prints more than max_bytes.
    """
    said = bytearray()

    def take(piece: memoryview) -> None:
        nonlocal said
        said += piece
        if len(said) > max_bytes:
            raise TemporaryError(f"{program.name} printed more than {max_bytes} bytes")

    with Program(argv, stdout=PIPE, deadline=deadline, checkpoint=checkpoint, environment=environment) as program:
        program.drain(program.stdout, take)
        ended = program.wait()
    if ended.killed_by:
        raise TemporaryError(f"{program.name} was ended by {ended.killed_by}", hint=ended.stderr or None)
    return Answer(code=ended.code, stdout=bytes(said), stderr=ended.stderr)


def widen(descriptor: int) -> None:
    """Let a pipe hold PIPE_BYTES, where it is a pipe and the user's share of pipe memory allows it."""
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def disk_error(error: OSError, what: str) -> TemporaryError:
    """The word for a local file that cannot be written or read."""
    hint = "free some space" if error.errno in {errno.ENOSPC, errno.EDQUOT} else None
    return TemporaryError(f"{what}: {error.strerror or error}", hint=hint)


def _found(program: str) -> bytes:
    path = shutil.which(program)
    if path is None:
        raise PermanentError(f"program {program} not found", hint=f"install {program}, or put it on PATH")
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100  # names of programs may be bytes


@cache
def _launcher() -> tuple[bytes, ...]:
    """What to put before a program so that it dies with us; empty where setpriv is missing or too old."""
    path = shutil.which("setpriv")
    if path is None:
        return ()
    knows = subprocess.run([path, "--help"], capture_output=True, check=False, env={"LC_ALL": "C"}).stdout  # fast
    return (os.fsencode(path), b"--pdeathsig", b"KILL", b"--") if b"--pdeathsig" in knows else ()


def _pidfd(popen: subprocess.Popen[bytes]) -> int:
    """A descriptor that becomes readable when the program ends, and does not reap it."""
    try:
        return os.pidfd_open(popen.pid)
    except OSError as error:
        popen.kill()
        popen.communicate()
        raise TemporaryError(f"cannot watch process {popen.pid}: {error}") from error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
