"""Runs a program that can change, or read, files in certain places only, whatever its input makes it try.

Landlock (Linux 5.13) takes the right to create, write, rename or remove anything elsewhere, or to open it for reading,
from the process and its children, for good and without privileges. It does not cover chmod, chown, times or extended
attributes. The launcher is this file, run by path: it restricts itself, then becomes the program, so that a process
with threads need not run Python between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # as a launcher this starts twice as fast without them, and without the module `typing`
    from collections.abc import Sequence
    from pathlib import Path

# System call numbers of Landlock are the same on every architecture. Source: Linux, include/uapi/asm-generic/unistd.h.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

# Source: Linux, include/uapi/linux/landlock.h.
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))
_REFER = 1 << 13
_TRUNCATE = 1 << 14

_CANNOT_RUN = 127

_CHANGE, _READ = "change", "read"


def confined(argv: Sequence[str], directory: Path) -> list[str]:
    """The command that runs argv, able to change files below the directory alone, and to write to /dev/null.

    Where that is not possible the command is argv itself.
    """
    return _launched(_CHANGE, [directory], argv)


def reading(argv: Sequence[str], places: Sequence[Path]) -> list[str]:
    """The command that runs argv, able to open these files for reading, and all below these directories, nothing else.

    A place that is not there, or is a symbolic link, allows nothing. The program itself and its libraries are to be
    among them. Set-user-id bits and file capabilities of the program do not count any more. Where that is not
    possible the command is argv itself.
    """
    return _launched(_READ, places, argv)


def _launched(what: str, places: Sequence[Path], argv: Sequence[str]) -> list[str]:
    if not is_possible():
        return list(argv)
    return [sys.executable, "-I", "-S", __file__, what, str(len(places)), *map(os.fspath, places), *argv]


def abi_version() -> int:
    """What the kernel knows of Landlock: 0 for nothing, or when it is switched off."""
    return max(0, _syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG))


def is_possible() -> bool:
    """Whether the kernel has Landlock, and this user may run the launcher."""
    effective = os.access in os.supports_effective_ids
    launcher = ((sys.executable, os.X_OK), (__file__, os.R_OK))
    return abi_version() > 0 and all(os.access(path, right, effective_ids=effective) for path, right in launcher)


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(libc.syscall(ctypes.c_long(number), *passed))


def _restrict_reading(places: Sequence[str]) -> None:
    """Give up all rights to open other files for reading. Raises OSError; the rights may be gone or not then."""
    ruleset = _ruleset(_READ_FILE | _READ_DIR)
    for place in places:
        try:
            found = os.lstat(place)
        except OSError:
            continue
        if not stat.S_ISLNK(found.st_mode):
            _allow(ruleset, place, _READ_FILE | _READ_DIR if stat.S_ISDIR(found.st_mode) else _READ_FILE)
    _enforce(ruleset)


def _restrict_changes(directory: str) -> None:
    """Give up all rights to change files elsewhere. Raises OSError; the rights may be gone or not then."""
    version = abi_version()
    handled = _WRITE_FILE | _REMOVE_AND_MAKE
    if version >= 2:
        handled |= _REFER
    if version >= 3:
        handled |= _TRUNCATE
    ruleset = _ruleset(handled)
    _allow(ruleset, directory, handled)
    _allow(ruleset, os.devnull, handled & (_WRITE_FILE | _TRUNCATE))
    _enforce(ruleset)


def _ruleset(handled: int) -> int:
    return _checked(_syscall(_CREATE_RULESET, struct.pack("=Q", handled), 8, 0), "landlock_create_ruleset")


def _enforce(ruleset: int) -> None:
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
    """Restrict this process as the arguments say: what, how many places, the places; then become the program."""
    what, count, *rest = sys.argv[1:]
    places, argv = rest[: int(count)], rest[int(count) :]
    os.get_exec_path()  # loads a module, as `execvp` does by the same call, which could not read it any more
    try:
        if what == _READ:
            _restrict_reading(places)
        else:
            _restrict_changes(*places)
        os.execvp(argv[0], argv)  # noqa: S606  # there is no shell, and none is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]} confined to {places[0]}: {error}\n")
        sys.exit(_CANNOT_RUN)


if __name__ == "__main__":
    _main()
