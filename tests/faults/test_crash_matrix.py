"""A worker dies by SIGKILL at each step of a request, is started again, and nobody can tell from what is there.

Every step of `tests.workshop.doomed` times handler, level, intake and settle mode, where they have to do with each
other: the work of a journalled request does not depend on the intake that brought it; in `announced` mode the delivery
comes again whatever the step, so there every step meets the queue.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest

from tests.workshop import checker, doomed
from tests.workshop.intakes import Intake, RabbitSide, RedisSide, SpoolSide
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


RECIPES = {"tar": Recipe(levels=(0, 1), parts=4, options=lambda subject: {"root": str(subject)})}


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


ARRIVAL = ["delivered", "parsed", "journalled", "settle_decided", "settled"]
TELLING = ["outcome_stored", "outcome_sent", "crossed_out"]


def making(recipe: Recipe) -> list[str]:
    """The steps from the first look at the subject to the committed set."""
    return [
        "lease_taken",
        "draft_begun",
        "producing",
        *(f"part_fsynced:{number + 1}" for number in range(recipe.parts)),
        "produced",
        "small_file_written:1",
        "small_file_written:2",
        "manifest_written",
        "renamed",
        "committed",
        "lease_released",
        "stored",
    ]


def cells() -> Iterator[Cell]:
    """The matrix."""
    for handler, recipe in RECIPES.items():
        made = making(recipe)
        whole = [*ARRIVAL, "attempt_counted", *made, "verifying", "verified", *TELLING]

        def each(
            steps: Sequence[str],
            intake: Literal["spool", "rabbitmq", "redis"],
            settle: Settle,
            handler: str = handler,
            **more: Any,
        ) -> Iterator[Cell]:
            for step in steps:
                yield Cell(step=step, handler=handler, intake=intake, settle=settle, **more)

        yield from each(whole, "spool", "journalled")
        for level in recipe.levels[1:]:
            yield from each([*made, "verifying"], "spool", "journalled", level=level)
        yield from each(["restored_on_trial"], "spool", "journalled", deep=True)
        yield from each(
            ["attempt_counted", "verifying", "verified", *TELLING], "spool", "journalled", operation="verify"
        )
        yield from each(["expiring_noted", "set_expired", *TELLING], "spool", "journalled", operation="expire")
        few = ["delivered", "journalled", "producing", "committed", *TELLING, "held_settled"]
        yield from each([*few, "settle_decided", "settled"], "spool", "announced")
        yield from each([*ARRIVAL, "producing", *TELLING], "rabbitmq", "journalled")
        firsts = [step for step in whole if step.partition(":")[2] in {"", "1"}]
        yield from each([*firsts, "held_settled"], "rabbitmq", "announced")
        yield from each(ARRIVAL, "redis", "journalled")
        yield from each([*few, "settle_decided", "settled"], "redis", "announced")


CELLS = list(cells())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What all deaths of a handler have in common: the subject as it is backed up, and a store with its level 0."""

    subject: Path
    store: Path
    aged_store: Path
    """The same with a second, newer level 0."""


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A tree that nobody changes any more; between the level 0 in the store and now much was."""
    place = tmp_path_factory.mktemp("crash-stage")
    subject = place / "subject"
    (subject / "docs" / "deep").mkdir(parents=True)
    (subject / "empty").mkdir()
    rng = random.Random(3)
    for name in ("kept", "deleted", "docs/old name", "docs/deep/changed\tname"):
        (subject / name).write_bytes(rng.randbytes(5_000))
    (subject / "big").write_bytes(rng.randbytes(BIG_BYTES))
    (subject / "link").symlink_to("docs/deep")
    before = Worker(place / "before", subject, place / "store")
    done = before.run("backup", "web")
    assert done.returncode == 0, done.stderr
    (subject / "deleted").unlink()
    (subject / "docs" / "old name").rename(subject / "docs" / "new name")
    (subject / "docs" / "deep" / "changed\tname").write_bytes(b"changed")
    (subject / "docs" / "fresh").write_text("fresh")
    (subject / "docs" / "fresh").chmod(0o600)
    (subject / "big").write_bytes(rng.randbytes(BIG_BYTES))
    shutil.copytree(place / "store", place / "aged-store")
    after = Worker(place / "after", subject, place / "aged-store")
    done = after.run("backup", "web", "--level", "full")
    assert done.returncode == 0, done.stderr
    return Stage(subject=subject, store=place / "store", aged_store=place / "aged-store")


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
        self.stage = stage
        self.intake = intake
        plan = {
            "handler": cell.handler,
            "options": recipe.options(stage.subject),
            "verify": "deep" if cell.deep else "checksums",
            "retention": {"latest": 1} if cell.operation == "expire" else {},
        }
        self.worker = Mortal(
            place / "n1",
            stage.subject,
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
        if step == "producing":
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
            assert checker.differences(checker.tree(self.stage.subject), found) == []
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


MakeIntake = Callable[[str], Intake]


@pytest.fixture
def make_intake(request: pytest.FixtureRequest) -> Iterator[MakeIntake]:
    """The cell's side of a transport; only a server that is needed is started."""
    made: list[Intake] = []

    def make(kind: str) -> Intake:
        match kind:
            case "rabbitmq":
                made.append(RabbitSide(request.getfixturevalue("rabbitmq")))
            case "redis":
                made.append(RedisSide(request.getfixturevalue("redis_server")))
            case _:
                made.append(SpoolSide())
        return made[-1]

    yield make
    for intake in made:
        intake.close()


