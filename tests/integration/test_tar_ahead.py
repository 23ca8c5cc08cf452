"""Reading ahead of GNU tar: what it asks the kernel for, what it leaves alone, and when it does nothing."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from handlers.tar_level import TarHandler
from handlers.tools.process import run
from handlers.tools.tar.ahead import ReadAhead
from handlers.tools.tar.options import TarOptions
from handlers.tools.tar.program import Archiving

_PATIENCE_SECONDS = 20
_SHORT_SECONDS = 2
_CONTENT = bytes(range(256)) * 32


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files in two directories, one of them `skipped`; every one of them on the disk."""
    root = tmp_path / "tree"
    for directory in (root / "kept", root / "skipped"):
        directory.mkdir(parents=True)
        for number in range(30):
            (directory / f"file-{number:02}").write_bytes(_CONTENT)
    return root


def test_asks_for_the_files_that_gnu_tar_is_going_to_read(tree: Path, tmp_path: Path) -> None:
    """From the lists at the beginning of the archive, before GNU tar has come to the first file."""
    archive = _archived(tree, tmp_path)
    _evict(tree)

    with ReadAhead(tree, [b"."]) as ahead:
        ahead.took(memoryview(archive))
        _wait(lambda: all(map(_in_memory, _files(tree))))

    assert ahead.asked == 60


def test_leaves_alone_what_is_excluded(tree: Path, tmp_path: Path) -> None:
    """Gigabytes that the plan leaves out would push out of memory what it wants."""
    archive = _archived(tree, tmp_path, exclude=("/skipped", "file-07"))
    _evict(tree)

    with ReadAhead(tree, [b"."], exclude=("/skipped", "file-07")) as ahead:
        ahead.took(memoryview(archive))
        _wait(lambda: ahead.asked == 29)
        _wait_for_the_end(ahead)

    assert not any(map(_in_memory, _files(tree / "skipped")))
    assert not _in_memory(tree / "kept/file-07")


def test_a_level_asks_for_changed_files_only(tree: Path, tmp_path: Path) -> None:
    """What GNU tar does not read again stays where it is."""
    _archived(tree, tmp_path)
    time.sleep(1.1)  # GNU tar takes again what is younger than its snapshot's second
    (tree / "kept/file-03").write_bytes(b"changed" + _CONTENT)
    archive = _archived(tree, tmp_path)
    _evict(tree)

    with ReadAhead(tree, [b"."]) as ahead:
        ahead.took(memoryview(archive))
        _wait(lambda: _in_memory(tree / "kept/file-03"))
        _wait_for_the_end(ahead)

    assert ahead.asked == 1


def test_keeps_close_to_gnu_tar(tree: Path, tmp_path: Path) -> None:
    """It goes on only as the listing does: what is asked for too early is gone again when it is needed."""
    archive = _archived(tree, tmp_path)
    _evict(tree)

    with ReadAhead(tree, [b"."], ahead_files=10) as ahead:
        ahead.took(memoryview(archive))
        _wait(lambda: ahead.asked >= 10)
        early = ahead.asked
        # Three directories come before the files. Three files could not be read, and are not in the listing.
        ahead.listed(3 + 26, b'block 0: -rw-r--r-- 0/0 8192 2026-11-21 03:29:00 "./kept/file-29"\n')
        _wait(lambda: ahead.asked > early)

    assert early < 60


def test_does_nothing_where_all_is_in_memory(tree: Path, tmp_path: Path) -> None:
    """A warm cache is the usual case on a small machine, and must not pay for the other one."""
    archive = _archived(tree, tmp_path)

    with ReadAhead(tree, [b"."]) as ahead:
        ahead.took(memoryview(archive))
        _wait_for_the_end(ahead)

    assert ahead.asked == 0


def test_does_nothing_where_it_is_not_wanted(tree: Path, tmp_path: Path) -> None:
    """As the plan says."""
    archive = _archived(tree, tmp_path)
    _evict(tree)

    with ReadAhead(tree, [b"."], wanted=False) as ahead:
        ahead.took(memoryview(archive))
        ahead.listed(63, b"")

    assert not any(map(_in_memory, _files(tree)))


