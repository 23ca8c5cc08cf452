"""What one level could not read is in the next one that can: chains with holes that close again, as another user."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from handlers.contract import ProblemKind, Produced, unprintable
from handlers.tools.tar import listener as tar_listener
from handlers.tools.tar.lost import Lost
from tests.workshop.another_user import needs_another_user, nobody
from tests.workshop.tar_levels import Plan, listed, unpacked
from tests.workshop.tar_sets import tree_of

pytestmark = needs_another_user

HIDDEN = {
    "a file": ("d/f", 0o600),
    "a file deep down": ("d/sub/deep", 0o600),
    "a closed directory": ("d", 0o700),
    "a directory that can only be listed": ("d", 0o704),
    "a directory that can only be searched": ("d", 0o701),
    "a directory deep down that can only be listed": ("d/sub", 0o704),
}


def fill(subject: Path, text: str) -> None:
    """A tree with files at several depths, two names of one file, and a link."""
    (subject / "d/sub/empty").mkdir(parents=True, exist_ok=True)
    for name in ("top", "d/f", "d/g", "d/sub/deep"):
        (subject / name).write_text(f"{name} {text}")
    if not (subject / "d/sub/hard").exists():
        os.link(subject / "d/sub/deep", subject / "d/sub/hard")
        (subject / "d/link").symlink_to("sub/deep")


def named(produced: Produced) -> set[tuple[str, str]]:
    """Each problem's kind and path."""
    return {(problem.kind, problem.path) for problem in produced.problems}


def require_restorable(plan: Plan) -> None:
    """The chain gives the subject as it is now: with plain GNU tar level by level, and with the handler."""
    wanted = tree_of(plan.subject)
    assert tree_of(unpacked(plan)) == wanted
    mine = plan.place / f"mine-{len(plan.sets)}"
    mine.mkdir()
    plan.handler.restore(plan.sets, mine, (), plan.control)
    assert tree_of(mine) == wanted
    assert list(plan.handler.compare(plan.sets, mine, plan.control)) == []


@pytest.mark.parametrize("what", HIDDEN)
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("way", ["its mode changes", "nothing changes but who reads"])
def test_what_a_level_could_not_read_is_in_the_next(open_plan: Plan, what: str, level: int, way: str) -> None:
    """However it was hidden and came to light: the next level has all of it, the one after that nothing again."""
    plan, subject = open_plan, open_plan.subject
    name, mode = HIDDEN[what]
    fill(subject, "first")
    if level == 1:
        with nobody():
            plan.back_up()
        fill(subject, "second")
    shown = (subject / name).stat().st_mode
    (subject / name).chmod(mode)
    with nobody():
        hiding = plan.back_up()
    assert hiding.problem_counts[ProblemKind.UNREADABLE] >= 1

    if way == "its mode changes":
        (subject / name).chmod(shown)
    with nobody() if way == "its mode changes" else nullcontext():
        healing = plan.back_up()

    assert healing.problem_counts == {}
    require_restorable(plan)
    plan.back_up()
    assert listed(plan) == []


def test_what_can_never_be_read_does_not_keep_a_chain_from_growing(open_plan: Plan) -> None:
    """Four levels, each names the same files and has what is new; the chain gives all the rest."""
    plan, subject = open_plan, open_plan.subject
    fill(subject, "first")
    (subject / "secret").write_text("x")
    (subject / "secret").chmod(0o600)
    (subject / "closed").mkdir(mode=0o700)
    (subject / "closed/inside").write_text("x")
    (subject / "peep").mkdir(mode=0o704)
    (subject / "peep/hole").write_text("x")

    for level in range(4):
        (subject / f"new-{level}").write_text(str(level))
        with nobody():
            produced = plan.back_up()
        assert named(produced) == {("unreadable", name) for name in ("secret", "closed", "peep/hole")}
        assert produced.problem_counts == {ProblemKind.UNREADABLE: 3}
        assert [name for name in listed(plan) if name.startswith("new")] == [f"new-{level}"]
        assert level == 0 or "top" not in listed(plan)

    expected = tree_of(subject)
    for name in (b"secret", b"closed", b"closed/inside", b"peep/hole"):
        del expected[name]
    assert tree_of(unpacked(plan)) == expected


def test_a_file_that_changed_and_cannot_be_read_stays_as_the_level_before_has_it(open_plan: Plan) -> None:
    """The last content that was read, rather than none, in the set that names it; the next level has the new one."""
    plan, subject = open_plan, open_plan.subject
    fill(subject, "first")
    with nobody():
        plan.back_up()
    fill(subject, "second")
    (subject / "d/f").chmod(0o600)
    with nobody():
        produced = plan.back_up()

    mine = plan.place / "between"
    mine.mkdir()
    plan.handler.restore(plan.sets, mine, (), plan.control)

    assert named(produced) == {("unreadable", "d/f")}
    for target in (unpacked(plan), mine):
        assert (target / "d/f").read_text() == "d/f first"
        assert (target / "d/sub/deep").read_text() == "d/sub/deep second"
    (subject / "d/f").chmod(0o644)
    with nobody():
        plan.back_up()
    require_restorable(plan)


def test_a_directory_that_was_closed_stays_as_the_level_before_has_it(open_plan: Plan) -> None:
    """With all that was in it."""
    plan, subject = open_plan, open_plan.subject
    fill(subject, "first")
    with nobody():
        plan.back_up()
    (subject / "d").chmod(0o700)
    with nobody():
        plan.back_up()

    target = unpacked(plan)

    assert (target / "d/sub/deep").read_text() == "d/sub/deep first"


