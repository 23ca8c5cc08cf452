"""Runs a program that can change files below one directory only, whatever its input makes it try.

Landlock (Linux 5.13) takes the right to create, write, rename or remove anything elsewhere from the process and its
children, for good and without privileges. It does not cover chmod, chown, times or extended attributes. The launcher
is this file, run by path: it restricts itself, then becomes the program, so that a process with threads need not run
Python between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

# System call numbers of Landlock are the same on every architecture. Source: Linux, include/uapi/asm-generic/unistd.h.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

# Source: Linux, include/uapi/linux/landlock.h. Reading and executing stay allowed everywhere.
_WRITE_FILE = 1 << 1
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_REFER = 1 << 13
_TRUNCATE = 1 << 14

_CANNOT_RUN = 127


def confined(argv: Sequence[str], directory: Path) -> list[str]:
    """The command that runs argv, able to change files below the directory alone, and to write to /dev/null.

    Where the kernel has no Landlock the command is argv itself.
    """
    if not abi_version():
        return list(argv)
    return [sys.executable, "-I", "-S", __file__, os.fspath(directory), *argv]


def abi_version() -> int:
    """What the kernel knows of Landlock: 0 for nothing, or when it is switched off."""
    return max(0, _syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(libc.syscall(ctypes.c_long(number), *passed))


def _restrict(directory: str) -> None:
    """Give up all rights to change files elsewhere. Raises OSError; the rights may be gone or not then."""
    version = abi_version()
    handled = _WRITE_FILE | _REMOVE_AND_MAKE
    if version >= 2:
        handled |= _REFER
    if version >= 3:
        handled |= _TRUNCATE
    ruleset = _checked(_syscall(_CREATE_RULESET, struct.pack("=Q", handled), 8, 0), "landlock_create_ruleset")
    _allow(ruleset, directory, handled)
    _allow(ruleset, os.devnull, handled & (_WRITE_FILE | _TRUNCATE))
    # Landlock asks for this, lest a set-uid program be confused by missing rights.
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _checked(_syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", rights, descriptor)
    _checked(_syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0), "landlock_add_rule")
    os.close(descriptor)


def _checked(result: int, call: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")
    return result


def _main() -> None:
    """Restrict this process to the first argument, then become the program of the others."""
    directory, *argv = sys.argv[1:]
    try:
        _restrict(directory)
        os.execvp(argv[0], argv)  # noqa: S606  # there is no shell, and none is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]} confined to {directory}: {error}\n")
        sys.exit(_CANNOT_RUN)


if __name__ == "__main__":
    _main()
