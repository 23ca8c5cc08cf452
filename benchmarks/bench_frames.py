"""Compares the framed stream with the pipelines that it replaces.

    python benchmarks/bench_frames.py [TREE] [--rounds N] [--out DIR]

Each of ours runs right before its rival, again and again (A B A B), so that a busy moment of the machine hits both.
Every run archives the same warm tree with GNU tar and ends when its output file is synced; ours also hashes the whole
file, each frame of it, and starts Python. Printed are the medians, then the median of the pairs' ratios: below
1 we are better. CPU seconds are those of all processes of the pipeline; they depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from handlers.tools.codecs import Codec
from handlers.tools.frames import FrameWriter


@dataclass(frozen=True)
class Pair:
    """Ours and the command it is measured against, which writes to standard output."""

    codec: str
    strength: int | None
    rival: str


PAIRS = (
    Pair("zstd", None, "zstd -q -T0 -3"),
    Pair("gzip", None, "pigz"),
    Pair("gzip", None, "gzip"),
    Pair("gzip", 6, "pigz"),
    Pair("none", None, "cat"),
)


class HashingFile:
    """What a store does with a part: hash it as it comes, sync it at the end."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._sha256 = hashlib.sha256()

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Hash, then write."""
        self._sha256.update(chunk)
        return self._file.write(chunk)

    def close(self) -> None:
        """Make it durable."""
        os.fsync(self._file.fileno())
        self._file.close()


def archive_framed(tree: str, out: Path, codec: str, strength: str) -> None:
    """Our pipeline, run in a process of its own as `--framed`; prints its peak memory."""
    sink = HashingFile(out)
    with (
        subprocess.Popen(
            ["tar", "-C", tree, "-cf", "-", "."], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as tar,
        Path(f"{out}.frames").open("wb") as table,
        FrameWriter(sink, codec=Codec(codec), strength=int(strength) if strength else None, table_out=table) as frames,
    ):
        assert tar.stdout is not None
        frames.pump(tar.stdout.fileno())
        frames.close()
    sink.close()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)


def run_framed(tree: str, out: Path, pair: Pair) -> int:
    strength = "" if pair.strength is None else str(pair.strength)
    argv = [sys.executable, __file__, "--framed", tree, str(out), pair.codec, strength]
    return int(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)


def run_rival(tree: str, out: Path, pair: Pair) -> None:
    script = f'tar -C "$1" -cf - . 2>/dev/null | {pair.rival} > "$2"; sync "$2"'
    subprocess.run(["sh", "-c", script, "sh", tree, str(out)], check=True)


@dataclass(frozen=True)
class Run:
    """What one run took."""

    wall: float
    cpu: float
    size: int


def measured(act: Callable[[], object], out: Path) -> Run:
    cpu, begun = cpu_of_children(), time.perf_counter()
    act()
    run = Run(time.perf_counter() - begun, cpu_of_children() - cpu, out.stat().st_size)
    out.unlink()
    return run


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def compare(tree: str, out: Path, pair: Pair, rounds: int) -> None:
    peaks: list[int] = []
    ours: list[Run] = []
    theirs: list[Run] = []
    for _ in range(rounds):
        ours.append(measured(lambda: peaks.append(run_framed(tree, out, pair)), out))
        theirs.append(measured(lambda: run_rival(tree, out, pair), out))
    a, b = median_of(ours), median_of(theirs)
    name = f"framed {pair.codec}" + ("" if pair.strength is None else f" strength {pair.strength}")
    print(f"{name:24} {a.wall:6.2f} s  cpu {a.cpu:6.2f} s {a.size / 1e6:7.1f} MB  peak {max(peaks)} MiB")
    print(f"  tar | {pair.rival:16} {b.wall:6.2f} s  cpu {b.cpu:6.2f} s {b.size / 1e6:7.1f} MB")
    wall = statistics.median(x.wall / y.wall for x, y in zip(ours, theirs, strict=True))
    cpu = statistics.median(x.cpu / y.cpu for x, y in zip(ours, theirs, strict=True))
    print(f"  RATIO  time {wall:.2f}  cpu {cpu:.2f}  size {a.size / b.size:.3f}", flush=True)


def median_of(runs: list[Run]) -> Run:
    return Run(statistics.median(r.wall for r in runs), statistics.median(r.cpu for r in runs), runs[-1].size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tree", nargs="?", default="/usr/share")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="pairs whose codec or rival starts with this")
    parser.add_argument("--out", type=Path, help="directory for the output files; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.out) as scratch:
        subprocess.run(["sh", "-c", 'tar -C "$1" -cf - . 2>/dev/null | cat >/dev/null', "sh", options.tree], check=True)
        for pair in PAIRS:
            wanted = options.only is None or pair.codec == options.only or pair.rival.startswith(options.only)
            if wanted and shutil.which(pair.rival.split()[0]):
                compare(options.tree, Path(scratch) / "out", pair, options.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--framed"]:
        archive_framed(sys.argv[2], Path(sys.argv[3]), sys.argv[4], sys.argv[5])
    else:
        main()
