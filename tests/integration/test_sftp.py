"""Copies by sftp and by programs like rcp, for peers without rsync; a real ssh server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import PermanentError, TemporaryError
from handlers.tools import confine
from handlers.tools.remote.listing import list_remote
from handlers.tools.remote.rcp import copy_with_rcp, scp_command
from handlers.tools.remote.rsync import Source, copy_with_rsync
from handlers.tools.remote.sftp import copy_with_sftp
from tests.faults.small_disk import small_disk
from tests.services.sshd import Sshd
from tests.workshop.another_user import NOBODY, needs_another_user, open_directory
from tests.workshop.peers import HOSTILE_DIRECTORY, HOSTILE_NAMES, files_below, fill, keys_of_nobody

UNSAYABLE = {name for name in HOSTILE_NAMES if b"\n" in name or b"\r" in name}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What is copied from, with a name and files that no shell may read."""
    place = tmp_path / HOSTILE_DIRECTORY
    place.mkdir()
    return place


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """What is copied from, with a name that any program takes."""
    place = tmp_path / "plain"
    place.mkdir()
    return place


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What is copied to."""
    place = tmp_path / "it's a target"
    place.mkdir()
    return place


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A server that a test may ill-treat."""
    server = Sshd(tmp_path / "own")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_names_asked_for_are_copied_whatever_they_are(sshd: Sshd, directory: Path, target: Path) -> None:
    """All but those with a line end, which are problems: a batch has one command in a line."""
    written = fill(directory)
    (directory / "plain").touch()
    (directory / "-e sh").chmod(0o4750)
    os.utime(directory / "-e sh", (0, 1_234_567_890))

    copied = copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, HOSTILE_NAMES)

    assert {problem.path for problem in copied.problems} == UNSAYABLE
    assert files_below(target) == {name: written[name] for name in written if name not in UNSAYABLE}
    assert copied.files == len(written) - len(UNSAYABLE)
    assert int((target / "-e sh").stat().st_mtime) == 1_234_567_890
    assert (target / "-e sh").stat().st_mode & 0o7777 == 0o750


def test_what_cannot_be_had_is_a_problem_with_a_kind(sshd: Sshd, directory: Path, target: Path) -> None:
    """All the rest is there."""
    fill(directory, (b"a", b"ab", b"z"))
    os.mkfifo(directory / "fifo")
    (directory / "sub").mkdir()

    copied = copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, [b"a", b"gone", b"fifo", b"sub", b"z"])

    assert {(problem.path, problem.kind) for problem in copied.problems} == {
        (b"gone", ProblemKind.VANISHED),
        (b"fifo", ProblemKind.UNKNOWN_TYPE),
        (b"sub", ProblemKind.UNKNOWN_TYPE),
    }
    assert set(files_below(target)) == {b"a", b"z"}


def test_file_that_was_cut_is_resumed(sshd: Sshd, directory: Path, target: Path) -> None:
    """Only where asked for: what is there is taken for its beginning."""
    (directory / "sub").mkdir()
    (directory / "sub" / "big").write_bytes(b"0123456789")
    (target / "sub").mkdir()
    (target / "sub" / "big").write_bytes(b"mine")

    copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, [b"sub/big"], resume=True)
    assert (target / "sub" / "big").read_bytes() == b"mine456789"
    copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, [b"sub/big"])
    assert (target / "sub" / "big").read_bytes() == b"0123456789"


@pytest.mark.parametrize(("mine", "complete", "then"), [(b"whole", True, b"whole"), (b"longer", False, None)])
def test_file_that_cannot_be_resumed_is_no_dead_end(
    sshd: Sshd, directory: Path, target: Path, mine: bytes, complete: bool, then: bytes | None
) -> None:
    """All there is fine; more than there is goes away, for the next attempt."""
    (directory / "it's").write_bytes(b"whole")
    (target / "it's").write_bytes(mine)

    copied = copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, [b"it's"], resume=True)

    assert copied.complete == complete
    assert files_below(target).get(b"it's") == then


