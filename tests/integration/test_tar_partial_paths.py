"""What a level could not read is the same whichever way one asks: of the whole chain, of a path, of its contents.

`HOLDFAST_CHAINS=500 pytest --timeout=0 tests/integration/test_tar_partial_paths.py` tries that many chains.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from handlers.contract import ProblemKind
from handlers.tar_level import TarHandler
from tests.workshop.agreeing import disagreements, restored
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.comparer import photograph
from tests.workshop.edits import Step, apply, steps
from tests.workshop.tar_levels import Plan
from tests.workshop.tar_sets import Quiet

pytestmark = needs_another_user

CHAINS = int(os.environ.get("HOLDFAST_CHAINS", "5"))
_HIDDEN = (0, 0o600, 0o700, 0o704, 0o701, 0o711, 0o744)
_SHOWN = (0o644, 0o755)


class Hiding(NamedTuple):
    """What becomes of a file's mode before a backup, and who makes it."""

    one: int
    how: int
    by_root: bool


_hidings = st.lists(
    st.builds(Hiding, one=st.integers(0, 60), how=st.integers(0, 20), by_root=st.sampled_from([False] * 9 + [True])),
    max_size=4,
)


def hide(subject: Path, hiding: Hiding) -> None:
    """Change the mode of a file or directory, most often so that nobody may not read it."""
    everything = sorted(
        Path(folder, name) for folder, folders, files in os.walk(subject) for name in (*folders, *files)
    )
    everything = [place for place in everything if not place.is_symlink()]
    if everything:
        modes = _HIDDEN + _SHOWN
        everything[hiding.one % len(everything)].chmod(modes[hiding.how % len(modes)])


@settings(max_examples=CHAINS, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    taken=steps, hidings=st.lists(_hidings, min_size=5, max_size=5), picks=st.lists(st.integers(0, 1000), max_size=3)
)
def test_the_whole_chain_its_paths_and_its_contents_agree(
    taken: list[Step], hidings: list[list[Hiding]], picks: list[int]
) -> None:
    """Whatever is changed, hidden and shown again between the levels."""
    with open_directory() as place:
        subject, store = place / "subject", place / "store"
        subject.mkdir()
        store.mkdir()
        store.chmod(0o777)
        (store / "clock").touch()
        (store / "clock").chmod(0o666)
        plan = Plan(store, subject)
        seen: set[bytes] = set()
        for step, hiding in zip(taken, hidings, strict=False):
            for edit in step.edits:
                apply(subject, edit)
            for each in hiding:
                hide(subject, each)
            level = len(plan.sets) if step.level is None else min(step.level, len(plan.sets))
            with ExitStack() as stack:
                if not any(each.by_root for each in hiding):
                    stack.enter_context(nobody())
                produced = plan.back_up(level)
            note(f"level {level}: {[(problem.kind.value, problem.path) for problem in produced.problems]}")
            seen |= set(photograph(subject))
        names = sorted(seen)
        chosen = {names[pick % len(names)] for pick in picks}
        (place / "back").mkdir()

        found = list(disagreements(plan.sets, place / "back", sorted(chosen - {b"."})))

        assert not found, "\n".join(found)


def three_levels(plan: Plan, *changes: Callable[[Path], object]) -> None:
    """A level of a small tree, and one more after each of the changes, all made by nobody."""
    subject = plan.subject
    (subject / "d/sub").mkdir(parents=True, exist_ok=True)
    for name in ("f", "d/f", "d/g", "d/sub/deep"):
        (subject / name).write_text(f"{name} first")
    os.link(subject / "d/g", subject / "d/sub/hard")
    with nobody():
        plan.back_up()
    for change in changes:
        change(subject)
        with nobody():
            plan.back_up()


def hidden(place: Path, text: str = "second") -> None:
    """A file that nobody can read; written anew."""
    place.unlink(missing_ok=True)
    place.write_text(text)
    place.chmod(0o600)


def shown(plan: Plan) -> dict[bytes, tuple[str | None, ProblemKind | None]]:
    """Of each name the older set that has it, if any does, and why it does."""
    entries = TarHandler().contents(plan.sets, lambda: None).walk(b".")
    return {
        entry.path: (entry.held_by, entry.outdated)
        for entry in entries
        if entry.outdated is not None or entry.missing is not None
    }


def closed(subject: Path) -> None:
    """Nobody can look into the directory any more."""
    (subject / "d").chmod(0o700)


def became_closed(subject: Path) -> None:
    """A file became a directory that cannot be read."""
    (subject / "f").unlink()
    (subject / "f").mkdir(mode=0o700)


def became_hidden(subject: Path) -> None:
    """A directory became a file that cannot be read."""
    shutil.rmtree(subject / "d/sub")
    hidden(subject / "d/sub")


