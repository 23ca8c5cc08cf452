"""A request whose worker dies at a chosen step, is started again, and is looked over afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from tests.workshop import checker, doomed
from tests.workshop.intakes import Intake
from tests.workshop.workers import Worker, wait_for

ROOT = Path(__file__).parents[2]
REQUEST = "r1"
SENTINEL = "last"
BIG_BYTES = 3 << 20
"""More than the pipe between tar and the worker holds: tar cannot have ended before its worker dies."""


Settle = Literal["journalled", "announced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the matrix makes backups of one kind."""

    levels: Sequence[int]
    parts: int
    options: Callable[[Path], dict[str, Any]]
    programs: bool = True
    """Whether programs run for it."""
    waits: bool = False
    """Whether somebody waits at the subject to be told that it is safe; each cell has a subject of its own then."""


def _one_peer(subject: Path) -> dict[str, Any]:
    return {"peers": {"web01": {"kind": "local", "collect_directory": str(subject), "links": "keep"}}}


RECIPES = {
    "tar": Recipe(levels=(0, 1), parts=4, options=lambda subject: {"root": str(subject)}),
    "stage": Recipe(levels=(0,), parts=3, options=_one_peer, programs=False, waits=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One death."""

    step: str
    handler: str
    intake: Literal["spool", "rabbitmq", "redis"]
    settle: Settle
    level: int = 0
    operation: Literal["backup", "verify", "expire"] = "backup"
    deep: bool = False

    @property
    def id(self) -> str:
        """As pytest shows it."""
        depth = "-deep" if self.deep else ""
        what = f"{self.handler}{self.level}" if self.operation == "backup" else f"{self.handler}-{self.operation}"
        return f"{what}{depth}-{self.intake}-{self.settle}-{self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all deaths of a handler have in common: the subject as it is backed up, and a store with its level 0."""

    subject: Path
    store: Path
    aged_store: Path
    """The same with a second, newer level 0."""


class Mortal(Worker):
    """A worker that can be started to die."""

    def start_doomed(self, step: str, *, within: Callable[[], None]) -> dict[str, Any]:
        """Start it, do something, wait until it has died at the step; its last words."""
        mark = self.place / f"mark-{step}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), doomed.DIE_AT: step, doomed.MARK: str(mark)}
        command = [sys.executable, "-m", "tests.workshop.doomed", "--config", str(self.config), "run"]
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
        wait_for(lambda: b'"worker_started"' in self.log.read_bytes()[before:] or self.ended, what="worker_started")
        within()
        wait_for(lambda: self.ended, what=f"the death at {step}", told=self.log.read_text)
        assert self.process.returncode == -signal.SIGKILL, self.log.read_text()
        words: dict[str, Any] = orjson.loads(mark.read_bytes())
        assert words["step"] == step
        return words


class Patient:
    """One cell at work: the worker, its intake, what it is asked."""

    def __init__(self, cell: Cell, place: Path, stage: Stage, intake: Intake) -> None:
        recipe = RECIPES[cell.handler]
        store = place / "store"
        self.base = 0
        """How many sets there are from before."""
        if cell.operation == "expire":
            self.base = 2
            shutil.copytree(stage.aged_store, store)
        elif cell.level > 0 or cell.operation == "verify":
            self.base = 1
            shutil.copytree(stage.store, store)
        self.cell = cell
        self.subject = stage.subject
        if recipe.waits:
            self.subject = place / "collect"
            shutil.copytree(stage.subject, self.subject, symlinks=True)
            (self.subject / "cback.collect").touch()
        self.intake = intake
        plan = {
            "handler": cell.handler,
            "options": recipe.options(self.subject),
            "verify": "deep" if cell.deep else "checksums",
            "retention": {"latest": 1} if cell.operation == "expire" else {},
        }
        self.worker = Mortal(
            place / "n1",
            self.subject,
            store,
            plans={"web": plan},
            settle=cell.settle,
            concurrency=1,
            # Most die once; for the one that dies at five steps this must not be the reason to give up.
            retry={"attempts": 10, "first_delay_seconds": 0.2},
            **intake.settings,
        )
        self.scratch = place / "restored"
        self.place = place
        self.asked = False

    def ask(self) -> None:
        """Put the request there, as soon as that is possible, and once only."""
        if not self.asked:
            self.asked = True
            wait_for(lambda: self.intake.ready(self.worker) or self.worker.ended, what="the intake")
            assert not self.worker.ended, self.worker.log.read_text()
            request = {"id": REQUEST, "plan": "web", "operation": self.cell.operation}
            if self.cell.operation == "backup":
                request["level"] = "incremental" if self.cell.level else "full"
            self.intake.ask(self.worker, request)

    def die(self, step: str) -> None:
        """Start, ask, die there; the programs that ran go with their worker, and no reader sees half a set."""
        words = self.worker.start_doomed(step, within=self.ask)
        if step == "producing" and RECIPES[self.cell.handler].programs:
            assert words["children"], "no program was running: this death shows less than it should"
        wait_for(lambda: not checker.processes(self.place), what="the end of what the dead worker had started")
        visible = checker.committed(self.worker.store)
        if self.cell.operation == "expire":
            assert self.base - 1 <= len(visible) <= self.base
        else:
            assert self.base <= len(visible) <= self.base + 1

    def recover(self) -> None:
        """Start again, and let everything come to rest; then stop."""
        self.worker.start()
        wait_for(self._at_rest, what="rest", told=self._how_it_stands)
        if self.cell.intake != "spool":
            # The broker sends one message at a time: whoever has the sentinel has settled all that came before it.
            self.intake.ask(self.worker, {"id": SENTINEL, "plan": "nobody"})
            wait_for(lambda: SENTINEL in self._outcomes(), what="the sentinel", told=self._how_it_stands)
        assert self.worker.stop() == 0

    def check(self) -> None:
        """Count everything."""
        state = self.worker.place / "state"
        sets = checker.committed(self.worker.store)
        mine = [place for place in sets.values() if checker.manifest(place)["request_id"] == REQUEST]
        assert len(sets) == (self.base - 1 if self.cell.operation == "expire" else len(mine) + self.base)
        assert len(mine) == (self.cell.operation == "backup")
        for place in mine:
            assert checker.manifest(place)["level"] == self.cell.level
            found = checker.restored(place, self.scratch)
            wanted = {name: node for name, node in checker.tree(self.subject).items() if not name.startswith("cback.")}
            assert checker.differences(wanted, found) == []
            if RECIPES[self.cell.handler].waits:
                assert place.name in (self.subject / "cback.stage").read_text()
        assert checker.leftovers(self.worker.store, state) == []
        assert checker.processes(self.place) == []
        (outcome,) = self._outcomes()[REQUEST].values()
        assert (outcome["outcome"], outcome["exit_code"]) == ("succeeded", 0)
        assert self.intake.unsettled(self.worker) == []
        assert self.intake.dead(self.worker) == (self.cell.intake != "spool")
        known = checker.journal(state)
        assert list(known) == [REQUEST]
        assert known[REQUEST].state == "announced"
        assert checker.unsent(state) == 0

    def _outcomes(self) -> checker.Outcomes:
        return checker.outcomes(self.intake.events(self.worker))

    def _at_rest(self) -> bool:
        assert not self.worker.ended, self.worker.log.read_text()
        return (
            bool(self._outcomes().get(REQUEST))
            and not self.intake.unsettled(self.worker)
            and checker.unsent(self.worker.place / "state") == 0
        )

    def _how_it_stands(self) -> object:
        return self._outcomes(), self.intake.unsettled(self.worker), self.worker.log.read_text()[-4000:]
