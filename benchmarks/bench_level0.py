"""Level 0 of a real tree into a fsynced set, against the bare pipelines with sync, and against AutoArchive.

Goals: zstd <= 1.05 x `tar | zstd -T0 -3`; gzip at least 2 x faster than `tar | pigz`, 6 x faster than AutoArchive. The
pipelines keep no snapshot file, no access lists and no index, and neither hash nor read back what they wrote. Four
rows tell what of that costs how much: `holdfast backup` with the default settings, the same without verification, the
same with strength 1, whose parts are about as large as what the pipeline writes (tar sorts names for a snapshot file,
which brings like to like), and a running worker, which has started already.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson

from benchmarks import autoarchive
from benchmarks.harness import HOLDFAST, MIB, Run, backup, forget, paired, real_tree, shell, workplace, write_config

_ZSTD = "zstd -q -T0 -3 -f -o out && sync out"
_AS_OURS = (
    "--format=posix -g snar --no-check-device --numeric-owner --sparse --xattrs --acls -vv --full-time --utc"
    " --block-number --quoting-style=c --index-file=index --warning=no-new-directory"
)
ZSTD = {
    "tar | zstd -T0 -3": f"tar -C tree -cf - . | {_ZSTD}",
    "tar with snapshot, access lists and index | zstd -T0 -3": (
        f"rm -f snar && tar -C tree {_AS_OURS} -cf - . | {_ZSTD} && sync snar index"
    ),
}
GZIP = {
    "tar | pigz": "tar -C tree -cf - . | pigz >out && sync out",
    "tar czf": "tar -C tree -czf out . && sync out",
}


def main() -> None:
    """Print the ratios, on a small tree, where the start of the program counts, and on a larger one."""
    with workplace() as place:
        tree = real_tree(place, files=50_000, size_bytes=500 * MIB)
        three_ways(place, tree)
        name, aa = autoarchive.level0(place)
        compare(place, tree, "gzip", {**scripts(place, GZIP), name: aa}, rounds=3)
    with workplace() as place:
        three_ways(place, real_tree(place, files=100_000, size_bytes=2000 * MIB), rounds=5)


def three_ways(place: Path, tree: Path, *, rounds: int = 7) -> None:
    """By `holdfast backup`, without verification, with strength 1, and by a worker."""
    rivals = scripts(place, ZSTD)
    compare(place, tree, "zstd", rivals, rounds=rounds)
    compare(place, tree, "zstd", rivals, verify="none", rounds=rounds)
    compare(place, tree, "zstd", rivals, strength=1, rounds=rounds)
    with worker(place, tree) as ask:
        paired("a running worker, request to outcome, level 0, zstd", ask, rivals, rounds=rounds)


def compare(
    place: Path,
    tree: Path,
    codec: str,
    rivals: Mapping[str, Callable[[], Run]],
    *,
    verify: str = "checksums",
    strength: int | None = None,
    rounds: int = 5,
) -> None:
    """One codec against the pipelines of the same."""
    config = write_config(place, tree, verify=verify, codec=codec, strength=strength)

    def ours() -> Run:
        forget(place)
        return backup(config)

    strong = "" if strength is None else f", strength {strength}"
    paired(f"holdfast backup, level 0, {codec}{strong}, verify: {verify}", ours, rivals, rounds=rounds)


def scripts(place: Path, named: Mapping[str, str]) -> dict[str, Callable[[], Run]]:
    """Pipelines to run in the workplace."""
    return {name: (lambda script=script: shell(script, cwd=place)) for name, script in named.items()}


@contextmanager
def worker(place: Path, tree: Path) -> Iterator[Callable[[], Run]]:
    """A worker with a spool; the function puts a request into it, and waits for the outcome."""
    forget(place)
    config = write_config(place, tree, spool=True)
    spool = place / "state/spool"
    process = subprocess.Popen([str(HOLDFAST), "--config", str(config), "run"])
    number = 0

    def ask() -> Run:
        nonlocal number
        number += 1
        request = {"id": f"bench-{number}-{os.getpid()}", "plan": "tree", "level": "full"}
        before = cpu_seconds(process.pid)
        began = time.perf_counter()
        draft = spool / "tmp" / f"{number}.json"
        draft.write_bytes(orjson.dumps(request))
        draft.rename(spool / "new" / draft.name)
        while not has_outcome(spool / "events", request["id"]):
            time.sleep(0.005)
        wall = time.perf_counter() - began
        return Run(wall=wall, peak_mib=0, cpu=cpu_seconds(process.pid) - before)

    try:
        while not (spool / "new").is_dir():
            time.sleep(0.01)
        yield ask
    finally:
        process.terminate()
        process.wait()


def has_outcome(events: Path, request_id: str) -> bool:
    """Whether the worker has answered; raises SystemExit where the answer is no good one."""
    for file in events.glob("*.json"):
        event = orjson.loads(file.read_bytes())
        if event["data"].get("request_id") != request_id or event["type"].endswith((".started", ".progress")):
            continue
        if not event["type"].endswith(".succeeded"):
            raise SystemExit(f"the worker answered {event}")
        return True
    return False


def cpu_seconds(pid: int) -> float:
    """What a process and those of its children that have ended have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
