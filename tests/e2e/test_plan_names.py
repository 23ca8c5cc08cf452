"""Plans whose names are alike: what one of them does never touches another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.workshop import Workshop
from tests.workshop.tar_sets import tree_of

PLANS = ("web.prod", "web", "db", "db.2024")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A subject for each plan."""
    made = Workshop(tmp_path)
    lines = []
    for plan in set(PLANS) - {"web"}:
        (tmp_path / f"of {plan}").mkdir()
        lines.append(f"  {plan}: {{handler: tar, options: {{root: '{tmp_path}/of {plan}'}}}}\n")
    made.configure("".join(lines))
    return made


def subject_of(workshop: Workshop, plan: str) -> Path:
    """What a plan backs up."""
    return workshop.subject if plan == "web" else workshop.top / f"of {plan}"


def test_plans_of_similar_names_have_chains_of_their_own(workshop: Workshop) -> None:
    """Levels of all of them in turn, a full backup of one in between, and each restores to its own last state."""
    levels: dict[str, list[int]] = {plan: [] for plan in PLANS}
    for turn in range(2):
        for plan in PLANS:
            (subject_of(workshop, plan) / f"turn-{turn}").write_text(f"{plan} {turn}")
            wanted = ["--level", "full"] if (plan, turn) == ("web", 1) else []
            [*_, outcome] = workshop.lines("backup", plan, *wanted)
            levels[plan].append(outcome["level"])

    assert levels == {"web.prod": [0, 1], "web": [0, 0], "db": [0, 1], "db.2024": [0, 1]}
    for plan in PLANS:
        target = workshop.top / f"restored {plan}"
        done = workshop.run("restore", plan, str(target))
        assert done.returncode == 0, done.stderr
        assert tree_of(target) == tree_of(subject_of(workshop, plan))
        assert len(list((workshop.store / plan).glob("*/manifest.json"))) == 2
