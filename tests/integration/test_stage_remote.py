"""Remote peers are staged over ssh whole, or it is told what is not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import TemporaryError
from handlers.tools.peers.verdicts import Verdict
from tests.services.server import free_port
from tests.services.sshd import Sshd
from tests.workshop.another_user import needs_another_user, open_directory
from tests.workshop.peers import HOSTILE_DIRECTORY, HOSTILE_NAMES, files_below, fill, keys_of_nobody, programs
from tests.workshop.pool import Interfering, Pool, collected, meanwhile, options_of
from tests.workshop.staged import local_peer, remote_peer, staged

pytestmark = pytest.mark.service("sshd")


@pytest.mark.parametrize("transfer", ["rsync", "scp"])
def test_what_a_peer_has_collected_is_in_the_set_as_it_is(tmp_path: Path, sshd: Sshd, transfer: str) -> None:
    """Names, content, modes and times, by either program; the peer is told once the set is there."""
    directory = collected(tmp_path / HOSTILE_DIRECTORY, "dump.sql", "sub/deep/more", "sub/.dot")
    (directory / "empty").mkdir()
    os.utime(directory / "dump.sql", (1_111_111_111, 1_111_111_111))
    (directory / "dump.sql").chmod(0o640)
    (directory / "sub").chmod(0o750)
    pool = Pool(tmp_path, {"a": remote_peer(directory, sshd, transfer=transfer)})

    made = pool.stage()

    files = staged(made.directory, "a")
    assert set(files) == {"dump.sql", "sub/deep/more", "sub/.dot"}
    about = files["dump.sql"].stat()
    assert (about.st_mtime, stat.S_IMODE(about.st_mode)) == (1_111_111_111, 0o640)
    assert stat.S_IMODE((made.tree("peers") / "a" / "sub").stat().st_mode) == 0o750
    record = made.record("a")
    assert (record.verdict, record.files, record.left_out) == (Verdict.STAGED, 6, ("cback.collect",))
    assert record.compared == "SHA-256 at both ends"
    assert made.made.problems == ()
    assert pool.acknowledge(made) == []
    assert (directory / "cback.stage").read_text().startswith("pool/set-1\n")


def test_names_that_programs_would_misread_are_only_names(tmp_path: Path, sshd: Sshd) -> None:
    """Leading dashes, line ends, bytes that are no text; for a shell, for rsync, for us."""
    directory = tmp_path / "a"
    directory.mkdir()
    written = fill(directory)
    pool = Pool(tmp_path, {"a": remote_peer(directory, sshd, collect_indicator=None, stage_indicator=None)})

    made = pool.stage()

    assert files_below(made.tree("peers") / "a") == written
    assert len(written) == len(HOSTILE_NAMES)
    assert made.record("a").verdict is Verdict.STAGED


def test_odd_files_do_not_keep_a_peer_from_being_staged(tmp_path: Path, sshd: Sshd) -> None:
    """Each is named; the rest is there."""
    directory = collected(tmp_path / "a", "1", "sub/2")
    (directory / "sub" / "secret").symlink_to("/etc/passwd")
    os.mkfifo(directory / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "socket"))
    pool = Pool(tmp_path, {"a": remote_peer(directory, sshd)})

    made = pool.stage()

    assert set(staged(made.directory, "a")) == {"1", "sub/2"}
    assert made.problems() == {
        "peers/a/sub/secret": ProblemKind.OTHER,
        "peers/a/pipe": ProblemKind.UNKNOWN_TYPE,
        "peers/a/socket": ProblemKind.SOCKET,
    }
    assert made.record("a").verdict is Verdict.INCOMPLETE


SHELL = ("sh", "find", "stat", "cksum", "ls", "cat", "mv", "rm", "chmod", "dirname")
"""What a peer has at least."""


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A server that a test may ill-treat."""
    server = Sshd(tmp_path / "own", subsystem="sftp /usr/lib/openssh/sftp-server")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_scp_is_taken_where_the_peer_has_no_rsync(tmp_path: Path, own_sshd: Sshd) -> None:
    """`transfer: auto` finds out by trying."""
    directory = collected(tmp_path / "a", "1", "sub/2")
    few = own_sshd.limited(programs(tmp_path / "few", *SHELL, "sha256sum"))
    pool = Pool(tmp_path, {"a": remote_peer(directory, own_sshd, identity_file=str(few))})

    made = pool.stage()

    assert set(staged(made.directory, "a")) == {"1", "sub/2"}
    assert made.record("a").verdict is Verdict.STAGED


