"""What the names and patterns of a plan bring into an archive, with real GNU tar."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import PermanentError
from handlers.tar_level import TarHandler
from tests.workshop.tar_levels import Plan, listed, unpacked
from tests.workshop.tar_sets import tree_of

HOSTILE = (
    b"--checkpoint-action=exec=touch pwned",
    b"--checkpoint=1",
    b"-dash",
    b"-T",
    b"--files-from=names",
    b"10:30",
    b"new\nline",
    b"bad\377\376",
    b"quo\"te'",
    b"back\\slash\\n",
    b"a[1]",
    b"a1",
    b"* ?",
    b" ",
    b"~",
    b"@file",
    "ümläut".encode(),
    b"x" * 255,
)


@pytest.mark.parametrize("named", [False, True], ids=["found", "included"])
def test_hostile_names_are_names(plan: Plan, subject: Path, named: bool) -> None:
    """Found in the tree or given by the plan, no name becomes an option or a pattern."""
    for name in HOSTILE:
        (Path(os.fsdecode(os.fsencode(subject) + b"/" + name))).write_bytes(name)
    included = [name.decode() for name in HOSTILE if name != b"a1" and b"\377" not in name]

    plan.back_up(include=tuple(included) if named else (".",))

    expected = tree_of(subject)
    if named:
        expected = {os.fsencode(name): expected[os.fsencode(name)] for name in included}
    found = tree_of(unpacked(plan))
    assert {name: found[name] for name in found if name != b"." or not named} == expected
    assert not list(Path.cwd().glob("pwned"))


def test_only_what_is_included_is_archived(plan: Plan, subject: Path) -> None:
    """Below the names of the plan everything, elsewhere nothing, level after level."""
    (subject / "other").mkdir()
    (subject / "other" / "x").write_text("x")
    plan.back_up(include=("d/sub", "plain"))
    assert listed(plan) == ["d/sub/deep", "plain"]
    (subject / "d" / "sub" / "more").write_text("more")
    (subject / "other" / "y").write_text("y")

    plan.back_up(include=("d/sub", "plain"))

    assert listed(plan) == ["d/sub/more"]


TREE = (
    "foo",
    "d/foo",
    "d/foobar",
    "d/x.log",
    "top.log",
    "a[1]",
    "a1",
    "cache/c",
    "d/cache/c",
    "build/keep/obj/1.o",
    "build/obj/2.o",
    "star*",
    "starfish",
)


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("foo", {"foo", "d/foo"}),
        ("/foo", {"foo"}),
        ("d/foo", {"d/foo"}),
        ("*.log", {"d/x.log", "top.log"}),
        ("/*.log", {"top.log"}),
        ("fo?", {"foo", "d/foo"}),
        (r"a\[1]", {"a[1]"}),
        ("a[1]", {"a1"}),
        (r"star\*", {"star*"}),
        ("star*", {"star*", "starfish"}),
        ("cache", {"cache/c", "d/cache/c"}),
        ("/cache/", {"cache/c"}),
        ("/d/cache", {"d/cache/c"}),
        ("build/*/1.o", set()),
        ("build/**/1.o", {"build/keep/obj/1.o"}),
        ("build/**/2.o", {"build/obj/2.o"}),
        ("build/**/obj", {"build/keep/obj/1.o", "build/obj/2.o"}),
        ("oo", set()),
        ("subject", set()),
    ],
)
def test_a_pattern_leaves_out_what_its_description_says(
    plan: Plan, subject: Path, pattern: str, gone: set[str]
) -> None:
    """A leading slash stands for root; otherwise a pattern matches whole names at any depth."""
    shutil.rmtree(subject)
    for name in TREE:
        (subject / name).parent.mkdir(parents=True, exist_ok=True)
        (subject / name).write_text(name)

    produced = plan.back_up(exclude=(pattern,))

    assert set(listed(plan)) == set(TREE) - gone
    assert produced.excluded == (pattern,)


def test_a_trailing_slash_keeps_the_directory_itself(plan: Plan, subject: Path) -> None:
    """An excluded cache comes back empty, so that the application finds it."""
    plan.back_up(exclude=("sub/",))

    target = unpacked(plan)
    assert (target / "d" / "sub").is_dir()
    assert list((target / "d" / "sub").iterdir()) == []


def test_patterns_that_leave_nothing_are_an_error(plan: Plan, subject: Path) -> None:
    """An empty archive is not a backup of anything."""
    with pytest.raises(PermanentError, match="nothing to back up"):
        plan.back_up(include=("d",), exclude=("/d",))


def test_an_empty_subject_is_backed_up(plan: Plan, subject: Path) -> None:
    """A directory without files is a fine subject: the directory is the member."""
    shutil.rmtree(subject)
    subject.mkdir()

    assert plan.back_up().files == 1


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_subject_that_is_no_directory_is_refused_before_anything_runs(plan: Plan, subject: Path, kind: str) -> None:
    """A mistyped or unmounted root never becomes an empty success."""
    shutil.rmtree(subject)
    if kind == "file":
        subject.write_text("x")

    with pytest.raises(PermanentError, match=str(subject)):
        plan.handler.prepare(plan.job())

    assert len(plan.handler.check(TarHandler.Options(root=subject))) == 1


def test_names_of_which_none_is_there_are_refused(plan: Plan) -> None:
    """All that the plan names is missing."""
    with pytest.raises(PermanentError, match="nothing to back up"):
        plan.back_up(include=("nope", "d/nope"))


def test_a_name_that_is_missing_makes_the_backup_partial(plan: Plan) -> None:
    """The plan asked for it, so its absence is a loss; the rest is kept."""
    produced = plan.back_up(include=("nope", "plain"))

    assert listed(plan) == ["plain"]
    assert [(problem.kind, problem.path) for problem in produced.problems] == [(ProblemKind.UNREADABLE, "nope")]
