"""What the pages say is true."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.workshop.workers import HOLDFAST
from worker.lifecycle import LEGAL_MOVES, State, next_step

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])


def test_table_of_states_is_the_one_in_the_code() -> None:
    """docs/architecture.md shows `worker/lifecycle.py`."""
    page = (DOCS / "architecture.md").read_text()

    rows = {
        row[1]: (row[2], set(re.findall(r"\w+", row[3])))
        for row in re.finditer(r"^\| (\w+) \| (\w+) \| ([\w, ]*)\|$", page, re.MULTILINE)
        if row[1] in set(State)
    }

    assert rows == {
        state.value: (next_step(state).value, {move.value for move in LEGAL_MOVES[state]}) for state in State
    }


@pytest.mark.parametrize("name", ["guarantees.md", "migrating/autoarchive.md", "migrating/cedar-backup3.md"])
def test_pages_name_tests_that_exist(name: str) -> None:
    """A promise is only as good as the test behind it."""
    page = (DOCS / name).read_text()
    named = re.findall(r"`([a-z0-9_]+/test_\w+\.py)(?:::(\w+))?`|`::(\w+)`", page)
    missing = []
    file = ""

    for path, test, also in named:
        file = path or file
        source = ROOT / "tests" / file
        if not source.exists() or ((test or also) and f"def {test or also}(" not in source.read_text()):
            missing.append(f"{file}::{test or also}")

    assert len(named) > 10
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Between pages, and to headings in them."""
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[\w-]*)?\)", page.read_text()):
        if target and not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_files_that_the_architecture_names_exist() -> None:
    """A newcomer follows them."""
    named = re.findall(r"`((?:worker|handlers|config)/[\w/]+\.py)`", (DOCS / "architecture.md").read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "docs/migrating/autoarchive.md", "docs/migrating/cedar-backup3.md"])
def test_configuration_on_a_page_is_one(page: str, tmp_path: Path) -> None:
    """`holdfast config check` takes it."""
    text = re.search(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert text is not None
    config = tmp_path / "config.yaml"
    config.write_text(text[1])

    done = subprocess.run([HOLDFAST, "--config", config, "config", "check"], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_our_packages_belong_to_us_alone() -> None:
    """A package of the same name would silently replace ours."""
    owners = packages_distributions()

    assert {name: set(owners[name]) for name in ("config", "handlers", "worker")} == {
        name: {"holdfast"} for name in ("config", "handlers", "worker")
    }
