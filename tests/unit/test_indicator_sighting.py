"""The request that an indicator stands for, and the directories that a pattern means."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.intake import wire
from worker.intake.indicator_looks import request_in
from worker.intake.indicator_places import Pattern, Place, all_places, fits
from worker.intake.indicator_sighting import Sighting, moment

NUMBERS = st.integers(min_value=0, max_value=2**63 - 1)
SIGHTINGS = st.builds(
    Sighting,
    plan=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"),
    level=st.sampled_from(["auto", "full", "incremental"]),
    device=NUMBERS,
    inode=NUMBERS,
    mtime_ns=st.integers(min_value=-(2**63), max_value=2**63 - 1),
)


@given(SIGHTINGS, SIGHTINGS)
def test_two_indicators_are_one_request_only_where_they_are_the_same(one: Sighting, other: Sighting) -> None:
    """Whatever their plans are called and whatever time they have."""
    assert (one.request_id == other.request_id) == (one == other)
    assert one.is_same_file(one.request_id)


@given(SIGHTINGS, st.sampled_from(["auto", "full"]), NUMBERS)
def test_answer_is_known_on_another_device_and_at_another_level(one: Sighting, level: str, device: int) -> None:
    """A device's number may change when the machine starts again; a later touch is never taken for answered."""
    before = Sighting(plan=one.plan, level=level, device=device, inode=one.inode, mtime_ns=one.mtime_ns)
    later = Sighting(plan=one.plan, level=level, device=device, inode=one.inode, mtime_ns=one.mtime_ns + 1)

    assert one.is_same_file(before.request_id)
    assert not one.is_same_file(later.request_id)


@given(SIGHTINGS)
def test_the_request_is_one_that_the_wire_takes(one: Sighting) -> None:
    """Plan and level arrive, and nothing else is said."""
    request = wire.parse(one.body)

    assert (request.request_id, request.data.plan, request.data.level) == (one.request_id, one.plan, one.level)
    assert request.data.labels == {}


@pytest.mark.parametrize("plan", ["", "-e", "a b", "\udcff", "x\n", "ü" * 200, "../up", ".hidden"])
def test_a_directory_whose_name_is_no_plan_makes_a_request_that_is_refused(plan: str) -> None:
    """With an id that can be written anywhere."""
    sighting = Sighting(plan=plan, level="auto", device=1, inode=2, mtime_ns=3)

    with pytest.raises(wire.MessageRefused):
        wire.parse(sighting.body)

    assert re.fullmatch(r"[A-Za-z0-9._-]+", sighting.request_id)
    assert orjson.loads(sighting.body)["id"] == sighting.request_id


def test_id_tells_a_person_what_was_touched_when() -> None:
    """To the nanosecond, in UTC."""
    sighting = Sighting(plan="web", level="full", device=0xFE00, inode=77, mtime_ns=1_763_748_058_000_000_123)

    assert sighting.request_id == "web-20251121T180058.000000123Z-77-full-fe00"
    assert moment(-1) == "19691231T235959.999999999Z"
    assert moment(2**63 - 1).startswith("2262")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"request=a-b backup=c outcome=succeeded\n", "a-b"),
        (b"", None),
        (b"something of somebody's own", None),
        (b"\0" * 5000 + b"request=late", None),
        (b"request=\xff", "\ufffd"),
    ],
)
def test_what_lies_there_may_be_anything(line: bytes, found: str | None) -> None:
    """Only a file of ours names a request."""
    assert request_in(line) == found


@pytest.mark.parametrize(
    ("text", "base", "steps"),
    [
        ("/srv/collect/*", "/srv/collect", ("*",)),
        ("/srv/collect", "/srv", ("collect",)),
        ("/srv//c*/./out/", "/srv", ("c*", "out")),
        ("/collect", "/", ("collect",)),
        ("/", "/", ()),
    ],
)
def test_a_pattern_begins_with_what_is_the_operators_own_word(text: str, base: str, steps: tuple[str, ...]) -> None:
    """Everything up to the first wildcard, except the last name."""
    pattern = Pattern.parse(text)

    assert (pattern.base, pattern.steps) == (base, steps)


@pytest.mark.parametrize(
    ("name", "step", "expected"),
    [("web", "w*", True), (".web", "*", False), (".web", ".w*", True), ("a[1]", "a[[]1]", True), ("*", "*", True)],
)
def test_wildcards_are_those_of_the_shell(name: str, step: str, expected: bool) -> None:
    """Hidden names have to be asked for."""
    assert fits(name, step) is expected


def test_places_are_real_directories_only(tmp_path: Path) -> None:
    """Links are followed where the pattern begins, and nowhere below."""
    for name in ("real/web01/out", "real/web02"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "web03").symlink_to(tmp_path / "real" / "web01")
    base = str(tmp_path / "link")

    found = list(all_places([Pattern.parse(f"{base}/*"), Pattern.parse(f"{base}/*/out"), Pattern.parse("/no/where")]))

    assert found == [Place(base, ("web01",)), Place(base, ("web02",)), Place(base, ("web01", "out"))]
    assert found[2].name == "out"
