"""Restoring where there is no GNU tar; what comes back is compared by code that shares nothing with ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from handlers.errors import IntegrityError, PermanentError, TemporaryError
from handlers.tools.tar.unpack import unpack
from tests.faults.small_disk import small_disk
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.comparer import OWNERS, below, differences, photograph
from tests.workshop.furnished import furnish
from tests.workshop.tar_levels import Plan, Recorder
from tests.workshop.tar_sets import archive_of, directory, member


def without_tar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on there is no program at all."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.parametrize("engine", ["gnu", "internal"])
def test_a_full_backup_comes_back_whole(
    plan: Plan, subject: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """Whichever engine made it: types, modes, owners, times, contents, holes, attributes, access lists, links."""
    furnish(subject)
    plan.back_up(engine=engine)
    without_tar(monkeypatch, tmp_path)

    restored = plan.handler.restore(plan.sets, target, [], plan.control)

    assert differences(photograph(subject), photograph(target)) == []
    assert list(plan.handler.compare(plan.sets, target, plan.control)) == []
    assert restored.files == len(photograph(subject))


def test_a_tree_deeper_than_the_longest_path_comes_back(
    plan: Plan, subject: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No path is ever put together."""
    at = os.open(subject, os.O_RDONLY)
    for _ in range(120):
        os.mkdir("n" * 100, dir_fd=at)
        above, at = at, os.open("n" * 100, os.O_RDONLY, dir_fd=at)
        os.close(above)
    with os.fdopen(os.open("deepest", os.O_WRONLY | os.O_CREAT, dir_fd=at), "wb") as file:
        file.write(b"deepest")
    os.link("deepest", "twice", src_dir_fd=at, dst_dir_fd=at)
    os.close(at)
    plan.back_up(engine="internal")
    without_tar(monkeypatch, tmp_path)

    plan.handler.restore(plan.sets, target, [], plan.control)

    assert differences(photograph(subject), photograph(target)) == []
    for place in (subject, target):
        subprocess.run(["/bin/rm", "-rf", place], check=True)


def test_what_the_plan_names_comes_back_without_the_rest(
    plan: Plan, subject: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directories above are no members of the archive, and are made."""
    plan.back_up(include=("d/sub", "plain"))
    without_tar(monkeypatch, tmp_path)

    plan.handler.restore(plan.sets, target, [], plan.control)

    expected = photograph(subject)
    assert (
        differences(
            {path: expected[path] for path in (b"d/sub", b"d/sub/deep", b"plain")},
            {path: facts for path, facts in photograph(target).items() if path not in {b".", b"d"}},
        )
        == []
    )


def test_single_paths_of_a_chain_come_back(
    plan: Plan, subject: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the level that has them."""
    plan.back_up()
    (subject / "d" / "new").write_text("new")
    plan.back_up()
    without_tar(monkeypatch, tmp_path)

    plan.handler.restore(plan.sets, target, [b"d"], plan.control)

    assert (target / "d" / "new").read_text() == "new"
    here, there = below(photograph(subject), b"d"), below(photograph(target), b"d")
    assert [difference for difference in differences(here, there) if difference.path != b"."] == []


def test_a_chain_takes_gnu_tar(
    plan: Plan, subject: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, and the hint says what to do."""
    plan.back_up()
    plan.back_up()
    without_tar(monkeypatch, tmp_path)

    with pytest.raises(PermanentError, match="a chain of levels takes GNU tar to be restored") as refused:
        plan.handler.restore(plan.sets, target, [], plan.control)

    assert refused.value.hint is not None
    assert "install GNU tar" in refused.value.hint
    assert list(target.iterdir()) == []


HOSTILE = {
    "through a link": [member(b"./l", b"2", link=b"/tmp"), member(b"./l/x", content=b"x")],
    "over a link": [member(b"./l", b"2", link=b"/tmp/x"), member(b"./l", content=b"x")],
    "a directory over a link": [member(b"./l", b"2", link=b"/tmp"), directory(b"./l/")],
    "a hard link through a link": [member(b"./l", b"2", link=b"/etc"), member(b"./h", b"1", link=b"./l/passwd")],
    "twice": [member(b"./x", content=b"1"), member(b"./x", content=b"2")],
    "below a file": [member(b"./x", content=b"1"), member(b"./x/y", content=b"2")],
    "upwards": [member(b"./../x", content=b"1")],
    "absolute": [member(b"/tmp/x", content=b"1")],
    "a wrong time": [member(b"./x", pax=[(b"mtime", b"yesterday")])],
    "a wrong access list": [member(b"./x", pax=[(b"SCHILY.acl.access", b"everybody:rwx")])],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(target: Path, name: str) -> None:
    """Even without the guard before it: no name leads out of the target, and nothing is replaced."""
    with pytest.raises(IntegrityError):
        unpack(iter([archive_of(directory(b"./"), *HOSTILE[name])]), target, Recorder(), lambda *_: None)

    assert [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()] in (
        [],
        [target / "x"],
    )


def test_a_full_disk_is_a_passing_trouble(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """With a hint to make room."""
    (subject / "large").write_bytes(os.urandom(1 << 20))
    plan.back_up()

    with small_disk(tmp_path / "small", kibibytes=512) as small, pytest.MonkeyPatch.context() as patched:
        without_tar(patched, tmp_path)
        with pytest.raises(TemporaryError, match="no room for what is restored"):
            plan.handler.restore(plan.sets, small, [], plan.control)


def test_attributes_that_do_not_fit_are_told(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """The rest is restored all the same; the file system here has none."""
    os.setxattr(subject / "plain", "user.key", b"value")
    os.setxattr(subject / "d", "user.other", b"value")
    plan.back_up()
    place = tmp_path / "bare"
    place.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", place], capture_output=True).returncode:
        pytest.skip("needs a file system without extended attributes")

    try:
        with pytest.MonkeyPatch.context() as patched:
            without_tar(patched, tmp_path)
            restored = plan.handler.restore(plan.sets, place, [], plan.control)
        found = photograph(place)
    finally:
        subprocess.run(["umount", place], check=True)

    assert restored.warnings == (
        "2 extended attributes could not be set, first: 'user.key' of plain: Operation not supported",
    )
    assert differences(photograph(subject), found, without=frozenset({"xattrs"})) == []


@needs_another_user
def test_a_user_without_rights_gets_what_a_user_may_have(
    subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents, modes, times, own attributes and access lists; not owners."""
    os.chown(subject / "plain", 1234, 1234)
    os.setxattr(subject / "plain", "user.key", b"value")
    os.setxattr(subject / "plain", "trusted.key", b"value")
    (subject / "d" / "sub").chmod(0o555)
    with open_directory() as place:
        (place / "store").mkdir()
        plan = Plan(place / "store", subject)
        plan.back_up()
        without_tar(monkeypatch, tmp_path)
        with nobody():
            (place / "target").mkdir()
            plan.handler.restore(plan.sets, place / "target", [], plan.control)
        found = photograph(place / "target")

    os.removexattr(subject / "plain", "trusted.key")
    assert differences(photograph(subject), found, without=OWNERS) == []
