"""Indicators on a peer, by a real ssh server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.errors import PermanentError
from handlers.tools.remote.connection import shared
from handlers.tools.remote.marks import Mark, Marked, look_at_indicator, write_mark
from handlers.tools.remote.shell import NoShellThere
from handlers.tools.remote.ssh import Ssh
from tests.services.sshd import Sshd
from tests.workshop.another_user import NOBODY, needs_another_user
from tests.workshop.peers import HOSTILE_DIRECTORY, busybox

COLLECT = "-e $(touch pwned) cback.collect"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A peer's directory, complete, with a name that no shell may read."""
    place = tmp_path / HOSTILE_DIRECTORY
    place.mkdir()
    (place / COLLECT).touch()
    return place


@pytest.fixture(scope="module", params=["gnu", "busybox"])
def ssh(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Ssh]:
    """How the peer is reached, with the programs of one system or the other; by one connection, for speed."""
    here = sshd.ssh()
    if request.param == "busybox":
        here = replace(here, identity_file=sshd.limited(busybox(tmp_path_factory.mktemp("marks") / "busybox")))
    with shared(here) as ssh:
        yield ssh


def write(ssh: Ssh, directory: Path, identity: object, **mark: object) -> Marked:
    return write_mark(
        ssh,
        os.fsencode(directory),
        Mark(**{"name": "cback.stage", **mark}),
        indicator=COLLECT,
        identity=identity,
    )


def test_mark_is_written_while_the_indicator_is_the_same(ssh: Ssh, directory: Path) -> None:
    """With the content and mode that were asked for, and nothing else beside it; again is as good as once."""
    identity = look_at_indicator(ssh, os.fsencode(directory), COLLECT)

    assert identity == look_at_indicator(ssh, os.fsencode(directory), COLLECT)
    assert write(ssh, directory, identity, content=b"set 1\n", mode=0o640) is Marked.WRITTEN
    assert write(ssh, directory, identity, content=b"set 1\n", mode=0o640) is Marked.WRITTEN
    assert (directory / "cback.stage").read_bytes() == b"set 1\n"
    assert (directory / "cback.stage").stat().st_mode & 0o7777 == 0o640
    assert {path.name for path in directory.iterdir()} == {COLLECT, "cback.stage"}


@pytest.mark.parametrize("change", ["touched", "replaced", "written"])
def test_mark_is_not_written_for_another_indicator(ssh: Ssh, directory: Path, change: str) -> None:
    """The peer has collected anew: what it has now is not what was staged."""
    identity = look_at_indicator(ssh, os.fsencode(directory), COLLECT)
    indicator = directory / COLLECT

    if change == "touched":
        os.utime(indicator, ns=(0, indicator.stat().st_mtime_ns + 1_000_000_000))
    elif change == "replaced":
        (directory / "new").touch()
        (directory / "new").replace(indicator)
    else:
        indicator.write_text("second run")

    assert write(ssh, directory, identity) is Marked.CHANGED
    assert not (directory / "cback.stage").exists()


def test_missing_indicator_is_no_error(ssh: Ssh, directory: Path) -> None:
    """The peer is not ready, or has tidied up."""
    identity = look_at_indicator(ssh, os.fsencode(directory), COLLECT)
    (directory / COLLECT).unlink()

    assert look_at_indicator(ssh, os.fsencode(directory), COLLECT) is None
    assert write(ssh, directory, identity) is Marked.GONE


def test_directory_is_no_indicator(sshd: Sshd, directory: Path) -> None:
    """Only a file is one."""
    (directory / "cback.collect").mkdir()

    assert look_at_indicator(sshd.ssh(), os.fsencode(directory), "cback.collect") is None


def test_missing_directory_is_an_error_to_look_at(sshd: Sshd, tmp_path: Path) -> None:
    """A name that was mistyped would else look like a peer that is never ready."""
    with pytest.raises(PermanentError, match="not there, or cannot be entered"):
        look_at_indicator(sshd.ssh(), os.fsencode(tmp_path / "gone"), COLLECT)


def test_mark_that_cannot_be_written_is_an_error(ssh: Ssh, directory: Path) -> None:
    """A directory in its place, an owner that is not known there."""
    identity = look_at_indicator(ssh, os.fsencode(directory), COLLECT)

    with pytest.raises(PermanentError, match=r"cannot write cback\.stage: .*no-such-user"):
        write(ssh, directory, identity, owner="no-such-user")
    assert [path.name for path in directory.iterdir()] == [COLLECT]
    (directory / "cback.stage").mkdir()
    with pytest.raises(PermanentError, match=r"cback\.stage is a directory"):
        write(ssh, directory, identity)
    assert list((directory / "cback.stage").iterdir()) == []


def test_mark_takes_the_place_of_a_link(ssh: Ssh, directory: Path, tmp_path: Path) -> None:
    """What a link points to is not written to."""
    (tmp_path / "victim").write_text("mine")
    (directory / "cback.stage").symlink_to(tmp_path / "victim")
    identity = look_at_indicator(ssh, os.fsencode(directory), COLLECT)

    assert write(ssh, directory, identity, content=b"set 1") is Marked.WRITTEN
    assert (tmp_path / "victim").read_text() == "mine"
    assert (directory / "cback.stage").read_text() == "set 1"


@needs_another_user
def test_mark_gets_its_owner(ssh: Ssh, directory: Path) -> None:
    """Numbers do where names are not known."""
    identity = look_at_indicator(ssh, os.fsencode(directory), COLLECT)

    assert write(ssh, directory, identity, owner=f"{NOBODY}:{NOBODY}") is Marked.WRITTEN
    found = (directory / "cback.stage").stat()
    assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)


def test_peer_without_a_shell_is_told_as_such(sshd: Sshd, directory: Path) -> None:
    """With a forced command nobody can look."""
    key = sshd.forced("cat >/dev/null")

    with pytest.raises(NoShellThere):
        look_at_indicator(sshd.ssh(identity_file=key), os.fsencode(directory), COLLECT)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_impossible_names_are_refused(sshd: Sshd, directory: Path, name: str) -> None:
    """A mark is a file in the directory, nowhere else."""
    with pytest.raises(PermanentError, match="not the name of a file"):
        look_at_indicator(sshd.ssh(), os.fsencode(directory), name)
    with pytest.raises(PermanentError, match="not the name of a file"):
        Mark(name=name)
