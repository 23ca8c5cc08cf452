"""Keeps GNU tar from reading anything but the subject.

GNU tar opens each directory by its whole path when it comes to the files in it. Where a directory above was replaced
by a symbolic link since tar had looked at it, tar follows the link, wherever that leads, and archives what it finds
there under the names of the subject (seen with 1.34). So the kernel is told what tar may open, see `confine`: the
subject, tar's own libraries, and the files it gets from us.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from handlers.tools import confine
from handlers.tools.process import run

_LIBRARY = re.compile(rb"(?:^|\s)(/[^\s()]+) \(0x", re.MULTILINE)


def within(argv: Sequence[str], root: Path, names: Sequence[str], scratch: Path) -> list[str]:
    """The command that runs tar's argv, able to read the subject and what is in scratch.

    `names` are what the plan names below root: a symbolic link on the way to one is the operator's own. It is argv
    itself where that cannot be done: without Landlock, where tar has privileges of its own (which would be lost), or
    where it is a script, of which nobody knows what it runs.
    """
    path = shutil.which(argv[0]) if confine.is_possible() else None
    needed = _needed(path) if path is not None else None
    if needed is None:
        return list(argv)
    top = root.resolve()
    named = ((root / name).parent.resolve() / Path(name).name for name in names if "/" in name)
    elsewhere = [path for path in named if not path.is_relative_to(top)]
    return confine.reading(argv, [top, *elsewhere, scratch.resolve(), *needed])


def is_held(program: str) -> bool:
    """Whether this program would be kept to the subject here."""
    path = shutil.which(program)
    return path is not None and confine.is_possible() and _needed(path) is not None


@cache
def _needed(path: str) -> tuple[Path, ...] | None:
    """What this program opens for reading when it starts; None unless it runs with nothing else."""
    program = Path(path).resolve()
    if _is_privileged(program):
        return None
    env = shutil.which("env") or shutil.which("env", path=os.defpath)
    if env is None:
        return None
    # The dynamic linker of glibc then only names what it would load; ld.so(8). By `env`, lest it be taken for a wish to
    # know about the launcher of `run`.
    listed = run([env, "LD_TRACE_LOADED_OBJECTS=1", path]).stdout
    libraries = (Path(os.fsdecode(name)).resolve() for name in _LIBRARY.findall(listed))
    needed = (program, *libraries, *map(Path, ("/etc/ld.so.cache", "/etc/ld.so.preload", "/proc/filesystems")))
    version = [path, "--version"]
    plain, confined = run(version), run(confine.reading(version, needed))
    return needed if (plain.code, plain.stdout) == (confined.code, confined.stdout) else None


def _is_privileged(program: Path) -> bool:
    if program.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    try:
        return "security.capability" in os.listxattr(program)
    except OSError:
        return False
