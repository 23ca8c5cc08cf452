"""Trees of oddities that were backed up, changed, backed up again, and brought back in every way there is."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers.contract import Difference as Listed
from handlers.contract import SetReader
from tests.workshop.comparer import Photograph, photograph
from tests.workshop.oddities import ODDITIES
from tests.workshop.places import Unheld
from tests.workshop.tar_levels import Plan, Recorder

NOBODY = 65534


@dataclass(slots=True, kw_only=True)
class Story:
    """What was there, and what came back."""

    subjects: list[Photograph] = field(default_factory=list)
    """As they were at each level."""
    by_handler: list[Photograph] = field(default_factory=list)
    by_page: list[Photograph] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)
    """What the handler's own comparison has to say."""
    chosen: Mapping[bytes, Photograph] = field(default_factory=dict)
    """Single paths of the last level, and what came back when they were asked for."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    unheld: Mapping[str, str] = field(default_factory=dict)
    """What the file system could not hold, by kind of files."""


def commands(directory: Path) -> list[str]:
    """The shell blocks of the page of a set."""
    return re.findall(r"```sh\n(.*?)```", (directory / "RESTORE.md").read_text(), re.DOTALL)


def restore_by_page(directory: Path, target: Path) -> None:
    """The first two blocks of the set's page, as they stand: the check, then everything. Fails if GNU tar complains."""
    check, whole, *_ = commands(directory)
    if os.geteuid() != 0:
        whole = _without_root(whole, directory)
    done = subprocess.run(
        ["sh", "-eu", "-c", check + whole],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "TARGET": str(target)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def _without_root(whole: str, directory: Path) -> str:
    """The commands with what the page says besides."""
    first, *further = whole.replace(" --xattrs-include='*'", "").split(" || exit\n")[:-1]
    let_in = re.findall(r"`(find [^`]*)`", (directory / "RESTORE.md").read_text())
    return "\n".join([f"{first} || exit", *(f"{let_in[0]}\n{level} || exit" for level in further)])


def restore(plan: Plan, chain: Sequence[SetReader], target: Path, *paths: bytes) -> Photograph:
    """What the handler brings back."""
    target.mkdir()
    plan.handler.restore(chain, target, paths, Recorder())
    return photograph(target)


def tell(place: Path, kinds: Iterable[str], *, each_alone: bool, levels: int = 2, **options: Any) -> Story:
    """Make these oddities, one or two levels of them, and bring them back; single paths each alone, or all at once."""
    story = Story()
    subject, store = place / "subject", place / "store"
    subject.mkdir()
    store.mkdir()
    plan = Plan(store, subject, **options)
    unheld: dict[str, str] = {}
    for level in range(levels):
        for name in kinds:
            try:
                if level:
                    ODDITIES[name].change(subject / name)
                else:
                    (subject / name).mkdir()
                    ODDITIES[name].make(subject / name)
            except Unheld as error:
                unheld[name] = str(error)
        story.subjects.append(photograph(subject))
        produced = plan.back_up()
        story.problems += [(problem.path, problem.detail) for problem in produced.problems]
        # A photograph reads, and must not have changed what is backed up next.
        story.by_handler.append(restore(plan, plan.sets, place / f"handler {level}"))
        story.listed += plan.handler.compare(plan.sets, place / f"handler {level}", Recorder())
        restore_by_page(plan.sets[-1].directory, place / f"page {level}")
        story.by_page.append(photograph(place / f"page {level}"))
    story.unheld = unheld
    chosen = _chosen(story.subjects[-1])
    if each_alone:
        chosen = chosen[::2]
        story.chosen = {
            path: restore(plan, plan.sets, place / f"alone {number}", path) for number, path in enumerate(chosen)
        }
    else:
        story.chosen = dict.fromkeys(chosen, restore(plan, plan.sets, place / "together", *chosen))
    return story


def _chosen(tree: Photograph) -> list[bytes]:
    """Two files of each kind."""
    chosen = []
    for kind in sorted(path for path in tree if b"/" not in path and path != b"."):
        files = sorted(path for path in tree if path.startswith(kind + b"/") and tree[path].type != "d")
        chosen += [files[len(files) // 2], files[-1]]
    return chosen


def tell_as_nobody(place: Path, kinds: Iterable[str]) -> Story:
    """The same by another user, who is nobody; needs root. The directories above place are opened for all to enter."""
    place.chmod(0o777)
    for above in list(place.parents)[:-2]:
        above.chmod(above.stat().st_mode | 0o011)
    written = place / "story"
    script = f"from {__name__} import _as_nobody; _as_nobody({os.fspath(place)!r}, {[*kinds]})"
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=Path(__file__).parents[2])
    story = pickle.loads(written.read_bytes())
    assert isinstance(story, Story)
    return story


def _as_nobody(place: str, kinds: Sequence[str]) -> None:
    # What is imported late by others: nobody may not be let into the directory of this Python.
    importlib.import_module("handlers.tools.tar.restore")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    if not os.access(sys.executable, os.X_OK):
        sys.executable = "/usr/bin/python3"
    (Path(place) / "story").write_bytes(pickle.dumps(tell(Path(place), kinds, each_alone=True)))
