"""Chains of any levels over any changes: each point in time comes back, with Holdfast and with GNU tar alone.

`HOLDFAST_CHAINS=500 pytest --timeout=0 tests/integration/test_tar_chains.py` tries that many, not just the few that fit
into the suite.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from handlers.contract import SetReader
from tests.workshop.comparer import Difference, Photograph, below, differences, photograph
from tests.workshop.edits import Step, apply, steps
from tests.workshop.places import erase, fast_place
from tests.workshop.stories import restore, restore_by_page
from tests.workshop.tar_levels import Plan, Recorder

CHAINS = int(os.environ.get("HOLDFAST_CHAINS", "10"))


class Point(NamedTuple):
    """One backup, and what there was."""

    chain: tuple[SetReader, ...]
    directory: Path
    subject: Photograph


@contextmanager
def somewhere(*, on_disk: bool) -> Iterator[Path]:
    """A place that is gone afterwards. On a disk inodes are used again, in memory they are not."""
    place = (None if on_disk else fast_place()) or Path(tempfile.mkdtemp(prefix="holdfast-"))
    try:
        yield place
    finally:
        erase(place)


def history(place: Path, taken: list[Step]) -> tuple[Plan, list[Point]]:
    """The changes and backups, one after the other."""
    subject, store = place / "subject", place / "store"
    subject.mkdir()
    store.mkdir()
    plan = Plan(store, subject)
    points = []
    for step in taken:
        for edit in step.edits:
            apply(subject, edit)
        level = len(plan.sets) if step.level is None else min(step.level, len(plan.sets))
        plan.back_up(level)
        points.append(Point(tuple(plan.sets), plan.sets[-1].directory, photograph(subject)))
    return plan, points


def stale(one: Difference, subject: Photograph) -> bool:
    """Whether a directory kept attributes that a later level no longer has: GNU tar alone never takes one away."""
    if one.aspect != "xattrs" or subject[one.path].type != "d":
        return False
    assert isinstance(one.expected, dict)
    assert isinstance(one.found, dict)
    return one.expected.items() <= one.found.items()


@settings(max_examples=CHAINS, deadline=None, suppress_health_check=list(HealthCheck))
@given(taken=steps, on_disk=st.booleans(), picks=st.lists(st.integers(0, 1000), min_size=1, max_size=3))
def test_each_point_in_time_comes_back(taken: list[Step], on_disk: bool, picks: list[int]) -> None:
    """All of it, in both ways; and any of its paths alone, and several at once."""
    with somewhere(on_disk=on_disk) as place:
        plan, points = history(place, taken)
        for number, point in enumerate(points):
            note(f"point {number}: levels {[reader.backup_id for reader in point.chain]}")

            by_handler = restore(plan, point.chain, place / f"handler {number}")
            assert differences(point.subject, by_handler) == []
            assert list(plan.handler.compare(point.chain, place / f"handler {number}", Recorder())) == []

            restore_by_page(point.directory, place / f"page {number}")
            by_page = photograph(place / f"page {number}")
            found = differences(point.subject, by_page)
            assert [one for one in found if not stale(one, point.subject)] == []

        paths = sorted(point.subject)
        chosen = sorted({paths[pick % len(paths)] for pick in picks})
        alone = restore(plan, point.chain, place / "alone", *chosen)
        for path in chosen:
            assert differences(below(point.subject, path), below(alone, path)) == []
        above = {path[:end] for path in chosen for end in range(len(path)) if path[end : end + 1] == b"/"}
        assert alone.keys() == {b"."} | above.union(*(below(point.subject, path) for path in chosen))
