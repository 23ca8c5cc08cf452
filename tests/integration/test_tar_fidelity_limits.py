"""Where GNU tar or the kernel has a limit: what comes back all the same, and what is said of the rest."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.tools.codecs import Codec
from handlers.tools.removal import remove_below
from handlers.tools.tar.restore import restore_chain
from tests.workshop.comparer import below, differences, photograph
from tests.workshop.odd_attributes import access_list, named_user
from tests.workshop.odd_names import DEEP_NAME, at_depth
from tests.workshop.places import erase
from tests.workshop.stories import restore, restore_by_page
from tests.workshop.tar_levels import Plan, Recorder
from tests.workshop.tar_sets import Chain, Quiet, stored_set

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="devices need root")


@pytest.fixture
def subject(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, in which deep trees may be made."""
    place = tmp_path / "subject"
    place.mkdir()
    yield place
    for deep in tmp_path.iterdir():
        erase(deep)


def written(at: int, name: bytes) -> None:
    """A small file in an open directory."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at)
    os.write(descriptor, b"content of " + name)
    os.close(descriptor)


def test_a_path_that_is_too_long_only_together_with_its_target_comes_back(
    plan: Plan, subject: Path, tmp_path: Path
) -> None:
    """Restored, compared, restored alone, and removed again."""
    at_depth(subject, [DEEP_NAME] * 16, lambda at: written(at, b"first"))
    plan.back_up()
    at_depth(subject, [DEEP_NAME] * 16, lambda at: written(at, b"second"))
    plan.back_up()
    wanted = photograph(subject)
    deepest = max(wanted, key=len)
    room = tmp_path / ("t" * 200)
    room.mkdir()

    found = restore(plan, plan.sets, room / "whole")
    alone = restore(plan, plan.sets, room / "alone", deepest)

    assert len(os.fsencode(room)) + len(deepest) > 4096 > len(deepest)
    assert differences(wanted, found) == []
    assert list(plan.handler.compare(plan.sets, room / "whole", Recorder())) == []
    assert differences(below(wanted, deepest), below(alone, deepest)) == []
    remove_below(room)
    assert list(room.iterdir()) == []


def test_what_is_deeper_than_path_max_is_named_and_the_rest_comes_back(
    plan: Plan, subject: Path, tmp_path: Path
) -> None:
    """GNU tar cannot look into it with snapshots, so nobody is told that all is well."""
    (subject / "beside").write_text("beside")
    at_depth(subject, [DEEP_NAME] * 10, lambda at: written(at, b"reached"))
    at_depth(subject, [DEEP_NAME] * 20, lambda at: written(at, b"not reached"))

    plan.back_up()
    (subject / "new").write_text("new")
    produced = plan.back_up()

    found = restore(plan, plan.sets, tmp_path / "restored")
    wanted = photograph(subject)
    reached = {path: facts for path, facts in wanted.items() if path in found}
    missing = wanted.keys() - found.keys()
    assert differences(reached, found) == []
    assert min(map(len, missing)) > 4000
    assert max(map(len, missing)) > 4096
    assert {(problem.kind, problem.detail) for problem in produced.problems} == {
        (ProblemKind.UNREADABLE, "Cannot stat: File name too long")
    }
    named = {os.fsencode(problem.path) for problem in produced.problems}
    assert min(missing, key=len) in named <= missing


def test_what_is_deeper_than_path_max_comes_back_from_the_engine_without_levels(
    plan: Plan, subject: Path, tmp_path: Path
) -> None:
    """GNU tar could not unpack it: our own code does, with what GNU tar had done taken back first."""
    (subject / "beside").write_text("beside")
    at_depth(subject, [DEEP_NAME] * 20, lambda at: written(at, b"deep"))
    wanted = photograph(subject)
    deepest = max(wanted, key=len)

    produced = plan.back_up(engine="internal")

    assert produced.problems == ()
    assert differences(wanted, restore(plan, plan.sets, tmp_path / "whole")) == []
    assert list(plan.handler.compare(plan.sets, tmp_path / "whole", Recorder())) == []
    alone = restore(plan, plan.sets, tmp_path / "alone", deepest)
    assert differences(below(wanted, deepest), below(alone, deepest)) == []


@AS_ROOT
def test_linked_fifos_and_devices_come_back_as_one_each(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """GNU tar keeps links of regular files and symbolic links alone."""
    os.mkfifo(subject / "pipe")
    os.link(subject / "pipe", subject / "pipe too")
    os.mknod(subject / "null", 0o020666, os.makedev(1, 3))
    os.link(subject / "null", subject / "null too")
    plan.back_up()

    found = restore(plan, plan.sets, tmp_path / "restored")

    assert {(one.path, one.aspect) for one in differences(photograph(subject), found)} == {
        (path, "shares") for path in (b"pipe", b"pipe too", b"null", b"null too")
    }


@AS_ROOT
def test_access_lists_are_restored_by_number_where_names_mean_other_users(
    subject: Path, target: Path, tmp_path: Path
) -> None:
    """As all owners are. GNU tar alone would let in who has the name on this machine."""
    known = sorted(pwd.getpwall(), key=lambda user: len(user.pw_name))
    pairs = [
        (one, other)
        for one, other in pairwise(known)
        if len(one.pw_name) == len(other.pw_name) and one.pw_uid != other.pw_uid and one.pw_uid
    ]
    if not pairs:
        pytest.skip("needs two users with names of the same length")
    there, here = pairs[0]
    (subject / "d").mkdir()
    (subject / "d/f").write_text("f")
    for kind in ("access", "default"):
        access_list(subject / "d", kind, *named_user(there.pw_uid, 7))
    access_list(subject / "d/f", "access", *named_user(there.pw_uid, 6))
    chain = Chain(subject, tmp_path / "scratch", codec=Codec.NONE)
    archive = chain.back_up().content["data.tar"]
    name, other = (b"user:%s:" % user.pw_name.encode() for user in (there, here))
    assert archive.count(name) == 3

    restore_chain([stored_set(0, archive.replace(name, other), codec=Codec.NONE)], target, Quiet())

    assert differences(photograph(subject), photograph(target)) == []


def test_what_a_default_access_list_of_the_target_gives_is_taken_away_again(
    plan: Plan, subject: Path, tmp_path: Path
) -> None:
    """Restored files have the lists they had, and no others."""
    (subject / "d").mkdir()
    (subject / "d/f").write_text("f")
    (subject / "f").write_text("f")
    plan.back_up()
    for name in ("whole", "alone", "page"):
        (tmp_path / name).mkdir()
        access_list(tmp_path / name, "default", *named_user(12345, 7))

    plan.handler.restore(plan.sets, tmp_path / "whole", (), Recorder())
    plan.handler.restore(plan.sets, tmp_path / "alone", (b"d/f",), Recorder())
    restore_by_page(plan.sets[-1].directory, tmp_path / "page")

    wanted = photograph(subject)
    assert differences(wanted, photograph(tmp_path / "whole")) == []
    assert differences(wanted, photograph(tmp_path / "page")) == []
    assert differences(below(wanted, b"d"), below(photograph(tmp_path / "alone"), b"d")) == []


def test_a_file_shared_with_a_moved_directory_stays_one_file(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """Though the directory is archived whole and the other names have not changed: in, out, swapped, renamed."""
    for name in ("a", "b", "stays", "stays/deep"):
        (subject / name).mkdir()
    for number, place in enumerate(("a", "b")):
        (subject / place / "f").write_text(place)
        os.link(subject / place / "f", subject / "stays/deep" / f"link {number}")
    (tmp_path / "outside").mkdir()
    (subject / "stays/g").write_text("g")
    os.link(subject / "stays/g", tmp_path / "outside/g")
    plan.back_up()

    (subject / "a").rename(subject / "t")
    (subject / "b").rename(subject / "a")
    (subject / "t").rename(subject / "b")
    (tmp_path / "outside").rename(subject / "stays/deep/inside")
    plan.back_up()
    (subject / "b").rename(subject / "stays/deep/inside/b")
    plan.back_up()

    for way, found in (
        ("handler", restore(plan, plan.sets, tmp_path / "restored")),
        ("page", (restore_by_page(plan.sets[-1].directory, tmp_path / "page"), photograph(tmp_path / "page"))[1]),
    ):
        assert differences(photograph(subject), found) == [], way


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """An empty file system without extended attributes and access control lists."""
    place = tmp_path / "bare"
    place.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_what_the_file_system_of_the_target_cannot_hold_is_told(plan: Plan, subject: Path, bare: Path) -> None:
    """GNU tar calls that a success. Files without attributes give no warning."""
    (subject / "plain").write_text("plain")
    (subject / "f").write_text("f")
    os.setxattr(subject / "f", "user.key", b"value")
    (subject / "g").write_text("g")
    access_list(subject / "g", "access", *named_user(5, 7))
    plan.back_up()

    plain = plan.handler.restore(plan.sets, bare, (b"plain",), Recorder())
    attribute = plan.handler.restore(plan.sets, bare, (b"f",), Recorder())
    everything = plan.handler.restore(plan.sets, bare, (b"g", b"f"), Recorder())

    assert plain.warnings == ()
    assert [warning.split(", first: ")[0] for warning in (*attribute.warnings, *everything.warnings)] == [
        "1 extended attributes could not be set",
        "2 extended attributes could not be set",
    ]
    assert "'user.key'" in attribute.warnings[0]
    assert (bare / "f").read_text() == "f"


@pytest.mark.slow
def test_a_chain_of_nested_directories_is_as_deep_as_python_is_not(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """More directories below each other than Python calls functions; with a level that moves them."""
    at_depth(subject, [b"d"] * 1100, lambda at: written(at, b"deepest"))
    plan.back_up()
    (subject / "d").rename(subject / "e")
    plan.back_up()

    found = restore(plan, plan.sets, tmp_path / "restored")

    assert differences(photograph(subject), found) == []
    assert list(plan.handler.compare(plan.sets, tmp_path / "restored", Recorder())) == []
    subprocess.run(["rm", "-rf", plan.place], check=True)
