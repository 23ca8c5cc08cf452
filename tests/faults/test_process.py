"""Programs end when they should, whatever happens to those who started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from handlers.errors import Cancelled, PermanentError, TemporaryError
from handlers.tools.process import MAX_LINE_BYTES, PIPE, Program, run

ENOUGH_SECONDS = 20.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + ENOUGH_SECONDS
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < end, "waited too long"
        tick.wait(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def cancelled() -> None:
    raise Cancelled("stop")


def test_a_program_says_how_it_ended() -> None:
    """The exit code and the end of stderr come back."""
    with Program(["sh", "-c", "echo one >&2; printf two >&2; exit 3"]) as program:
        ended = program.wait()

    assert (ended.code, ended.killed_by, ended.stderr) == (3, None, "one\ntwo")


def test_a_program_that_was_killed_says_by_what() -> None:
    """A signal is no exit code."""
    with Program(["sh", "-c", "kill -9 $$"]) as program:
        ended = program.wait()

    assert (ended.code, ended.killed_by) == (137, "SIGKILL")


def test_a_program_that_is_missing_needs_a_person() -> None:
    """The message names it, with or without a launcher before it."""
    with pytest.raises(PermanentError, match="no-such-program"), Program(["no-such-program"]):
        pass


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options smuggled in by variables such as TAR_OPTIONS do not reach a program."""
    monkeypatch.setenv("TAR_OPTIONS", "--totals")

    answer = run(["env"], environment={"MORE": "1"})

    assert {line.split(b"=")[0] for line in answer.stdout.splitlines()} == {b"PATH", b"LC_ALL", b"TZ", b"MORE"}
    assert b"LC_ALL=C\n" in answer.stdout


def test_arguments_reach_the_program_as_they_are() -> None:
    """There is no shell, and bytes that are no text stay what they are."""
    answer = run(["printf", "%s|", "$HOME; *", b"\xff\xfe", "-n", ""])

    assert answer.stdout == b"$HOME; *|\xff\xfe|-n||"


def test_what_is_written_arrives_although_the_program_is_slow_to_read() -> None:
    """More than a pipe holds goes in one call, and back out at the same time."""
    back = bytearray()
    content = os.urandom(3 << 20)

    with Program(["cat"], stdin=PIPE, stdout=PIPE) as program:
        program.drain(program.stdout, back.extend)
        program.write(content)
        ended = program.wait()

    assert ended.code == 0
    assert bytes(back) == content


def test_writing_to_a_program_that_has_ended_is_a_broken_pipe() -> None:
    """The caller learns that it is no use, and from `wait` why."""
    with Program(["sh", "-c", "echo full >&2; exit 4"], stdin=PIPE) as program:
        with pytest.raises(BrokenPipeError):
            program.write(bytes(8 << 20))
        ended = program.wait()

    assert (ended.code, ended.stderr) == (4, "full")


def test_no_process_thread_or_descriptor_outlives_a_body_that_raises() -> None:
    """The program, what it started in its group and our own threads end with the block."""
    before, descriptors = threads(), open_descriptors()

    with (
        contextlib.suppress(ZeroDivisionError),
        Program(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=PIPE) as program,
    ):
        child = int(os.read(program.stdout, 100))
        pid = program.pid
        raise ZeroDivisionError

    assert is_gone(pid)
    wait_until(lambda: is_gone(child))
    assert threads() == before
    assert open_descriptors() == descriptors


def test_a_program_that_ignores_polite_words_is_killed() -> None:
    """SIGTERM first, SIGKILL after a moment."""
    began = time.monotonic()

    with (
        contextlib.suppress(Cancelled),
        Program(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=PIPE) as program,
    ):
        os.read(program.stdout, 100)
        cancelled()

    assert is_gone(program.pid)
    assert time.monotonic() - began < ENOUGH_SECONDS


def test_a_stopped_program_is_ended_too() -> None:
    """A process that somebody suspended hears no SIGTERM."""
    with contextlib.suppress(Cancelled), Program(["sleep", "1000"]) as program:
        os.kill(program.pid, signal.SIGSTOP)
        cancelled()

    assert is_gone(program.pid)


