"""Lets the work of one thread stand back behind other work on the machine.

Linux keeps both priorities per thread, and threads and programs inherit them from the thread that starts them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Final, Literal

from handlers.errors import HoldfastError, PermanentError

IoClass = Literal["normal", "low", "idle"]

_MOST_NICE: Final = 19
_WHO_PROCESS: Final = 1
_CLASS_SHIFT: Final = 13
_LEVEL_MASK: Final = 7
_IO_PLACES: Final = {"low": (2, 7), "idle": (3, 0)}
"""Class and level: best effort as the last of eight, idle. Source: ioprio_set(2)."""
_SYSCALLS: Final = {
    "x86_64": (251, 252),
    "aarch64": (30, 31),
    "riscv64": (30, 31),
    "loongarch64": (30, 31),
    "ppc64le": (273, 274),
    "s390x": (282, 283),
}
"""The numbers of ioprio_set and ioprio_get for 64-bit programs. Source: the kernel's `asm/unistd.h` of each machine."""

_AUTOGROUP_TRIES: Final = 3
_AUTOGROUP_PAUSE_SECONDS: Final = 0.11
"""From all users but root together the kernel takes one change in a tenth of a second.
Source: kernel/sched/autogroup.c."""


def stand_back(nice: int, io_class: IoClass) -> tuple[str, ...]:
    """Lower the calling thread, and with it all threads and programs that it starts from now on.

    `nice` (0 to 19) is added to what the thread has; the IO class is never raised, `normal` leaves it as it is. For
    good: to raise itself again a thread needs CAP_SYS_NICE, so this belongs into a thread made for the work. Raises
    nothing for what the machine does not allow, since a backup at full speed is better than none: it is returned, a
    message for each.
    """
    problems = (_lower_cpu(nice) if nice else None, _lower_io(io_class) if io_class != "normal" else None)
    return tuple(problem for problem in problems if problem is not None)


def carry_over(pid: int) -> None:
    """Let a program that leads a session of its own stand back as the calling thread does, which started it.

    With `kernel.sched_autogroup_enabled` (the default of most distributions) the kernel shares the processors out
    among sessions first, and the niceness of a process counts only within its own. Measured with two busy programs on
    one core: one of nice 19 gets half of it before this, 15 % after. Where there are no such groups nothing happens.
    """
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    if nice <= 0:
        return
    for _ in range(_AUTOGROUP_TRIES):
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")
        except BlockingIOError:
            time.sleep(_AUTOGROUP_PAUSE_SECONDS)
        except OSError:
            return
        else:
            return


def _lower_cpu(nice: int) -> str | None:
    thread = threading.get_native_id()
    try:
        wanted = min(_MOST_NICE, os.getpriority(os.PRIO_PROCESS, thread) + nice)
        os.setpriority(os.PRIO_PROCESS, thread, wanted)
    except OSError as error:
        return f"the work does not stand back for the processor (nice {nice}): {error.strerror}{_hint('setpriority')}"
    return None


def _lower_io(io_class: IoClass) -> str | None:
    place = _IO_PLACES[io_class]
    numbers = _SYSCALLS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    try:
        if numbers is None:
            _by_program(place)
        else:
            _by_syscall(place, *numbers)
    except OSError as error:
        problem = f"{error.strerror}{_hint('ioprio_set')}"
    except HoldfastError as error:
        problem = str(error)
    else:
        return None
    return f"the work does not stand back for the disk (io_class {io_class}): {problem}"


def _by_syscall(place: tuple[int, int], setting: int, getting: int) -> None:
    now = _syscall(getting, _WHO_PROCESS, 0)
    if (now >> _CLASS_SHIFT, now & _LEVEL_MASK) < place:
        _syscall(setting, _WHO_PROCESS, 0, place[0] << _CLASS_SHIFT | place[1])


def _by_program(place: tuple[int, int]) -> None:
    # Here, not above: `process` uses `carry_over`.
    from handlers.tools.process import run

    level = ("-n", str(place[1])) if place[0] == 2 else ()
    answer = run(["ionice", "-c", str(place[0]), *level, "-p", str(threading.get_native_id())])
    if answer.code:
        raise PermanentError(f"ionice ended with {answer.code}: {answer.stderr}")


def _syscall(number: int, *arguments: int) -> int:
    """The answer of the kernel to the calling thread. Raises OSError."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    answer = int(call(*(ctypes.c_long(word) for word in (number, *arguments))))
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer


def _hint(call: str) -> str:
    return f"\nhint: allow {call} where a seccomp profile or the container's rights forbid it"