def test_half_a_file_on_a_full_disk_is_no_success(sshd: Sshd, directory: Path, tmp_path: Path) -> None:
    """Although sftp goes on and ends well."""
    fill(directory, (b"a",))
    (directory / "big").write_bytes(bytes(8 << 20))

    with small_disk(tmp_path / "small", kibibytes=4096) as target, pytest.raises(TemporaryError, match="No space left"):
        copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, [b"big", b"a"])


def test_links_in_the_target_lead_nowhere(sshd: Sshd, tmp_path: Path, directory: Path, target: Path) -> None:
    """An earlier copy may have left links of the peer's there."""
    fill(directory, (b"sub/file", b"file"))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("mine")
    (target / "sub").symlink_to(tmp_path / "victim")
    (target / "file").symlink_to(tmp_path / "victim" / "file")

    for name in (b"sub/file", b"file"):
        with pytest.raises(PermanentError, match=r"something is in its way|is not a file"):
            copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, [name])
    assert (tmp_path / "victim" / "file").read_text() == "mine"


def test_missing_directory_is_a_matter_for_a_person(sshd: Sshd, directory: Path, target: Path) -> None:
    """Not a copy with losses."""
    with pytest.raises(PermanentError, match="cannot enter"):
        copy_with_sftp(sshd.ssh(), os.fsencode(directory / "gone"), target, [b"a"])


def test_peer_without_sftp_is_told_as_such(tmp_path: Path, directory: Path, target: Path) -> None:
    """The word of ssh alone would puzzle anybody."""
    server = Sshd(tmp_path / "without", subsystem=None)
    server.start()
    try:
        with pytest.raises(PermanentError, match="has no sftp"):
            copy_with_sftp(server.ssh(), os.fsencode(directory), target, [b"a"])
    finally:
        server.stop()


def test_copy_that_is_cut_is_tried_later(own_sshd: Sshd, directory: Path, target: Path) -> None:
    """A half file lies there, and is no success."""
    with (directory / "big").open("wb") as file:
        file.truncate(8 << 30)

    def cut_once_it_runs() -> None:
        if (target / "big").exists():
            own_sshd.cut()

    with pytest.raises(TemporaryError, match="no connection with"):
        copy_with_sftp(own_sshd.ssh(), os.fsencode(directory), target, [b"big"], checkpoint=cut_once_it_runs)


def test_copy_ends_at_its_deadline(sshd: Sshd, directory: Path, target: Path) -> None:
    """However much comes."""
    with (directory / "big").open("wb") as file:
        file.truncate(64 << 30)

    with pytest.raises(TemporaryError, match="took longer"):
        copy_with_sftp(sshd.ssh(), os.fsencode(directory), target, [b"big"], deadline=timedelta(seconds=1))


@needs_another_user
def test_another_user_copies_into_a_directory_of_its_own(sshd: Sshd, tmp_path: Path, directory: Path) -> None:
    """The directories that are made on the way are its own, too; those above stay closed to it."""
    fill(directory, (b"a", b"sub/b"))
    closed = tmp_path / "closed"
    (closed / "target").mkdir(parents=True)
    closed.chmod(0o700)
    os.chown(closed / "target", NOBODY, NOBODY)

    with open_directory() as place:
        ssh = keys_of_nobody(sshd, place)
        copied = copy_with_sftp(ssh, os.fsencode(directory), closed / "target", [b"a", b"sub/b"])

    assert copied.complete
    assert set(files_below(closed / "target")) == {b"a", b"sub/b"}
    assert (closed / "target" / "sub").stat().st_uid == NOBODY


