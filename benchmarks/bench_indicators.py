"""From closing an indicator to the start of the handler, with one directory and with 10 000; what watching those costs.

Goal: p99 <= 20 ms.
"""

from __future__ import annotations

import statistics
import time
from datetime import datetime
from functools import partial
from pathlib import Path

import orjson
import psutil

from benchmarks.bench_latency import has_events, idle, wait_for, worker
from benchmarks.harness import workplace

TOUCHES = 300
DIRECTORIES = 10_000


def main() -> None:
    """Print the percentiles, and what an idle worker costs."""
    measure("one directory", 1)
    measure(f"{DIRECTORIES:,} directories", DIRECTORIES)


def measure(name: str, directories: int) -> None:
    """With a worker that watches so many."""
    with workplace() as place:
        collect = place / "collect"
        for number in range(directories):
            (collect / f"peer-{number:05}").mkdir(parents=True)
        asked = {"directories": [str(collect / "*")], "plan": "tiny"}
        with worker(place, {"indicators": {"pool": asked}}) as process:
            time.sleep(3)  # it looks at all of them first
            latency(f"touch in {name}", place, collect / "peer-00000" / "cback.collect")
            threads, watches = process.num_threads(), watched(process)
            idle(process)
            print(f"    {threads} threads, {watches} watches in {instances(process)} inotify instances")


def latency(name: str, place: Path, indicator: Path) -> None:
    """Touch again and again; compare the times with those of the `started` events."""
    spool = place / "state/spool/events"
    touched = []
    for number in range(TOUCHES + 20):
        indicator.open("w").close()
        touched.append(time.time())
        wait_for(partial(has_events, spool, 2 * (number + 1)))
        wait_for(partial(answers_latest, indicator))
    began = sorted(
        datetime.fromisoformat(event["time"]).timestamp()
        for event in (orjson.loads(file.read_bytes()) for file in spool.glob("*.json"))
        if event["type"].endswith(".started")
    )
    delays = sorted(1000 * (start - touch) for start, touch in zip(began[20:], touched[20:], strict=True))
    p99 = delays[int(len(delays) * 0.99)]
    print(
        f"{name} -> handler's start: p50 {statistics.median(delays):.1f} ms, p99 {p99:.1f} ms, {len(delays)} requests"
    )


def answers_latest(indicator: Path) -> bool:
    """Whether the answer is younger than the indicator."""
    answer = indicator.with_name("cback.stage")
    return answer.exists() and answer.stat().st_mtime_ns >= indicator.stat().st_mtime_ns


def watched(process: psutil.Process) -> int:
    """How many inotify watches the process has."""
    return sum(text.count("inotify wd:") for text in _descriptors(process))


def instances(process: psutil.Process) -> int:
    """How many of its descriptors are inotify instances."""
    return sum(text.count("inotify wd:") > 0 for text in _descriptors(process))


def _descriptors(process: psutil.Process) -> list[str]:
    return [file.read_text() for file in Path(f"/proc/{process.pid}/fdinfo").iterdir()]


if __name__ == "__main__":
    main()