def test_any_program_that_is_called_as_rcp_is_will_do(tmp_path: Path, sshd: Sshd) -> None:
    """With options of its own; what it follows, or brings in addition, does not stay."""
    directory = collected(tmp_path / "a", "1", "sub/2")
    (directory / "passwd").symlink_to("/etc/passwd")
    command = ["scp", "-q", "-p", "-P", str(sshd.port), "-i", str(sshd.key), "-oIdentitiesOnly=yes"]
    known = tmp_path / "known"
    known.write_bytes(sshd.known_hosts.read_bytes())
    command.append(f"-oUserKnownHostsFile={known}")
    pool = Pool(tmp_path, {"a": remote_peer(directory, sshd, transfer="rcp", rcp_command=command)})

    made = pool.stage()

    assert set(staged(made.directory, "a")) == {"1", "sub/2"}
    assert made.problems() == {"peers/a/passwd": ProblemKind.OTHER}


def test_sizes_and_times_are_compared_where_the_peer_has_no_sums(tmp_path: Path, own_sshd: Sshd) -> None:
    """And the report says that it was no more than that."""
    directory = collected(tmp_path / "a", "1", "sub/2")
    few = own_sshd.limited(programs(tmp_path / "few", *SHELL, "rsync"))
    pool = Pool(tmp_path, {"a": remote_peer(directory, own_sshd, identity_file=str(few))})

    made = pool.stage()

    assert made.record("a").verdict is Verdict.STAGED
    assert made.record("a").compared == "size and time: the peer has no program for SHA-256"


def test_what_arrives_other_than_the_peer_says_is_named(tmp_path: Path, own_sshd: Sshd) -> None:
    """A disk, a cable or a program that changes bytes on the way."""
    directory = collected(tmp_path / "a", "1", "2")
    few = programs(tmp_path / "few", *SHELL, "rsync", "sed")
    liar = few / "sha256sum"
    liar.write_text(f"#!/bin/sh\n{shutil.which('sha256sum')} \"$@\" | sed '/1$/s/^.../fff/'\n")
    liar.chmod(0o755)
    pool = Pool(tmp_path, {"a": remote_peer(directory, own_sshd, identity_file=str(own_sshd.limited(few)))})

    made = pool.stage()

    assert made.problems() == {"peers/a/1": ProblemKind.OTHER}
    assert made.record("a").verdict is Verdict.INCOMPLETE
    assert made.record("a").taken_again == 2


def test_a_peer_that_is_cut_is_tried_again_and_goes_on(tmp_path: Path, own_sshd: Sshd) -> None:
    """Only what is missing is fetched; the others were staged meanwhile, and are not fetched anew."""
    directory = collected(tmp_path / "a", *(f"{number:03}" for number in range(100)))
    (directory / "zzz-large").write_bytes(os.urandom(24 << 20))
    peers = {
        "a": remote_peer(directory, own_sshd, bandwidth_bytes_per_second=2 << 20),
        "b": local_peer(collected(tmp_path / "b", "file")),
    }
    pool = Pool(tmp_path, peers)
    pool.control = Interfering(1 << 20, own_sshd.cut)
    with pytest.raises(TemporaryError, match="1 of 2 peers may come back: a: "):
        pool.stage(last_try=False)

    pool.options = options_of({**peers, "a": remote_peer(directory, own_sshd)})
    made = pool.stage()

    assert len(staged(made.directory, "a")) == 101
    assert made.record("a").verdict is Verdict.STAGED
    assert made.record("a").kept == 100
    assert made.record("b").kept == 1


def test_damage_to_what_an_earlier_attempt_has_fetched_is_found(tmp_path: Path, own_sshd: Sshd) -> None:
    """Size and time are those of the peer's file; the content is not."""
    directory = collected(tmp_path / "a", "good", "bad")
    os.utime(directory / "bad", (1, 1))
    waiting = collected(tmp_path / "b", *(f"file-{number}" for number in range(2000)))
    peers = {"a": remote_peer(directory, own_sshd), "b": local_peer(waiting, deadline_seconds=0.001)}
    pool = Pool(tmp_path, peers)
    with pytest.raises(TemporaryError):
        pool.stage(last_try=False)
    (left,) = (tmp_path / "store" / ".holdfast" / "unfinished").glob("*/peers/a")
    (left / "bad").write_text("CONTENT of bad")
    os.utime(left / "bad", (1, 1))

    made = pool.stage()

    assert staged(made.directory, "a")["bad"].read_text() == "content of bad"
    assert (made.record("a").verdict, made.record("a").taken_again) == (Verdict.STAGED, 1)


