"""Listings of a peer's directory, by a real ssh server, with the programs of several systems."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.contents import EntryType
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.remote.connection import shared
from handlers.tools.remote.listing import list_remote
from handlers.tools.remote.shell import NoShellThere
from handlers.tools.remote.ssh import Ssh
from tests.services.sshd import Sshd
from tests.workshop.peers import HOSTILE_DIRECTORY, HOSTILE_NAMES, busybox, fill, programs


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A peer's directory, with a name and files that no shell may read."""
    place = tmp_path / HOSTILE_DIRECTORY
    place.mkdir()
    return place


@pytest.fixture(scope="module", params=["gnu", "busybox"])
def ssh(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Ssh]:
    """How the peer is reached, with the programs of one system or the other; by one connection, for speed."""
    here = sshd.ssh()
    if request.param == "busybox":
        here = replace(here, identity_file=sshd.limited(busybox(tmp_path_factory.mktemp("listing") / "busybox")))
    with shared(here) as ssh:
        yield ssh


def seen_by_us(directory: Path, names: Iterable[bytes]) -> dict[bytes, tuple[int, int, str]]:
    """Size, seconds, sum of files."""
    seen = {}
    for name in names:
        path = directory / os.fsdecode(name)
        content = path.read_bytes()
        seen[name] = (len(content), int(path.stat().st_mtime), hashlib.sha256(content).hexdigest())
    return seen


def test_listing_tells_names_sizes_times_sums(ssh: Ssh, directory: Path) -> None:
    """Whatever is in the names, and whichever programs the peer has."""
    fill(directory)

    listing = list_remote(ssh, os.fsencode(directory))

    told = {
        name: (entry.size, (entry.mtime_ns or 0) // 10**9, entry.sha256)
        for name, entry in listing.entries.items()
        if entry.type == EntryType.FILE
    }
    assert told == seen_by_us(directory, HOSTILE_NAMES)
    assert (listing.complete, listing.has_sums) == (True, True)
    if listing.exact_times:
        assert listing.entries[b"-rf"].mtime_ns == (directory / "-rf").stat().st_mtime_ns


def test_listing_needs_little_more_than_find(sshd: Sshd, tmp_path: Path, directory: Path) -> None:
    """Without stat, without a program for sums: names and types are exact all the same."""
    fill(directory)
    (directory / "link").symlink_to("/etc")
    key = sshd.limited(busybox(tmp_path / "poor", "stat", "sha256sum"))

    listing = list_remote(sshd.ssh(identity_file=key), os.fsencode(directory))

    assert {name for name, entry in listing.entries.items() if entry.type == EntryType.FILE} == set(HOSTILE_NAMES)
    assert listing.entries[b"link"].type == EntryType.SYMLINK
    assert not listing.has_sums
    assert {entry.sha256 for entry in listing.entries.values()} == {None}


def test_listing_uses_another_program_for_sums(sshd: Sshd, tmp_path: Path, directory: Path) -> None:
    """Where sha256sum is missing, shasum or sha256 may be there."""
    fill(directory)
    place = programs(tmp_path / "other", "sh", "find", "shasum", "perl")

    listing = list_remote(sshd.ssh(identity_file=sshd.limited(place)), os.fsencode(directory))

    told = {name: entry.sha256 for name, entry in listing.entries.items() if entry.type == EntryType.FILE}
    assert told == {name: digest for name, (_, _, digest) in seen_by_us(directory, HOSTILE_NAMES).items()}


def test_listing_tells_types(ssh: Ssh, directory: Path) -> None:
    """What is no file is told, not left out; links are not followed."""
    (directory / "link").symlink_to("/etc")
    (directory / "sub").mkdir(mode=0o750)
    os.mkfifo(directory / "fifo")

    entries = list_remote(ssh, os.fsencode(directory)).entries

    assert {name: entry.type for name, entry in entries.items()} == {
        b"link": EntryType.SYMLINK,
        b"sub": EntryType.DIRECTORY,
        b"fifo": EntryType.FIFO,
    }
    assert entries[b"sub"].mode == 0o750


def test_listing_without_sums_reads_no_file(sshd: Sshd, directory: Path) -> None:
    """Sums are a matter of what is asked for."""
    fill(directory, (b"a",))

    listing = list_remote(sshd.ssh(), os.fsencode(directory), sums=False)

    assert not listing.has_sums
    assert listing.entries[b"a"].sha256 is None


def test_missing_directory_is_named(sshd: Sshd, directory: Path) -> None:
    """A directory that is not there is an error, not an empty listing."""
    with pytest.raises(PermanentError, match="the directory is not there, or cannot be entered"):
        list_remote(sshd.ssh(), os.fsencode(directory / "gone"))


def test_listing_is_bounded(sshd: Sshd, directory: Path) -> None:
    """A peer with more than was thought of is an error that names the limit."""
    fill(directory, tuple(b"%d" % number for number in range(20)))

    with pytest.raises(PermanentError, match="more than 10 names"):
        list_remote(sshd.ssh(), os.fsencode(directory), max_names=10)
    with pytest.raises(PermanentError, match="more than 1000 bytes"):
        list_remote(sshd.ssh(), os.fsencode(directory), max_bytes=1000)


def test_what_login_scripts_print_is_no_part_of_a_listing(sshd: Sshd, directory: Path) -> None:
    """Many a .bashrc greets whoever comes in."""
    fill(directory, (b"a",))
    key = sshd.forced('echo "Welcome!"; printf "x\\000y"; eval "$SSH_ORIGINAL_COMMAND"')

    assert set(list_remote(sshd.ssh(identity_file=key), os.fsencode(directory)).entries) == {b"a"}


def test_peer_that_runs_something_else_is_told_as_such(sshd: Sshd, directory: Path) -> None:
    """With a forced command there is nothing to be listed."""
    key = sshd.forced("echo not for you >&2; exit 1")

    with pytest.raises(NoShellThere, match="does not run a shell for us"):
        list_remote(sshd.ssh(identity_file=key), os.fsencode(directory))


def test_listing_that_breaks_off_is_no_listing(sshd: Sshd, directory: Path) -> None:
    """Half an answer must not look like a directory with fewer files."""
    fill(directory)
    key = sshd.forced('eval "$SSH_ORIGINAL_COMMAND" | head -c 300')

    with pytest.raises(TemporaryError, match="breaks off"):
        list_remote(sshd.ssh(identity_file=key), os.fsencode(directory))
