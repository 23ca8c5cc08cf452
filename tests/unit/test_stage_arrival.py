"""Whatever came of a hostile peer, only what the peer has listed stays, and nothing else is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.contents import EntryType
from handlers.contract import ProblemKind
from handlers.errors import PermanentError
from handlers.tools.peers.arrival import Arrived, hashed, judged, remove_all, sift
from handlers.tools.peers.files import Dress
from handlers.tools.peers.outcome import MAX_PROBLEMS, Rules
from handlers.tools.peers.pulse import Pulse, Tally
from handlers.tools.peers.wanted import Wanted, wanted
from handlers.tools.remote.listing import RemoteEntry, RemoteListing

FILE = RemoteEntry(EntryType.FILE)
DIRECTORY = RemoteEntry(EntryType.DIRECTORY, mode=0o4777, mtime_ns=1_000_000_000)
LINK = RemoteEntry(EntryType.SYMLINK)
PULSE = Pulse(Tally(), 600)


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    """The directory `came`, open."""
    (tmp_path / "came").mkdir()
    descriptor = os.open(tmp_path / "came", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_only_what_was_listed_stays(top: int, tmp_path: Path) -> None:
    """No link where a directory should be, no second name of a file elsewhere, no device, nothing in addition."""
    came, outside = tmp_path / "came", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (came / "good").write_text("x")
    (came / "sub").symlink_to(outside)
    os.link(outside / "precious", came / "linked")
    os.mkfifo(came / "pipe")
    (came / "planted" / "deep").mkdir(parents=True)
    (came / "is-directory").mkdir()
    if os.geteuid() == 0:
        os.mknod(came / "device", 0o020666, os.makedev(1, 3))
    entries = {b"good": FILE, b"sub": DIRECTORY, b"sub/precious": FILE, b"linked": FILE, b"pipe": FILE}
    found = Wanted({**entries, b"is-directory": FILE, b"device": FILE, b"empty": DIRECTORY})

    sift(top, found, PULSE)

    assert sorted(str(path.relative_to(came)) for path in came.rglob("*")) == ["empty", "good", "sub"]
    assert (came / "sub").is_dir()
    assert not (came / "sub").is_symlink()
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"


def test_what_came_loses_its_set_id_bits(top: int, tmp_path: Path) -> None:
    """Of directories, too, whatever the peer lists."""
    came = tmp_path / "came"
    (came / "tool").write_text("x")
    (came / "tool").chmod(0o6755)
    found = Wanted({b"tool": FILE, b"sub": DIRECTORY})
    sift(top, found, PULSE)

    hashed(top, found, Dress(), PULSE)

    assert {path.name: oct(path.stat().st_mode & 0o7777) for path in came.iterdir()} == {
        "tool": "0o755",
        "sub": "0o777",
    }


def test_each_way_of_being_other_than_the_peer_says_is_found(top: int, tmp_path: Path) -> None:
    """Missing, of another size, another time, another content."""
    came = tmp_path / "came"
    for name in ("good", "size", "time", "content", "sumless"):
        (came / name).write_text("x")
        os.utime(came / name, ns=(10**18, 10**18))
    sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    entry = RemoteEntry(EntryType.FILE, size=1, mtime_ns=10**18, sha256=sha256)
    found = Wanted(
        {
            b"good": entry,
            b"missing": entry,
            b"size": entry._replace(size=2),
            b"time": entry._replace(mtime_ns=10**18 + 2 * 10**9),
            b"content": entry._replace(sha256="0" * 64),
            b"sumless": entry._replace(sha256=None),
        }
    )

    unsound = judged(found, hashed(top, found, Dress(), PULSE), by_sums=True)

    assert {path: why.kind for path, why in unsound.items()} == {
        b"missing": ProblemKind.OTHER,
        b"size": ProblemKind.CHANGED,
        b"time": ProblemKind.CHANGED,
        b"content": ProblemKind.OTHER,
        b"sumless": ProblemKind.OTHER,
    }
    remove_all(top, unsound)
    assert [path.name for path in came.iterdir()] == ["good"]


def test_times_in_whole_seconds_are_good_enough_where_a_program_cuts_them() -> None:
    """Sftp does; a peer's `stat` may, too."""
    here = Path(__file__).stat()
    told = RemoteEntry(EntryType.FILE, size=here.st_size, mtime_ns=here.st_mtime_ns // 10**9 * 10**9)

    assert judged(Wanted({b"f": told}, exact_times=False), {b"f": Arrived(here)}, by_sums=False) == {}
    assert bool(judged(Wanted({b"f": told}), {b"f": Arrived(here)}, by_sums=False)) is (
        here.st_mtime_ns % 10**9 >= 1000
    )


def test_a_peers_list_is_sorted_into_what_is_taken_and_what_is_not() -> None:
    """By the rules of the plan; an indicator is one in the top directory only."""
    entries = {
        b"cback.collect": FILE,
        b"sub": DIRECTORY,
        b"sub/cback.collect": FILE,
        b"link": LINK,
        b"pipe": RemoteEntry(EntryType.FIFO),
        b"odd": RemoteEntry(EntryType.UNKNOWN),
    }
    listing = RemoteListing(entries=entries, has_sums=True, exact_times=True, troubles=("no rights",), complete=False)
    rules = Rules(left_out=frozenset({b"cback.collect"}))

    every, flat = wanted(listing, rules), wanted(listing, replace(rules, recursive=False, links=True))

    assert set(every.entries) == {b"sub", b"sub/cback.collect"}
    assert every.outcome.left_out == ["cback.collect"]
    assert {path: kind for path, (kind, _) in every.outcome.problems.items()} == {
        b"link": ProblemKind.OTHER,
        b"pipe": ProblemKind.UNKNOWN_TYPE,
        b"odd": ProblemKind.SOCKET,
        b".": ProblemKind.UNREADABLE,
    }
    assert set(flat.entries) == {b"link"}
    assert flat.outcome.problems[b"sub"][0] is ProblemKind.OTHER


def test_a_peer_with_too_much_to_tell_of_has_failed() -> None:
    """Memory does not grow with the number of links on a peer."""
    entries = {b"%d" % number: LINK for number in range(MAX_PROBLEMS + 1)}
    listing = RemoteListing(entries=entries, has_sums=True, exact_times=True, troubles=(), complete=True)

    with pytest.raises(PermanentError, match="more than 100000 of its files"):
        wanted(listing, Rules())