@needs_another_user
def test_another_user_of_this_machine_runs_ssh(sshd: Sshd) -> None:
    """The keys are his; what came is ours."""
    with open_directory() as place:
        directory = collected(place / "a", "1", "sub/2")
        keys = keys_of_nobody(sshd, place)
        files = {"identity_file": str(keys.identity_file), "known_hosts": str(keys.known_hosts)}
        pool = Pool(place, {"a": remote_peer(directory, sshd, user="root", local_user="nobody", **files)})

        made = pool.stage()

        assert set(staged(made.directory, "a")) == {"1", "sub/2"}
        top = made.tree("peers") / "a"
        assert {path.stat().st_uid for path in (top, *top.rglob("*"))} == {0}


def test_a_file_that_grows_at_its_peer_is_named(tmp_path: Path, sshd: Sshd) -> None:
    """Its sum is another one each time."""
    directory = collected(tmp_path / "a", "quiet", "log")
    pool = Pool(tmp_path, {"a": remote_peer(directory, sshd)})

    with meanwhile(lambda: (directory / "log").write_bytes(os.urandom(100))):
        made = pool.stage()

    assert "peers/a/log" in made.problems()
    assert ProblemKind.OTHER in made.problems().values()  # a loss, whichever way it was seen to change
    assert made.record("a").verdict is Verdict.INCOMPLETE


def test_of_a_peer_that_is_lost_there_is_what_had_come(tmp_path: Path, own_sshd: Sshd) -> None:
    """In the last try; no file is there by half, each that is missing is named."""
    directory = collected(tmp_path / "a", *(f"{number:03}" for number in range(100)))
    (directory / "zzz-large").write_bytes(os.urandom(24 << 20))
    peers = {
        "a": remote_peer(directory, own_sshd, bandwidth_bytes_per_second=2 << 20),
        "b": local_peer(collected(tmp_path / "b", "file")),
    }
    pool = Pool(tmp_path, peers)
    pool.control = Interfering(1 << 20, own_sshd.cut)

    made = pool.stage()

    assert made.record("a").verdict is Verdict.UNREACHABLE
    assert len(staged(made.directory, "a")) == 100
    assert made.problems() == {"peers/a": ProblemKind.OTHER, "peers/a/zzz-large": ProblemKind.UNREADABLE}
    pool.acknowledge(made)
    assert not (directory / "cback.stage").exists()
    assert (tmp_path / "b" / "cback.stage").exists()


def test_a_peer_that_hangs_does_not_hold_up_the_others(tmp_path: Path, own_sshd: Sshd) -> None:
    """Its time is up some day; the others are staged long before."""
    directory = collected(tmp_path / "a", "file")
    (directory / "large").write_bytes(os.urandom(24 << 20))
    peers = {
        "a": remote_peer(directory, own_sshd, bandwidth_bytes_per_second=2 << 20, silence_seconds=2),
        "b": local_peer(collected(tmp_path / "b", "file")),
    }
    pool = Pool(tmp_path, peers)
    pool.control = Interfering(1 << 20, lambda: [os.kill(pid, signal.SIGSTOP) for pid in own_sshd.sessions()])

    made = pool.stage()

    assert made.record("a").verdict is Verdict.UNREACHABLE
    assert made.record("b").verdict is Verdict.STAGED
    assert made.record("b").seconds < made.record("a").seconds


def test_a_peer_that_is_not_there_is_a_loss_or_not(tmp_path: Path, sshd: Sshd) -> None:
    """Nobody listens; with `ignore_failures: all` nobody minds, and nobody tries again."""
    peers = {
        "a": local_peer(collected(tmp_path / "a", "file")),
        "b": remote_peer(tmp_path / "b", sshd, port=free_port(), ignore_failures="all"),
    }

    made = Pool(tmp_path, peers).stage(last_try=False)

    assert made.problems() == {"peers/b": ProblemKind.IGNORED}
    assert made.record("b").verdict is Verdict.UNREACHABLE


def test_a_host_whose_key_is_not_known_is_refused(tmp_path: Path, sshd: Sshd) -> None:
    """The others are staged all the same."""
    (tmp_path / "known").touch()
    peers = {
        "a": remote_peer(collected(tmp_path / "a", "file"), sshd),
        "b": remote_peer(collected(tmp_path / "b", "file"), sshd, known_hosts=str(tmp_path / "known")),
    }
    pool = Pool(tmp_path, peers)

    made = pool.stage()

    assert made.problems() == {"peers/b": ProblemKind.OTHER}
    assert made.record("b").verdict is Verdict.FAILED
    assert "host key" in (made.record("b").reason or "")
