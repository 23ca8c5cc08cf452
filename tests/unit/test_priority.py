"""Work stands back behind other work, for real: what the kernel says of threads and programs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from handlers.tools.priority import IoClass, carry_over, stand_back
from handlers.tools.process import PIPE, Program, run

ROOT = Path(__file__).parents[2]
AUTOGROUP = Path("/proc/self/autogroup")
LAST_BEST_EFFORT = "best-effort: prio 7"

T = TypeVar("T")

pytestmark = pytest.mark.skipif(shutil.which("ionice") is None, reason="there is no ionice to look with")


def in_a_thread(work: Callable[[], T]) -> T:
    """What the work returns in a thread made for it."""
    with ThreadPoolExecutor(1) as made_for_it:
        return made_for_it.submit(work).result()


def standing(task: int | None = None) -> tuple[int, str]:
    """Niceness and IO class of a thread or process, by default of the calling thread."""
    task = task or threading.get_native_id()
    fields = Path(f"/proc/{task}/task/{task}/stat").read_text().rpartition(")")[2].split()
    io_class = subprocess.run(["ionice", "-p", str(task)], capture_output=True, text=True, check=True).stdout.strip()
    return int(fields[16]), io_class


BEFORE = standing(os.getpid())


@pytest.fixture(autouse=True)
def main_thread_is_untouched() -> None:
    """Each test begins where the process began; the last one's thread took its standing with it."""
    assert standing(os.getpid()) == BEFORE


def nicer(by: int) -> int:
    return min(19, BEFORE[0] + by)


@pytest.mark.parametrize(("io_class", "shown"), [("low", LAST_BEST_EFFORT), ("idle", "idle")])
def test_thread_stands_back_and_no_other(io_class: IoClass, shown: str) -> None:
    """Neither the main thread nor one that it starts later."""

    def work() -> tuple[tuple[str, ...], tuple[int, str]]:
        return stand_back(7, io_class), standing()

    problems, mine = in_a_thread(work)

    assert problems == ()
    assert mine == (nicer(7), shown)
    assert standing(os.getpid()) == BEFORE
    assert in_a_thread(standing) == BEFORE


def test_nothing_asked_is_nothing_done() -> None:
    """The defaults of a plan leave the thread as it is."""

    def work() -> tuple[tuple[str, ...], tuple[int, str]]:
        return stand_back(0, "normal"), standing()

    assert in_a_thread(work) == ((), BEFORE)


def test_threads_started_from_it_stand_back_too() -> None:
    """Those that compress, for instance; also the threads that these start."""

    def work() -> list[tuple[int, str]]:
        stand_back(10, "idle")
        with ThreadPoolExecutor(1) as pool:
            return [pool.submit(standing).result(), pool.submit(in_a_thread, standing).result()]

    assert in_a_thread(work) == [(nicer(10), "idle")] * 2


def test_programs_started_from_it_stand_back_too(tmp_path: Path) -> None:
    """tar, while it waits for its reader; a shell, and what that starts."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)

    def work() -> tuple[tuple[int, str], str]:
        stand_back(10, "low")
        with Program(["tar", "-C", tmp_path, "-cf", "-", "large"], stdout=PIPE) as tar:
            os.read(tar.stdout, 1)
            seen = standing(tar.pid)
        return seen, run(["sh", "-c", "nice; ionice"]).stdout.decode()

    tar, shell = in_a_thread(work)

    assert tar == (nicer(10), LAST_BEST_EFFORT)
    assert shell == f"{nicer(10)}\n{LAST_BEST_EFFORT}\n"
    assert run(["sh", "-c", "nice"]).stdout.decode() == f"{BEFORE[0]}\n"


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel does not group by session")
def test_session_of_a_program_stands_back_with_it() -> None:
    """Else its niceness would count only against programs of its own session, which are none."""
    # We tell the kernel right after the program was started, so it looks until it sees that.
    seen = f"grep -q 'nice {nicer(10)}$' {AUTOGROUP}"
    looks = f"for turn in $(seq 200); do {seen} && break; sleep 0.05; done; cat {AUTOGROUP}"

    def work() -> str:
        stand_back(10, "normal")
        return run(["sh", "-c", looks]).stdout.decode()

    assert in_a_thread(work).endswith(f"nice {nicer(10)}\n")
    assert run(["cat", AUTOGROUP]).stdout.decode().endswith(f"nice {max(0, BEFORE[0])}\n")


def test_program_that_is_gone_already_is_no_trouble() -> None:
    """It may end before its session is told."""
    gone = subprocess.Popen(["true"])
    gone.wait()

    def work() -> None:
        stand_back(10, "normal")
        carry_over(gone.pid)

    in_a_thread(work)


def test_niceness_is_added_and_ends_at_19() -> None:
    """A worker that stands back as a whole is not asked to rise."""

    def work() -> tuple[tuple[str, ...], int]:
        problems = stand_back(5, "normal") + stand_back(2, "normal")
        after_two = standing()[0]
        return problems + stand_back(19, "normal"), after_two

    assert in_a_thread(work) == ((), nicer(7))


def test_io_class_is_never_raised() -> None:
    """`low` is more than `idle`."""

    def work() -> tuple[tuple[str, ...], str]:
        return stand_back(0, "idle") + stand_back(0, "low"), standing()[1]

    assert in_a_thread(work) == ((), "idle")


@pytest.mark.parametrize(("io_class", "shown"), [("low", LAST_BEST_EFFORT), ("idle", "idle")])
def test_unknown_machine_uses_the_program(io_class: IoClass, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the number of the system call is not known, `ionice` knows it."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")

    def work() -> tuple[tuple[str, ...], str, str]:
        return stand_back(0, io_class), standing()[1], run(["ionice"]).stdout.decode().strip()

    assert in_a_thread(work) == ((), shown, shown)


def test_unknown_machine_without_the_program_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backup goes on, at full speed."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    monkeypatch.setenv("PATH", "/nowhere")

    (problem,) = in_a_thread(lambda: stand_back(0, "idle"))

    assert "io_class idle" in problem
    assert "ionice not found" in problem


FORBIDDEN = """
import ctypes, errno, struct, sys, threading
from handlers.tools.priority import stand_back

def instruction(code, jt, jf, k):
    return struct.pack("HBBI", code, jt, jf, k)

# A seccomp filter as a container has it: these two calls end with EPERM, all others are allowed.
program = b"".join([
    instruction(0x20, 0, 0, 0),
    instruction(0x15, 1, 0, 141),
    instruction(0x15, 0, 1, 251),
    instruction(0x06, 0, 0, 0x00050000 | errno.EPERM),
    instruction(0x06, 0, 0, 0x7FFF0000),
])
filters = ctypes.create_string_buffer(program, len(program))
head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(filters)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(head), 0, 0) == 0, ctypes.get_errno()
for problem in stand_back(5, "idle"):
    print(problem.replace("\\n", " | "))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names system calls by their numbers here")
def test_what_a_container_forbids_is_told_and_nothing_fails() -> None:
    """One message for each, with the value and what to look at."""
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    cpu, disk = done.stdout.splitlines()
    assert "nice 5" in cpu
    assert "Operation not permitted | hint: allow setpriority" in cpu
    assert "io_class idle" in disk
    assert "Operation not permitted | hint: allow ioprio_set" in disk
