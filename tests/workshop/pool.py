"""Sets of the handler `stage`, made in a real local store without a worker."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from handlers.contract import BackupId, Job, Part, PlanName, ProblemKind, Produced, Progress, Tree
from handlers.peer_stage import StageHandler
from handlers.tools.checksum import checked
from handlers.tools.peers.options import StageOptions
from handlers.tools.peers.verdicts import PeerRecord, Report, read
from tests.workshop.tar_levels import Recorder
from worker.stores.local import LocalStore
from worker.stores.protocol import SetName


class PoolSet:
    """A committed set."""

    def __init__(self, store: LocalStore, name: SetName, made: Produced) -> None:
        self._store = store
        self._name = name
        self.made = made
        self.backup_id = name.backup_id
        self.level = 0
        self.parts: Mapping[str, Part] = {part.name: part for part in made.parts}
        self.trees: Mapping[str, Tree] = {tree.name: tree for tree in made.trees}

    def tree(self, name: str) -> Path:
        """Where it lies."""
        return self._store.tree(self._name, name)

    def stream(self, name: str) -> Iterator[bytes]:
        """The part, checked."""
        part = self.parts[name]
        stored = self._store.stream(self._name, name)
        return checked(stored, size_bytes=part.size_bytes, sha256=part.sha256, name=name)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """The bytes as stored."""
        return self._store.read_range(self._name, name, offset, length)

    @property
    def directory(self) -> Path:
        """The set's directory."""
        return self.tree("peers").parent

    @property
    def report(self) -> Report:
        """What it says of the peers."""
        return read(self)

    def record(self, peer: str) -> PeerRecord:
        """What it says of one."""
        return next(record for record in self.report.peers if record.name == peer)

    def problems(self) -> dict[str, ProblemKind]:
        """What is not in it as it should be."""
        return {problem.path: problem.kind for problem in self.made.problems}


class Pool:
    """A plan with its store; `stage` makes the next set."""

    def __init__(self, place: Path, peers: Mapping[str, Mapping[str, Any]], **options: Any) -> None:
        self.place = place
        self.options = options_of(peers, **options)
        self.handler = StageHandler()
        self.control: Any = Recorder()
        self._numbers = count(1)
        (place / "store").mkdir(parents=True, exist_ok=True)
        self.store = LocalStore("disk", place / "store")

    def job(self, **more: Any) -> Job:
        """The job for the next set."""
        return Job(
            plan=PlanName("pool"),
            backup_id=BackupId(f"set-{next(self._numbers)}"),
            options=self.options,
            level=0,
            parent=None,
            scratch=Path(tempfile.mkdtemp(dir=self.place)),
            control=self.control,
            **more,
        )

    def stage(self, **more: Any) -> PoolSet:
        """Make a set and commit it; where that fails, its trees are there for the next attempt."""
        job = self.job(**more)
        name = SetName(plan=job.plan, backup_id=job.backup_id)
        draft = self.store.draft(name)
        try:
            made = self.handler.prepare(job).produce(draft)
            draft.commit({}, b"{}")
        finally:
            draft.discard()
        return PoolSet(self.store, name, made)

    def acknowledge(self, made: PoolSet) -> list[str]:
        """Tell the peers."""
        return list(self.handler.acknowledge(self.options, made, self.control))


class Interfering:
    """A control that does something once, when so many bytes were read."""

    def __init__(self, after_bytes: int, act: Callable[[], object]) -> None:
        self._after = after_bytes
        self._act: Callable[[], object] | None = act

    def checkpoint(self) -> None:
        """Nobody wants us to stop."""

    def started(self) -> None:
        """Nobody is told."""

    def report(self, progress: Progress) -> None:
        """Act, at the right moment."""
        if self._act is not None and progress.bytes_in >= self._after:
            act, self._act = self._act, None
            act()


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Inside, somebody does this again and again."""
    over = threading.Event()

    def keep_acting() -> None:
        while not over.is_set():
            act()
            over.wait(0.001)

    somebody = threading.Thread(target=keep_acting)
    somebody.start()
    try:
        yield
    finally:
        over.set()
        somebody.join()


def options_of(peers: Mapping[str, Mapping[str, Any]], **options: Any) -> StageOptions:
    """The options as a configuration has them."""
    return StageOptions.model_validate_json(orjson.dumps({"peers": peers, **options}), strict=True)


def collected(directory: Path, *names: str, indicator: str | None = "cback.collect") -> Path:
    """A collect directory with these files, each with its name as content."""
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    directory.mkdir(parents=True, exist_ok=True)
    if indicator is not None:
        (directory / indicator).touch()
    return directory
