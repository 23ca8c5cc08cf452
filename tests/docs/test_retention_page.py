"""The example on the page about retention is what the program decides."""

from __future__ import annotations

import re
from pathlib import Path

from tests.workshop.retained import read_case

ROOT = Path(__file__).parents[2]


def test_example_of_the_page_is_decided_as_it_says() -> None:
    """Each set with its day, its verdict, and the rules that want it."""
    page = (ROOT / "docs" / "retention.md").read_text()
    case = read_case((ROOT / "tests" / "unit" / "samples" / "retention" / "grandfather.txt").read_text())

    told = re.findall(r"^\| (s\d+) \| (\w+ [\d-]+) \| (\w+) \| (.*?) ?\|$", page, re.MULTILINE)

    decided = []
    for verdict in case.verdicts():
        rules = {reason.split(":")[0] for reason in verdict.reasons if verdict.keep} - {"newest complete set"}
        day = f"{verdict.manifest.finished.astimezone(case.now.tzinfo):%a %Y-%m-%d}"
        decided.append((verdict.manifest.backup_id, day, "stays" if verdict.keep else "goes", rules))
    assert [(*row[:3], set(re.findall(r"[a-z]+ly", row[3]))) for row in told] == decided