def test_follows_no_link_and_opens_no_pipe(tree: Path, tmp_path: Path) -> None:
    """Not even where somebody puts one into the place of a directory or a file after GNU tar has looked."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file-00").write_bytes(_CONTENT)
    archive = _archived(tree, tmp_path)
    (tree / "skipped").rename(tmp_path / "away")
    (tree / "skipped").symlink_to(outside)
    (tree / "kept/file-01").unlink()
    (tree / "kept/file-01").symlink_to(outside / "file-00")
    (tree / "kept/file-02").unlink()
    os.mkfifo(tree / "kept/file-02")
    _evict(tree / "kept")
    _evict(outside)

    with ReadAhead(tree, [b"."]) as ahead:
        ahead.took(memoryview(archive))
        _wait(lambda: ahead.asked == 28)
        _wait_for_the_end(ahead)

    assert not _in_memory(outside / "file-00")


def test_leaves_no_trace_in_access_times(tree: Path, tmp_path: Path) -> None:
    """Neither of files nor of directories."""
    archive = _archived(tree, tmp_path)
    _evict(tree)
    places = [tree, tree / "kept", tree / "skipped", *_files(tree)]
    for place in places:
        os.utime(place, ns=(10**18, place.stat().st_mtime_ns))

    with ReadAhead(tree, [b"."]) as ahead:
        ahead.took(memoryview(archive))
        _wait(lambda: ahead.asked == 60)

    assert {place.stat().st_atime_ns for place in places} == {10**18}


def test_a_file_that_the_plan_names_does_not_end_the_lists(tree: Path, tmp_path: Path) -> None:
    """GNU tar writes it with its content among the directories."""
    archive = _archived(tree, tmp_path, names=(b"./kept/file-05", b"./skipped"))
    _evict(tree)

    with ReadAhead(tree, [b"./kept/file-05", b"./skipped"]) as ahead:
        ahead.took(memoryview(archive))
        _wait(lambda: ahead.asked == 30)


@pytest.mark.parametrize("stream", [b"", b"\1" * 4096, bytes(4096)])
def test_bears_any_stream(tree: Path, stream: bytes) -> None:
    """A backup never fails because of what is only to make it faster."""
    _evict(tree)

    with ReadAhead(tree, [b".", b"./nothing"], exclude=("[[.broken.]]",)) as ahead:
        ahead.took(memoryview(stream))
        ahead.listed(5, b"no line of a listing\n")

    assert ahead.asked == 0


def test_bears_a_subject_that_is_gone(tmp_path: Path) -> None:
    """GNU tar tells what matters of that."""
    with ReadAhead(tmp_path / "gone", [b"."]) as ahead:
        _wait_for_the_end(ahead)


def test_is_no_reason_for_another_chain(tmp_path: Path) -> None:
    """Switching it changes nothing in a set, so that levels can be built upon older ones."""
    scopes = {TarHandler().scope(TarOptions(root=tmp_path, read_ahead=on)) for on in (True, False)}

    assert len(scopes) == 1


def _archived(tree: Path, tmp_path: Path, *, exclude: Sequence[str] = (), names: Iterable[bytes] = (b".",)) -> bytes:
    """What GNU tar writes for the next level."""
    listed = tmp_path / "names"
    listed.write_bytes(b"".join(name + b"\0" for name in names))
    archiving = Archiving(root=tree, snapshot=tmp_path / "snar", index="/dev/null", names=listed, exclude=exclude)
    return run(archiving.argv()).stdout


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]


def _evict(directory: Path) -> None:
    for path in _files(directory):
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        _wait(lambda descriptor=descriptor, path=path: _dropped(descriptor, path), or_skip=True)
        os.close(descriptor)


def _dropped(descriptor: int, path: Path) -> bool:
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return not _in_memory(path)


def _in_memory(path: Path) -> bool:
    """Without touching it: a read that must not wait would begin to read ahead all the same."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 1) as mapped:
        resident = ctypes.c_ubyte()
        address = ctypes.addressof(ctypes.c_ubyte.from_buffer(mapped))
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), 1, ctypes.byref(resident)) == 0
        return bool(resident.value & 1)


def _wait(done: Callable[[], bool], *, or_skip: bool = False) -> None:
    deadline = time.monotonic() + (_SHORT_SECONDS if or_skip else _PATIENCE_SECONDS)
    while not done():
        if or_skip and time.monotonic() > deadline:
            pytest.skip("this filesystem keeps its files in memory")
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)


def _wait_for_the_end(ahead: ReadAhead) -> None:
    _wait(lambda: not ahead.is_busy())