UNREADABLE = ProblemKind.UNREADABLE
OLD = ("set-0", UNREADABLE)
NONE = (None, None)
CASES: dict[str, tuple[list[Callable[[Path], object]], dict[bytes, tuple[str | None, ProblemKind | None]]]] = {
    "a file changed and was hidden": ([lambda s: hidden(s / "d/f")], {b"d/f": OLD}),
    "it stayed hidden": ([lambda s: hidden(s / "d/f"), lambda s: None], {b"d/f": OLD}),
    "it was shown again": ([lambda s: hidden(s / "d/f"), lambda s: (s / "d/f").chmod(0o644)], {}),
    "a directory was closed": (
        [closed, lambda s: None],
        dict.fromkeys((b"d", b"d/f", b"d/g", b"d/sub", b"d/sub/deep", b"d/sub/hard"), OLD),
    ),
    "a directory could only be listed": (
        [lambda s: (s / "d").chmod(0o704)],
        dict.fromkeys((b"d/f", b"d/g", b"d/sub", b"d/sub/deep", b"d/sub/hard"), OLD),
    ),
    "a deleted file came back hidden": ([lambda s: (s / "d/f").unlink(), lambda s: hidden(s / "d/f")], {b"d/f": NONE}),
    "a deleted directory came back closed": (
        [lambda s: (s / "d").rename(s.parent / "away"), lambda s: (s / "d").mkdir(mode=0o700)],
        {b"d": NONE},
    ),
    "a directory became a hidden file": ([became_hidden], {b"d/sub": NONE}),
    "a file became a closed directory": ([became_closed], {b"f": OLD}),
    "a closed directory was deleted": ([closed, lambda s: (s / "d").rename(s.parent / "away")], {}),
    "a closed directory was renamed": ([closed, lambda s: (s / "d").rename(s / "e")], {b"e": NONE}),
    "a hidden file moved along with its directory": (
        [lambda s: hidden(s / "d/f"), lambda s: (s / "d").rename(s / "e")],
        {b"e/f": NONE},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_level_could_not_read_is_as_an_older_one_has_it(open_plan: Plan, case: str) -> None:
    """In every way, and told with the reason; what was deleted in between does not come back."""
    changes, expected = CASES[case]
    three_levels(open_plan, *changes)
    back = open_plan.place / "back"
    back.mkdir()
    paths = [b"f", b"d", b"d/f", b"d/sub", b"d/sub/hard", b"e", b"e/f"]

    assert list(disagreements(open_plan.sets, back, paths)) == []

    assert shown(open_plan) == expected


def test_a_path_that_comes_from_an_older_level_is_told(open_plan: Plan) -> None:
    """In one sentence, however many there are; what could be read is not told."""
    three_levels(open_plan, lambda s: (hidden(s / "d/f"), hidden(s / "d/g")))

    def notes(*paths: bytes) -> tuple[str, ...]:
        target = open_plan.place / str(len(paths[0]))
        target.mkdir()
        return TarHandler().restore(open_plan.sets, target, paths, Quiet()).notes

    assert notes(b"f") == ()
    assert notes(b"d/f") == ("'d/f' is as set set-0 has it (unreadable since)",)
    assert notes(b"d/sub/deep", b"d/f", b"d/g") == (
        "'d/f' is as set set-0 has it (unreadable since), and 1 more are as older sets have them",
    )


def test_names_of_the_plan_that_could_not_be_read_agree_too(open_plan: Plan) -> None:
    """No directory's list tells of them."""
    open_plan.options["include"] = ("f", "d/f", "d/sub")
    three_levels(open_plan, lambda s: (hidden(s / "d/f"), (s / "d/sub").chmod(0o700)), lambda s: None)
    back = open_plan.place / "back"
    back.mkdir()

    assert list(disagreements(open_plan.sets, back, [b"f", b"d", b"d/f", b"d/sub", b"d/g"])) == []


def test_a_closed_directory_keeps_its_attributes(open_plan: Plan) -> None:
    """Until a level has it again, without them."""

    def opened(subject: Path) -> None:
        (subject / "d").chmod(0o755)
        os.removexattr(subject / "d", "user.colour")

    (open_plan.subject / "d").mkdir()
    os.setxattr(open_plan.subject / "d", "user.colour", b"blue")
    three_levels(open_plan, closed, lambda s: None, opened)

    attributes = []
    for level in range(4):
        target = open_plan.place / f"level {level}"
        whole = restored(open_plan.sets[: level + 1], target)
        attributes.append(dict(whole[b"d"].xattrs))

    assert attributes == [{b"user.colour": b"blue"}] * 3 + [{}]
