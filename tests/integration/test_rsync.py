"""Copies by rsync, from this machine, by a real ssh server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import Cancelled, PermanentError, TemporaryError
from handlers.tools.remote.connection import shared
from handlers.tools.remote.rsync import PARTIAL, Links, Rules, Source, copy_with_rsync, version
from handlers.tools.remote.rsync_messages import NoRsyncThere
from tests.services.server import wait_until
from tests.services.sshd import Sshd
from tests.workshop.another_user import NOBODY, needs_another_user, nobody, open_directory
from tests.workshop.peers import HOSTILE_DIRECTORY, HOSTILE_NAMES, files_below, fill, keys_of_nobody, programs

BIG = 20 << 20
SLOWLY = 4 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What is copied from, with a name and files that no shell may read."""
    place = tmp_path / HOSTILE_DIRECTORY
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


@pytest.fixture(params=["here", "peer"])
def source(sshd: Sshd, directory: Path, request: pytest.FixtureRequest) -> Source:
    """The directory, of this machine or a peer."""
    return Source(directory=os.fsencode(directory), ssh=sshd.ssh() if request.param == "peer" else None)


def remote(sshd: Sshd, directory: Path) -> Source:
    return Source(directory=os.fsencode(directory), ssh=sshd.ssh())


def test_whole_directory_is_copied_whatever_its_names(source: Source, directory: Path, target: Path) -> None:
    """Content, times, modes, links; no name is read by any shell."""
    written = fill(directory)
    (directory / "link").symlink_to("/etc")
    os.utime(directory / "-e sh", ns=(0, 1_234_567_890_123_456_789))
    (directory / "-e sh").chmod(0o640)
    told: list[tuple[int, int]] = []

    copied = copy_with_rsync(source, target, on_progress=lambda files, size: told.append((files, size)))

    assert files_below(target) == written
    assert (target / "link").readlink() == Path("/etc")
    assert (target / "-e sh").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert (target / "-e sh").stat().st_mode & 0o7777 == 0o640
    assert (copied.complete, copied.tools) == (True, {"rsync": version()})
    assert told[-1] == (copied.files, copied.bytes_received)
    assert copied.bytes_received == sum(map(len, written.values()))


def test_only_the_names_asked_for_are_copied(source: Source, directory: Path, target: Path) -> None:
    """One by one, directories on the way included."""
    fill(directory)
    fill(directory, (b"not this", b"sub/nor this"))

    copied = copy_with_rsync(source, target, names=iter(HOSTILE_NAMES))

    assert copied.complete
    assert set(files_below(target)) == set(HOSTILE_NAMES)


def test_shared_connection_serves_copies_too(sshd: Sshd, directory: Path, target: Path) -> None:
    """Rsync comes by it like any command."""
    written = fill(directory)

    with shared(sshd.ssh()) as ssh:
        copy_with_rsync(Source(directory=os.fsencode(directory), ssh=ssh), target)

    assert files_below(target) == written


def test_names_that_lead_elsewhere_are_refused(source: Source, target: Path) -> None:
    """Nothing outside the directory can be asked for."""
    for name in (b"../x", b"/etc/passwd", b"a/../../x", b"", b"."):
        with pytest.raises(PermanentError, match="not a name below a directory"):
            copy_with_rsync(source, target, names=[name])


def test_missing_names_come_back_as_vanished(source: Source, directory: Path, target: Path) -> None:
    """What is gone by now is told by its exact name; all else is there."""
    fill(directory, (b"a", b"z"))

    copied = copy_with_rsync(source, target, names=[b"a", b"gone\n\xff", b"z"])

    assert [(problem.path, problem.kind) for problem in copied.problems] == [(b"gone\n\xff", ProblemKind.VANISHED)]
    assert set(files_below(target)) == {b"a", b"z"}


