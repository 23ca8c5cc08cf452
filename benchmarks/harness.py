"""What every benchmark needs: trees, a configuration, whole processes measured in pairs."""

from __future__ import annotations

import compileall
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

HOLDFAST = Path(sys.executable).with_name("holdfast")
MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """One finished process, its children included."""

    wall: float
    peak_mib: float
    cpu: float = 0.0
    """Seconds of processors, all processes together; 0 where nobody has measured it."""


def measured(argv: list[str], *, cwd: Path | None = None, check: bool = True) -> Run:
    """Run a program to its end; peak memory is that of its largest single process, of the whole tree of processes."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if check and process.returncode != 0:
        raise SystemExit(f"{argv} ended with {process.returncode}")
    return Run(wall=wall, peak_mib=usage.ru_maxrss / 1024, cpu=usage.ru_utime + usage.ru_stime)


def paired(
    name: str, ours: Callable[[], Run], theirs: Mapping[str, Callable[[], Run]], *, rounds: int = 5
) -> dict[str, float]:
    """Run ours and each of theirs in turn, after one round to warm up; print medians, return ratios pair by pair."""
    compile_ourselves()
    mine: list[Run] = []
    others: dict[str, list[Run]] = {rival: [] for rival in theirs}
    for number in range(rounds + 1):
        results = [ours(), *(run() for run in theirs.values())]
        if number:
            mine.append(results[0])
            for rival, result in zip(theirs, results[1:], strict=True):
                others[rival].append(result)
    print(f"{name}: {shown(mine)}, {max(run.peak_mib for run in mine):.0f} MiB")
    ratios = {}
    for rival, runs in others.items():
        ratios[rival] = statistics.median(m.wall / r.wall for m, r in zip(mine, runs, strict=True))
        print(f"    {rival}: {shown(runs)} -> ratio {ratios[rival]:.2f}{cpu_ratio(mine, runs)}")
    return ratios


def shown(runs: Sequence[Run]) -> str:
    """The medians."""
    cpu = statistics.median(run.cpu for run in runs)
    return f"{statistics.median(run.wall for run in runs):.2f} s" + (f" ({cpu:.2f} s CPU)" if cpu else "")


def cpu_ratio(mine: Sequence[Run], theirs: Sequence[Run]) -> str:
    """On a machine with neighbours this says more than the time that a run took."""
    if not all(run.cpu for run in (*mine, *theirs)):
        return ""
    return f" (CPU {statistics.median(m.cpu / t.cpu for m, t in zip(mine, theirs, strict=True)):.2f})"


@cache
def compile_ourselves() -> None:
    """As pip does when it installs: with PYTHONDONTWRITEBYTECODE set each start would compile a hundred modules."""
    for package in ("config", "handlers", "worker"):
        compileall.compile_dir(Path(__file__).parents[1] / package, quiet=1)


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory for one benchmark; on the disk that TMPDIR names."""
    with TemporaryDirectory(prefix="holdfast-bench-") as directory:
        yield Path(directory)


def write_config(place: Path, tree: Path, *, verify: str = "checksums", spool: bool = False, **options: object) -> Path:
    """A configuration with one plan, `tree`, on a local store; nothing asks for it but the command line, or a spool."""
    (place / "store").mkdir(exist_ok=True)
    file = place / "config.yaml"
    settings = {
        "node": "bench",
        "state_dir": str(place / "state"),
        "spool": {"enabled": spool},
        "stores": {"disk": {"kind": "local", "path": str(place / "store")}},
        "plans": {"tree": {"handler": "tar", "verify": verify, "options": {"root": str(tree), **options}}},
        "log": {"level": "warning"},
    }
    file.write_bytes(orjson.dumps(settings))  # JSON is YAML
    return file


def backup(config: Path, *more: str) -> Run:
    """`holdfast backup tree`, the whole process."""
    return measured([str(HOLDFAST), "--config", str(config), "backup", "tree", *more])


def forget(place: Path) -> None:
    """Remove what earlier runs stored, so that the next one is a level 0."""
    for name in ("store", "state"):
        shutil.rmtree(place / name, ignore_errors=True)
    (place / "store").mkdir()


def shell(script: str, *, cwd: Path) -> Run:
    """A pipeline as an administrator would type it."""
    return measured(["sh", "-ec", script], cwd=cwd)


def real_tree(place: Path, *, files: int, size_bytes: int) -> Path:
    """A copy of this machine's own files, at least so many and so large."""
    tree = place / "tree"
    tree.mkdir()
    count = total = 0
    for root in ("/usr/share", "/usr/lib", "/usr/local", "/opt", "/root"):
        for directory, _, names in os.walk(root):
            here = tree / directory.lstrip("/")
            for name in names:
                source = Path(directory, name)
                if source.is_symlink() or not source.is_file() or source.stat().st_size > 20 * MIB:
                    continue
                here.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, here / name)
                count += 1
                total += source.stat().st_size
                if count >= files and total >= size_bytes:
                    print(f"tree: {count} files, {total / MIB:.0f} MiB")
                    return tree
    raise SystemExit(f"this machine has only {count} files, {total} bytes to make a tree of")


def small_files(place: Path, *, files: int, size_bytes: int = 100) -> Path:
    """A tree of many small files, 1000 in a directory."""
    tree = place / "tree"
    content = os.urandom(size_bytes)
    for number in range(files):
        directory = tree / f"{number // 100_000:02}" / f"{number // 1000 % 100:03}"
        if number % 1000 == 0:
            directory.mkdir(parents=True)
        with (directory / f"file-{number:07}.dat").open("wb", buffering=0) as file:
            file.write(content)
    return tree