def test_waiting_for_a_silent_program_can_be_cancelled() -> None:
    """The caller's checkpoint is asked all the time."""
    asked = 0

    def checkpoint() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Cancelled("stop")

    with pytest.raises(Cancelled), Program(["sleep", "1000"], checkpoint=checkpoint) as program:
        program.wait()

    assert is_gone(program.pid)


def test_writing_to_a_program_that_does_not_read_can_be_cancelled() -> None:
    """A full pipe does not keep us from hearing that we should stop."""
    with pytest.raises(Cancelled), Program(["sleep", "1000"], stdin=PIPE, checkpoint=cancelled) as program:
        program.write(bytes(8 << 20))

    assert is_gone(program.pid)


def test_a_deadline_ends_a_program() -> None:
    """It is a temporary error, and no process is left."""
    program = Program(["sleep", "1000"], deadline=timedelta(seconds=0.3))

    with pytest.raises(TemporaryError, match="longer than"), program:
        program.wait()

    assert is_gone(program.pid)


def test_an_error_while_listening_comes_out_of_the_checkpoint() -> None:
    """A sink that is full must stop the program, not only the thread that noticed."""

    def full(line: bytes) -> None:
        raise TemporaryError("no space")

    with (
        pytest.raises(TemporaryError, match="no space"),
        Program(["sh", "-c", "echo x >&2; sleep 1000"], on_error_line=full) as program,
    ):
        program.wait()

    assert is_gone(program.pid)


def test_a_pipe_held_open_by_a_child_in_another_session_does_not_keep_us() -> None:
    """A program that leaves a daemon behind has ended when it has ended."""
    with Program(["sh", "-c", "setsid sleep 1000 & echo $!"], stdout=PIPE) as program:
        said = bytearray()
        program.drain(program.stdout, said.extend)
        ended = program.wait()

    with contextlib.suppress(ProcessLookupError):
        os.kill(int(said), signal.SIGKILL)
    assert ended.code == 0


def test_endless_lines_are_cut() -> None:
    """A megabyte without a newline on stderr does not grow in memory."""
    lines: list[bytes] = []

    with Program(
        ["sh", "-c", "head -c 1000000 /dev/zero >&2; echo >&2; echo end >&2"], on_error_line=lines.append
    ) as program:
        ended = program.wait()

    assert lines == [bytes(MAX_LINE_BYTES), b"end"]
    assert len(ended.stderr) < 30_000


def test_a_short_program_that_talks_too_much_is_stopped() -> None:
    """What is kept in memory has a limit."""
    with pytest.raises(TemporaryError, match="more than"):
        run(["yes"], max_bytes=100_000)


WORKER = """
import sys
from handlers.tools.process import Program, PIPE
with Program(sys.argv[1:], stdout=PIPE) as program:
    print(program.pid, flush=True)
    program.wait()
"""


def start_worker(*argv: str, path: str | None = None) -> tuple[subprocess.Popen[bytes], int]:
    environment = {**os.environ, "PATH": path} if path else None
    worker = subprocess.Popen([sys.executable, "-c", WORKER, *argv], stdout=subprocess.PIPE, env=environment)
    assert worker.stdout is not None
    return worker, int(worker.stdout.readline())


def test_a_silent_program_dies_with_a_worker_that_was_killed() -> None:
    """The kernel sees to it: a scan of an hour does not go on beside the next attempt."""
    worker, child = start_worker("sleep", "1000")

    worker.kill()
    worker.communicate()

    wait_until(lambda: is_gone(child))


def test_a_lonely_tar_dies_at_its_first_write_where_the_kernel_is_not_told(tmp_path: Path) -> None:
    """Without setpriv the broken pipe is what ends it."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "tar").symlink_to("/bin/tar")
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1 << 40)
    worker, child = start_worker("tar", "--create", "--file=-", f"--directory={tmp_path}", "big", path=str(tools))
    assert not is_gone(child)

    worker.kill()
    worker.communicate()

    wait_until(lambda: is_gone(child))