def test_what_is_no_file_is_left_out_and_told(source: Source, directory: Path, target: Path) -> None:
    """A fifo would never end."""
    os.mkfifo(directory / 'fi"fo')

    copied = copy_with_rsync(source, target)

    assert [(problem.path, problem.kind) for problem in copied.problems] == [(b'fi"fo', ProblemKind.UNKNOWN_TYPE)]
    assert list(target.iterdir()) == []


@pytest.mark.parametrize(
    ("links", "kept"),
    [(Links.SKIP, set()), (Links.SAFE, {"near"}), (Links.KEEP, {"near", "far"})],
)
def test_links_are_kept_as_asked(sshd: Sshd, directory: Path, target: Path, links: Links, kept: set[str]) -> None:
    """Never followed."""
    (directory / "near").symlink_to("file")
    (directory / "far").symlink_to("/etc")

    copy_with_rsync(remote(sshd, directory), target, rules=Rules(links=links))

    assert {path.name for path in target.iterdir() if path.is_symlink()} == kept


def test_set_user_id_bits_are_taken_away_unless_asked_for(sshd: Sshd, directory: Path, target: Path) -> None:
    """A peer could hand us a program that makes everybody root."""
    (directory / "tool").touch(mode=0o755)
    (directory / "tool").chmod(0o4755)

    copy_with_rsync(remote(sshd, directory), target)
    assert (target / "tool").stat().st_mode & 0o7777 == 0o755
    copy_with_rsync(remote(sshd, directory), target, rules=Rules(set_id=True))
    assert (target / "tool").stat().st_mode & 0o7777 == 0o4755


def test_missing_directory_is_a_matter_for_a_person(source: Source, directory: Path, target: Path) -> None:
    """Not a copy with losses."""
    directory.rmdir()

    with pytest.raises(PermanentError, match="rsync cannot enter"):
        copy_with_rsync(source, target)


def test_peer_without_rsync_is_told_as_such(sshd: Sshd, tmp_path: Path, directory: Path, target: Path) -> None:
    """So that another way can be taken."""
    key = sshd.limited(programs(tmp_path / "few", "sh", "cat"))
    peer = Source(directory=os.fsencode(directory), ssh=sshd.ssh(identity_file=key))

    with pytest.raises(NoRsyncThere, match="has no rsync"):
        copy_with_rsync(peer, target)
    with pytest.raises(NoRsyncThere, match="has no rsync"):
        copy_with_rsync(Source(directory=os.fsencode(directory), ssh=sshd.ssh(), rsync_path="/no/rsync"), target)


def test_login_scripts_that_print_are_named(sshd: Sshd, directory: Path, target: Path) -> None:
    """The words of rsync itself are known to few."""
    key = sshd.forced('echo "Welcome to this machine!"; eval "$SSH_ORIGINAL_COMMAND"')

    with pytest.raises(PermanentError, match="something there writes into the connection"):
        copy_with_rsync(Source(directory=os.fsencode(directory), ssh=sshd.ssh(identity_file=key)), target)


def test_trouble_of_ssh_is_told_in_its_own_words(sshd: Sshd, tmp_path: Path, directory: Path, target: Path) -> None:
    """A host key that is not known stays a matter for a person, by rsync too."""
    (tmp_path / "empty").touch()
    ssh = sshd.ssh(known_hosts=tmp_path / "empty")

    with pytest.raises(PermanentError, match="the host key of"):
        copy_with_rsync(Source(directory=os.fsencode(directory), ssh=ssh), target)


