"""Files, lists and attributes that real GNU tar cannot read, as on a bad disk; and types it does not know."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from handlers.contract import ProblemKind, Produced
from tests.workshop.bad_disk import BadDisk, needs_compiler
from tests.workshop.tar_levels import Plan, listed, unpacked
from tests.workshop.tar_sets import tree_of

pytestmark = needs_compiler


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BadDisk:
    """Good to begin with."""
    return BadDisk(tmp_path / "disk", monkeypatch)


def said_of(produced: Produced) -> list[tuple[str, str, str]]:
    """Each problem."""
    return [(problem.kind.value, problem.path, problem.detail) for problem in produced.problems]


def require_healed(plan: Plan, subject: Path) -> None:
    """The next level has all that was lost, although no time has changed."""
    assert plan.back_up().problems == ()
    assert tree_of(unpacked(plan)) == tree_of(subject)


@pytest.mark.parametrize("level", [0, 1])
def test_a_file_with_a_bad_block_is_a_loss_and_comes_again(
    plan: Plan, subject: Path, disk: BadDisk, level: int
) -> None:
    """In the archive it is filled up with zeros, which is no backup of it."""
    (subject / "d/bad").write_bytes(b"x" * 100_000)
    if level:
        plan.back_up()
        (subject / "d/bad").write_bytes(b"y" * 100_000)
    disk.fail(read="d/bad")

    produced = plan.back_up()

    assert produced.problem_counts == {ProblemKind.UNREADABLE: 1}
    [(_, path, detail)] = said_of(produced)
    assert path == "d/bad"
    assert detail.startswith("Read error at byte ")
    assert detail.endswith("Input/output error")
    disk.fail()
    require_healed(plan, subject)
    assert listed(plan) == ["d/bad"]


@pytest.mark.parametrize("level", [0, 1])
def test_a_directory_whose_list_is_cut_short_is_a_loss_and_comes_again(
    plan: Plan, subject: Path, disk: BadDisk, level: int
) -> None:
    """What tar notes of it is the list of an older level: nothing may be concluded from that."""
    if level:
        plan.back_up()
        (subject / "d/a").write_text("changed")
        (subject / "d/sub/deep").write_text("changed")
        (subject / "d/sub/new").write_text("new")
    disk.fail(list="subject/d")

    produced = plan.back_up()

    assert produced.problem_counts == {ProblemKind.UNREADABLE: 1}
    assert said_of(produced)[0][1] == "d"
    disk.fail()
    between = plan.place / "between"
    between.mkdir()
    plan.handler.restore(plan.sets, between, (), plan.control)
    require_healed(plan, subject)


@pytest.mark.parametrize("what", ["xattr", "acl"])
@pytest.mark.parametrize("level", [0, 1])
def test_attributes_that_cannot_be_read_are_a_loss_and_come_again(
    plan: Plan, subject: Path, disk: BadDisk, what: str, level: int
) -> None:
    """A restored file without its access list is not what was asked for."""
    if level:
        plan.back_up()
    os.setxattr(subject / "d/a", "user.key", b"value")
    subprocess.run(["setfacl", "-m", "u:1234:r", subject / "d/a"], check=True)
    disk.fail(**{what: "/a"})

    produced = plan.back_up()

    # GNU tar 1.34 tells a file's bare name here.
    assert [(kind, path) for kind, path, _ in said_of(produced)] == [("other", "a")]
    assert ProblemKind.OTHER.is_loss
    disk.fail()
    require_healed(plan, subject)
    assert listed(plan) == ["d/a"]


@pytest.mark.parametrize("level", [0, 1])
def test_a_type_that_tar_does_not_know_is_named_and_no_loss(
    plan: Plan, subject: Path, disk: BadDisk, level: int
) -> None:
    """As with a socket there is nothing in it to be archived."""
    if level:
        plan.back_up()
    (subject / "d/odd").write_text("x")
    disk.fail(type="odd")

    produced = plan.back_up()

    assert said_of(produced) == [("unknown_type", "d/odd", "Unknown file type; file ignored")]
    assert not ProblemKind.UNKNOWN_TYPE.is_loss