@pytest.mark.parametrize("protocol", ["sftp", "old"])
def test_rcp_copies_all_there_is(sshd: Sshd, plain: Path, target: Path, protocol: str) -> None:
    """Names with a dot in front too, directories, whichever protocol scp speaks."""
    names = tuple(name for name in HOSTILE_NAMES if protocol == "sftp" or name not in UNSAYABLE)
    written = fill(plain, (*names, b"plain/plain"))
    (plain / "-e sh").chmod(0o4755)
    command = [word if word != "-s" or protocol == "sftp" else "-O" for word in scp_command(sshd.ssh())]

    copied = copy_with_rcp(command, sshd.ssh(), os.fsencode(plain), target)

    assert copied.complete
    assert files_below(target) == written
    assert (target / "-e sh").stat().st_mode & 0o7777 == 0o755


def test_rcp_tells_what_it_could_not_copy(sshd: Sshd, plain: Path, target: Path) -> None:
    """All the rest is there."""
    fill(plain, (b"a", b"z"))
    os.mkfifo(plain / "fifo")

    copied = copy_with_rcp(scp_command(sshd.ssh()), sshd.ssh(), os.fsencode(plain), target)

    assert [problem.kind for problem in copied.problems] == [ProblemKind.UNKNOWN_TYPE]
    assert "fifo" in copied.problems[0].detail
    assert set(files_below(target)) == {b"a", b"z"}


def test_rcp_that_fails_leaves_nothing(sshd: Sshd, tmp_path: Path, plain: Path, target: Path) -> None:
    """No connection, no directory, no such program: each is told, none looks like an empty directory."""
    (tmp_path / "empty").touch()
    stranger = sshd.ssh(known_hosts=tmp_path / "empty")

    with pytest.raises(PermanentError, match="the host key of"):
        copy_with_rcp(["scp", "-S", "ssh", *stranger.options_argv()], stranger, os.fsencode(plain), target)
    with pytest.raises(PermanentError, match=r"brought no directory .*gone"):
        copy_with_rcp(scp_command(sshd.ssh()), sshd.ssh(), os.fsencode(plain / "gone"), target)
    with pytest.raises(PermanentError, match="not found"):
        copy_with_rcp(["no-such-rcp"], sshd.ssh(), os.fsencode(plain), target)
    assert list(target.iterdir()) == []


@pytest.mark.skipif(not confine.is_possible(), reason="the kernel cannot keep a program in a directory")
def test_rcp_writes_nowhere_else(sshd: Sshd, tmp_path: Path, plain: Path, target: Path) -> None:
    """Old ones let the peer choose the names of what it sends."""
    script = tmp_path / "rcp"
    script.write_text(
        f"#!/bin/sh\nmkdir plain; echo x >plain/a; echo x >{tmp_path}/outside; echo x >../beside; exit 0\n"
    )
    script.chmod(0o755)

    copy_with_rcp([str(script)], sshd.ssh(), os.fsencode(plain), target)

    assert set(files_below(target)) == {b"a"}
    assert not (tmp_path / "outside").exists()


def test_addresses_with_colons_are_reached(tmp_path: Path, plain: Path) -> None:
    """By each of the programs, which want them in brackets or without."""
    fill(plain, (b"a",))
    server = Sshd(tmp_path / "six", host="::1")
    try:
        server.start()
    except AssertionError:
        pytest.skip("no IPv6 here")
    try:
        name = os.fsencode(plain)
        for number, copy in enumerate(
            (
                lambda target: copy_with_rsync(Source(directory=name, ssh=server.ssh()), target),
                lambda target: copy_with_sftp(server.ssh(), name, target, [b"a"]),
                lambda target: copy_with_rcp(scp_command(server.ssh()), server.ssh(), name, target),
            )
        ):
            target = tmp_path / str(number)
            target.mkdir()
            assert copy(target).complete
            assert set(files_below(target)) == {b"a"}
        assert set(list_remote(server.ssh(), name).entries) == {b"a"}
    finally:
        server.stop()


def test_rcp_gets_only_names_that_no_shell_reads(sshd: Sshd, directory: Path, target: Path) -> None:
    """With the old protocol the peer's shell reads the directory's name."""
    with pytest.raises(PermanentError, match="older ones let the peer's shell read it"):
        copy_with_rcp(scp_command(sshd.ssh()), sshd.ssh(), os.fsencode(directory), target)