@pytest.mark.parametrize("sparse", [False, True])
def test_copy_that_is_cut_goes_on_where_it_was(own_sshd: Sshd, directory: Path, target: Path, sparse: bool) -> None:
    """No half file lies under its own name; the next attempt fetches only the rest, whether holes are kept or not."""
    (directory / "big").write_bytes(os.urandom(BIG // 2) + bytes(BIG // 4) + os.urandom(BIG // 4))
    source = remote(own_sshd, directory)

    def cut_half_way(_files: int, size: int) -> None:
        if size > BIG // 3:
            own_sshd.cut()

    with pytest.raises(TemporaryError):
        copy_with_rsync(source, target, rules=Rules(sparse=sparse, bytes_per_second=SLOWLY), on_progress=cut_half_way)
    assert not (target / "big").exists()
    there = (target / PARTIAL / "big").stat().st_size
    wait_until(lambda: not own_sshd.sessions(), what="the server is through")
    copied = copy_with_rsync(source, target, rules=Rules(sparse=sparse))

    assert there > BIG // 4
    assert copied.complete
    assert (target / "big").read_bytes() == (directory / "big").read_bytes()
    assert [path.name for path in target.iterdir()] == ["big"]


@pytest.mark.slow
def test_copy_from_a_peer_that_hangs_is_given_up(own_sshd: Sshd, directory: Path, target: Path) -> None:
    """After the silence that was asked for, not after the deadline."""
    (directory / "big").write_bytes(bytes(BIG))
    held: list[int] = []

    def hold(_files: int, size: int) -> None:
        if size and not held:
            held.extend(own_sshd.sessions())
            for pid in held:
                os.kill(pid, 19)

    with pytest.raises(TemporaryError, match=r"nothing came for too long|no connection|was cut"):
        copy_with_rsync(
            Source(directory=os.fsencode(directory), ssh=own_sshd.ssh(silence=timedelta(seconds=3))),
            target,
            rules=Rules(bytes_per_second=SLOWLY, silence=timedelta(seconds=2)),
            on_progress=hold,
        )
    assert held


def test_copy_from_a_server_that_never_speaks_is_given_up(sshd: Sshd, directory: Path, target: Path) -> None:
    """A listening port alone is no peer."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        ssh = sshd.ssh(port=mute.getsockname()[1], connect_timeout=timedelta(seconds=1))
        with pytest.raises(TemporaryError, match="no connection with"):
            copy_with_rsync(Source(directory=os.fsencode(directory), ssh=ssh), target)


def test_copy_stops_when_it_is_to_stop(sshd: Sshd, directory: Path, target: Path) -> None:
    """Nothing of it runs on; what came stays for the next attempt."""
    (directory / "big").write_bytes(bytes(BIG))
    begun: list[int] = []

    def stop() -> None:
        if begun:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        copy_with_rsync(
            remote(sshd, directory),
            target,
            rules=Rules(bytes_per_second=SLOWLY),
            checkpoint=stop,
            on_progress=lambda files, size: begun.append(size) if size else None,
        )
    assert not (target / "big").exists()


@needs_another_user
def test_unreadable_files_come_back_as_problems(directory: Path, target: Path) -> None:
    """All that can be read is there."""
    with open_directory() as place:
        (place / "closed").touch(mode=0)
        (place / "shut").mkdir(mode=0)
        (place / "open").touch()
        with open_directory() as aim, nobody():
            copied = copy_with_rsync(Source(directory=os.fsencode(place)), aim)

            assert {(problem.path, problem.kind) for problem in copied.problems} == {
                (b"closed", ProblemKind.UNREADABLE),
                (b"shut", ProblemKind.UNREADABLE),
            }
            assert (aim / "open").exists()


@needs_another_user
def test_another_user_copies_into_a_directory_of_its_own(sshd: Sshd, directory: Path, tmp_path: Path) -> None:
    """Root's worker lets a user with fewer rights speak with the peer; the directories above stay closed to it."""
    fill(directory, (b"a", b"sub/b"))
    closed = tmp_path / "closed"
    (closed / "target").mkdir(parents=True)
    closed.chmod(0o700)
    os.chown(closed / "target", NOBODY, NOBODY)

    with open_directory() as place:
        ssh = keys_of_nobody(sshd, place)
        copied = copy_with_rsync(Source(directory=os.fsencode(directory), ssh=ssh), closed / "target")

    assert copied.complete
    assert set(files_below(closed / "target")) == {b"a", b"sub/b"}
    assert (closed / "target" / "sub" / "b").stat().st_uid == NOBODY