MakePatient = Callable[[Cell], Patient]


@pytest.fixture
def patient(tmp_path: Path, stage: Stage, make_intake: MakeIntake) -> Iterator[MakePatient]:
    """A cell at work, of which no process outlives the test."""
    made: list[Patient] = []

    def make(cell: Cell) -> Patient:
        made.append(Patient(cell, tmp_path, stage, make_intake(cell.intake)))
        return made[-1]

    yield make
    for each in made:
        if not each.worker.ended:
            each.worker.kill()


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_death_leaves_one_set_one_outcome_and_nothing_else(cell: Cell, patient: MakePatient) -> None:
    """The worker dies exactly there; after a restart everything is as if it had not."""
    dying = patient(cell)

    dying.die(cell.step)
    dying.recover()

    dying.check()


@pytest.mark.slow
@pytest.mark.parametrize("intake", ["spool", "rabbitmq"])
def test_request_that_meets_death_at_every_second_step(
    intake: Literal["spool", "rabbitmq"], patient: MakePatient
) -> None:
    """One death after the other, each further on the way than the one before, and still one set and one outcome."""
    cell = Cell(step="many", handler="tar", intake=intake, settle="announced", level=1)
    dying = patient(cell)

    for step in ("journalled", "part_fsynced:2", "manifest_written", "verifying", "outcome_sent"):
        dying.die(step)
    dying.recover()

    dying.check()


def test_every_installed_handler_and_every_step_is_in_the_matrix() -> None:
    """Whoever adds one is told that the matrix does not know it."""
    assert set(RECIPES) == {point.name for point in entry_points(group="holdfast.handlers")}
    assert {cell.step.partition(":")[0] for cell in CELLS} == set(doomed.STEPS)


@pytest.mark.parametrize("step", doomed.STEPS)
def test_function_that_is_the_step_exists(step: str) -> None:
    """A rename in the product breaks this test, instead of emptying the matrix."""
    for instant in doomed.STEPS[step]:
        assert callable(doomed.find(instant)[2])


@pytest.mark.parametrize(
    "instant",
    [
        doomed.Instant(where="worker.no_such_module:anything"),
        doomed.Instant(where="worker.pipeline:Pipeline.no_such_method"),
        doomed.Instant(where="worker.pipeline:DEATHS"),
        doomed.Instant(
            where="worker.pipeline:Pipeline.accept", given=doomed.Given(name="no_such_parameter", wanted=bool)
        ),
    ],
    ids=["module", "method", "constant", "parameter"],
)
def test_step_whose_function_has_vanished_is_refused(instant: doomed.Instant) -> None:
    """So that no test waits for a death that cannot come."""
    with pytest.raises(doomed.Hollow, match=r"worker\."):
        doomed.find(instant)


@pytest.mark.parametrize("wish", ["no_such_step", "committed:0", "committed:often"])
def test_launcher_refuses_a_wish_that_means_nothing(wish: str, tmp_path: Path) -> None:
    """Loudly, before any worker runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), doomed.DIE_AT: wish, doomed.MARK: str(tmp_path / "mark")}

    done = subprocess.run(
        [sys.executable, "-m", "tests.workshop.doomed", "run"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("doomed: Hollow: ")
    assert not (tmp_path / "mark").exists()


def test_product_knows_nothing_of_chosen_deaths() -> None:
    """The launcher is of the tests alone: no module of the wheel asks for its variables."""
    asked = [
        path
        for package in ("config", "handlers", "worker")
        for path in (ROOT / package).rglob("*.py")
        if doomed.DIE_AT in path.read_text() or doomed.MARK in path.read_text()
    ]

    assert asked == []
