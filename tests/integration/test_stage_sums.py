"""What a remote peer gives no sum of is not taken for compared."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import TemporaryError
from handlers.tools.peers.pulse import OurDisk
from handlers.tools.peers.verdicts import Verdict
from tests.faults.small_disk import small_disk
from tests.services.server import free_port
from tests.services.sshd import Sshd
from tests.workshop.peers import programs
from tests.workshop.pool import Interfering, Pool, collected, options_of
from tests.workshop.staged import remote_peer, staged

pytestmark = pytest.mark.service("sshd")

SHELL = ("sh", "find", "stat", "cksum", "ls", "cat", "mv", "rm", "chmod", "dirname", "rsync", "sed")
SILENT_OF_BAD = f"{shutil.which('sha256sum')} \"$@\" | sed '/bad$/d'"


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A server that a test may ill-treat."""
    server = Sshd(tmp_path / "own", subsystem="sftp /usr/lib/openssh/sftp-server")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def key_with(sshd: Sshd, place: Path, sums: str) -> str:
    """A key with which the peer has few programs, and this one for sums."""
    few = programs(place / "few", *SHELL)
    (few / "sha256sum").write_text(f"#!/bin/sh\n{sums}\n")
    (few / "sha256sum").chmod(0o755)
    return str(sshd.limited(few))


def with_damaged_leftover(pool: Pool, name: str = "bad") -> None:
    """An attempt that leaves files of the peer `a`, of which one has another content, with its size and time."""
    peers = pool.options.peers
    gone = peers["a"].model_copy(update={"port": free_port()})
    pool.options = pool.options.model_copy(update={"peers": {**peers, "gone": gone}})
    with pytest.raises(TemporaryError, match=r"1 of 2 peers may come back: .*gone: "):
        pool.stage(last_try=False)
    pool.options = pool.options.model_copy(update={"peers": peers})
    (left,) = (pool.place / "store" / ".holdfast" / "unfinished").glob("*/peers/a")
    about = (left / name).stat()
    (left / name).write_bytes((left / name).read_bytes().swapcase())
    os.utime(left / name, ns=(about.st_atime_ns, about.st_mtime_ns))


def test_a_file_without_a_sum_is_named_and_fetched_anew(tmp_path: Path, own_sshd: Sshd) -> None:
    """What an earlier attempt has brought of it may be damaged: the peer's own copy is in the set."""
    directory = collected(tmp_path / "a", "good", "bad")
    key = key_with(own_sshd, tmp_path, SILENT_OF_BAD)
    pool = Pool(tmp_path, {"a": remote_peer(directory, own_sshd, identity_file=key)})
    with_damaged_leftover(pool)

    made = pool.stage()

    assert staged(made.directory, "a")["bad"].read_text() == "content of bad"
    assert made.problems() == {"peers/a/bad": ProblemKind.OTHER}
    assert made.made.problems[0].detail == "the peer gave no SHA-256 of it"
    assert made.record("a").verdict is Verdict.INCOMPLETE
    assert made.record("a").compared == "SHA-256 at both ends, but for 1 files of which the peer gave none"


def test_a_program_that_gives_no_sum_at_all_is_none(tmp_path: Path, own_sshd: Sshd) -> None:
    """Sizes and times are compared, and the report says so; leftovers are compared by rsync's own sums."""
    directory = collected(tmp_path / "a", "good", "bad")
    key = key_with(own_sshd, tmp_path, "exit 1")
    pool = Pool(tmp_path, {"a": remote_peer(directory, own_sshd, identity_file=key)})
    with_damaged_leftover(pool)

    made = pool.stage()

    assert staged(made.directory, "a")["bad"].read_text() == "content of bad"
    assert made.record("a").verdict is Verdict.STAGED
    assert made.record("a").compared == "size and time: the peer's program for SHA-256 gave no sum"


def test_of_a_lost_peer_nothing_stays_that_nobody_has_confirmed(tmp_path: Path, own_sshd: Sshd) -> None:
    """What an earlier attempt has brought is dropped in the last one, what this one has fetched whole stays."""
    directory = collected(tmp_path / "a", "bad")
    pool = Pool(tmp_path, {"a": remote_peer(directory, own_sshd)})
    with_damaged_leftover(pool)
    (directory / "fresh").write_text("fresh")
    (directory / "zzz-large").write_bytes(os.urandom(8 << 20))
    pool.options = options_of({"a": remote_peer(directory, own_sshd, bandwidth_bytes_per_second=2 << 20)})
    pool.control = Interfering(1 << 20, own_sshd.cut)

    with pytest.raises(TemporaryError, match="no peer could be staged"):
        pool.stage()

    (left,) = (tmp_path / "store" / ".holdfast" / "unfinished").glob("*/peers/a")
    assert {path.name for path in left.iterdir()} == {"fresh"}


@pytest.mark.parametrize("transfer", ["rsync", "scp", "rcp"])
def test_a_full_disk_is_no_fault_of_a_remote_peer(tmp_path: Path, sshd: Sshd, transfer: str) -> None:
    """The whole run waits, and says what to do, although nobody needs this peer."""
    directory = collected(tmp_path / "a", "file")
    (directory / "large").write_bytes(os.urandom(8 << 20))
    more = {}
    if transfer == "rcp":
        (tmp_path / "known").write_bytes(sshd.known_hosts.read_bytes())
        options = ["-oIdentitiesOnly=yes", f"-oUserKnownHostsFile={tmp_path / 'known'}"]
        more = {"rcp_command": ["scp", "-q", "-p", "-P", str(sshd.port), "-i", str(sshd.key), *options]}
    with small_disk(tmp_path / "small", kibibytes=4096) as place:
        peer = remote_peer(directory, sshd, transfer=transfer, ignore_failures="all", **more)
        pool = Pool(place, {"a": peer})

        with pytest.raises(OurDisk, match=r"(?i)no space left") as caught:
            pool.stage()

    assert caught.value.hint == "free some space"