STRANGE = (
    b"10:30: Cannot open: x",
    b"new\nline\ttab",
    b"bad\xff\xfe",
    b"quo\"te's",
    b"back\\slash\\x0a\\n",
    b" spaces  ",
    b"--checkpoint-action=exec=touch x",
    b"-T",
    b"@x",
    b"a[1]",
    b"*",
    "ümläut\u2028\u00a0".encode(),
    b"x" * 255,
)


def test_strange_names_are_told_as_they_are_and_tried_again(open_plan: Plan) -> None:
    """The name of a problem leads back to the file, byte for byte; so does what is struck out of the snapshot."""
    plan, subject = open_plan, open_plan.subject
    top = os.fsencode(subject) + b"/d"
    (subject / "d").mkdir(mode=0o704)
    for name in STRANGE:
        Path(os.fsdecode(top + b"/" + name)).write_bytes(name)
    (subject / "d").chmod(0o704)
    with nobody():
        produced = plan.back_up()
    assert sorted(unprintable(problem.path) for problem in produced.problems) == sorted(
        b"d/" + name for name in STRANGE
    )
    assert all(problem.path.isprintable() for problem in produced.problems)

    (subject / "d").chmod(0o755)
    with nobody():
        plan.back_up()

    require_restorable(plan)


MOVES: dict[str, Callable[[Path], object]] = {
    "renamed": lambda s: (s / "d").rename(s / "new"),
    "moved into another": lambda s: (s / "d").rename(s / "other/d"),
    "below one that was renamed": lambda s: ((s / "d/sub").chmod(0o755), (s / "d").rename(s / "new")),
    "away and back": lambda s: ((s / "d").rename(s / "t"), (s / "t").rename(s / "d")),
    "swapped with another": lambda s: (
        (s / "d").rename(s / "t"),
        (s / "other").rename(s / "d"),
        (s / "t").rename(s / "other"),
    ),
}


@pytest.mark.parametrize("how", MOVES)
def test_what_was_lost_comes_back_under_the_new_name_of_its_directory(open_plan: Plan, how: str) -> None:
    """Neither the new name nor the old one may look as if the file had been archived."""
    plan, subject = open_plan, open_plan.subject
    fill(subject, "first")
    (subject / "other").mkdir()
    (subject / "other/f").write_text("another f")
    (subject / "d/f").chmod(0o600)
    (subject / "d/sub").chmod(0o704)
    with nobody():
        plan.back_up()
    MOVES[how](subject)
    for path in [*subject.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)

    with nobody():
        produced = plan.back_up()

    assert all(kind is ProblemKind.RENAMED for kind in produced.problem_counts)
    require_restorable(plan)


@pytest.mark.parametrize("named_by_plan", ["d/f", "d"])
@pytest.mark.parametrize("way", ["its mode changes", "the directory's mode changes", "nothing changes but who reads"])
def test_a_name_of_the_plan_is_tried_again(open_plan: Plan, named_by_plan: str, way: str) -> None:
    """GNU tar keeps no list of the files that it was given by name; they are told once, and taken when they can be."""
    plan, subject = open_plan, open_plan.subject
    fill(subject, "first")
    plan.options["include"] = (named_by_plan, "top")
    hidden = subject / ("d" if way == "the directory's mode changes" else named_by_plan)
    shown = hidden.stat().st_mode
    hidden.chmod(0o700 if hidden.is_dir() else 0o600)
    for _ in range(2):
        with nobody():
            produced = plan.back_up()
        assert named(produced) == {("unreadable", named_by_plan)}
        assert produced.problem_counts == {ProblemKind.UNREADABLE: 1}

    if way != "nothing changes but who reads":
        hidden.chmod(shown)
    with nobody() if way != "nothing changes but who reads" else nullcontext():
        produced = plan.back_up()

    assert produced.problem_counts == {}
    target = unpacked(plan)
    assert (target / "d/f").read_text() == "d/f first"
    plan.back_up()
    assert listed(plan) == []


def test_a_name_of_the_plan_that_was_missing_is_taken_when_it_is_there(open_plan: Plan) -> None:
    """Also when it is as old as it can be, since it was brought there by `mv`."""
    plan, subject = open_plan, open_plan.subject
    fill(subject, "first")
    aside = plan.place / "aside"
    aside.write_text("late")
    plan.options["include"] = ("late", "top")
    assert named(plan.back_up()) == {("unreadable", "late")}
    subprocess.run(["mv", aside, subject / "late"], check=True)

    assert plan.back_up().problem_counts == {}

    assert listed(plan) == ["late"]


def test_more_lost_names_than_are_remembered_make_the_next_level_whole(
    open_plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one they would take too much memory; none is forgotten. Here it is 2000 of them, for the test's time."""
    monkeypatch.setattr(tar_listener, "Lost", partial(Lost, 2000))
    plan, subject = open_plan, open_plan.subject
    fill(subject, "first")
    (subject / "many").mkdir()
    for number in range(2_010):
        (subject / "many" / str(number)).touch()
    (subject / "many").chmod(0o704)
    with nobody():
        produced = plan.back_up()
    assert produced.problem_counts == {ProblemKind.UNREADABLE: 2_010}
    assert len(produced.problems) == 1000

    (subject / "many").chmod(0o755)
    with nobody():
        plan.back_up()

    assert len(listed(plan)) == 2_010 + 6
