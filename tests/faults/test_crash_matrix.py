"""A worker dies by SIGKILL at each step of a request, is started again, and nobody can tell from what is there.

Every step of `tests.workshop.doomed` times handler, level, intake and settle mode, where they have to do with each
other: the work of a journalled request does not depend on the intake that brought it; in `announced` mode the delivery
comes again whatever the step, so there every step meets the queue.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.faults.patient import (
    BIG_BYTES,
    RECIPES,
    ROOT,
    Cell,
    Patient,
    Recipe,
    Settle,
    Stage,
)
from tests.workshop import doomed
from tests.workshop.intakes import Intake, RabbitSide, RedisSide, SpoolSide
from tests.workshop.workers import Worker

ARRIVAL = ["delivered", "parsed", "journalled", "settle_decided", "settled"]
TELLING = ["told", "outcome_stored", "outcome_sent", "crossed_out"]


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
        if handler == "stage":
            # What differs between transports, modes and operations has nothing to do with the handler.
            yield from each(["restored_on_trial"], "spool", "journalled", deep=True)
            continue
        for level in recipe.levels[1:]:
            yield from each([*made, "verifying"], "spool", "journalled", level=level)
        yield from each(["restored_on_trial"], "spool", "journalled", deep=True)
        yield from each(
            ["attempt_counted", "verifying", "verified", *TELLING[1:]], "spool", "journalled", operation="verify"
        )
        yield from each(["expiring_noted", "set_expired", *TELLING[1:]], "spool", "journalled", operation="expire")
        few = ["delivered", "journalled", "producing", "committed", *TELLING, "held_settled"]
        yield from each([*few, "settle_decided", "settled"], "spool", "announced")
        yield from each([*ARRIVAL, "producing", *TELLING], "rabbitmq", "journalled")
        firsts = [step for step in whole if step.partition(":")[2] in {"", "1"}]
        yield from each([*firsts, "held_settled"], "rabbitmq", "announced")
        yield from each(ARRIVAL, "redis", "journalled")
        yield from each([*few, "settle_decided", "settled"], "redis", "announced")


CELLS = list(cells())


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
