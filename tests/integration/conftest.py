"""Subjects and plans for the tests of the tar handler, a spool for those of its intake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workshop.another_user import open_directory
from tests.workshop.spools import Desk, Running
from tests.workshop.tar_levels import Plan
from tests.workshop.tar_sets import Chain


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "subject"
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "a").write_text("a")
    (root / "d" / "sub" / "deep").write_text("deep")
    (root / "plain").write_text("plain" * 1000)
    return root


@pytest.fixture
def plan(tmp_path: Path, subject: Path) -> Plan:
    """A plan for it."""
    place = tmp_path / "store"
    place.mkdir()
    return Plan(place, subject)


@pytest.fixture
def open_plan() -> Iterator[Plan]:
    """A plan for an empty subject, all in a directory that any user may enter and write to."""
    with open_directory() as place:
        (place / "subject").mkdir()
        (place / "store").mkdir()
        (place / "store").chmod(0o777)
        yield Plan(place / "store", place / "subject")


@pytest.fixture
def big(plan: Plan, subject: Path) -> Path:
    """A file that takes a while: much more than all pipes and frames hold, of zeros that cost no disk."""
    path = subject / "big"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    plan.options |= {"sparse": False, "strength": 0}
    return path


@pytest.fixture
def chain(tmp_path: Path, subject: Path) -> Chain:
    """Levels of the subject, as GNU tar itself makes them."""
    return Chain(subject, tmp_path / "scratch")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory to restore into."""
    place = tmp_path / "target"
    place.mkdir()
    return place


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Where a spool may be made."""
    return tmp_path / "var" / "spool"


@pytest.fixture
def start(spool: Path) -> Iterator[Callable[..., Running]]:
    """Starts intakes of this spool, none of which outlives the test."""
    running: list[Running] = []

    def begin(desk: Desk, **settings: object) -> Running:
        running.append(Running(spool, desk, **settings))  # type: ignore[arg-type]
        return running[-1]

    yield begin
    for one in running:
        one.stop()
