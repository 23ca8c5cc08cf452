"""`holdfast mount`: a set as a read-only file system, by the real FUSE."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.workshop import Workshop, wait_for
from tests.services.fuse import require_fuse
from tests.workshop.comparer import differences, photograph

pytestmark = pytest.mark.service("fuse")

NOT_SHOWN = frozenset({"shares", "xattrs", "acls", "data_bytes"})
"""What a mounted set does not show: which names are one file, attributes beyond the mode, where holes are."""


class Mounted:
    """A workshop with a directory where its newest set is to be seen."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.directory = workshop.top / "mounted"
        self.directory.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> subprocess.Popen[bytes]:
        """Mount it; returns when it is there."""
        process = self.workshop.start("mount", "web", str(self.directory), stderr=subprocess.PIPE)
        self.process = process
        wait_for(lambda: os.path.ismount(self.directory) or process.poll() is not None)
        assert process.poll() is None, self.said()
        return process

    def said(self) -> bytes:
        """All that the command wrote for a person, once it has ended."""
        assert self.process is not None
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        if os.path.ismount(self.directory):
            subprocess.run(["fusermount3", "-u", "-z", self.directory], check=True)
        if self.process is not None and self.process.stderr is not None:
            self.process.wait(20)
            self.process.stderr.close()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounted]:
    """Ready for `begin`."""
    require_fuse()
    place = Mounted(Workshop(tmp_path))
    yield place
    place.close()


def test_a_mounted_set_is_the_tree_that_was_backed_up(mounted: Mounted) -> None:
    """Of a chain of levels, with odd names, holes and hard links; nothing can be changed; `umount` ends it."""
    workshop = mounted.workshop
    subject = workshop.subject
    Path(os.fsdecode(os.fsencode(subject) + b"/caf\xe9 \n")).write_text("odd\n")
    with (subject / "sparse").open("wb") as sparse:
        sparse.seek(5 << 20)
        sparse.write(os.urandom(1 << 20))
        sparse.truncate(9 << 20)
    os.link(subject / "docs" / "page.txt", subject / "hard")
    os.mkfifo(subject / "fifo")
    (subject / "empty").mkdir()
    workshop.backup()
    (subject / "index.html").write_text("<h1>changed</h1>\n")
    (subject / "new").mkdir(mode=0o711)
    (subject / "new" / "file").write_text("new\n")
    workshop.backup()

    process = mounted.begin()

    assert differences(photograph(subject), photograph(mounted.directory), without=NOT_SHOWN) == []
    copied = workshop.top / "copy"
    subprocess.run(["cp", "-a", mounted.directory, copied], check=True)
    assert differences(photograph(subject), photograph(copied), without=NOT_SHOWN) == []
    with pytest.raises(OSError, match="Read-only") as refused:
        (mounted.directory / "index.html").write_text("changed")
    assert refused.value.errno == errno.EROFS
    subprocess.run(["fusermount3", "-u", mounted.directory], check=True)
    assert process.wait(20) == 0
    assert b"mounted: set web/" in mounted.said()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unmounts(mounted: Mounted, number: signal.Signals) -> None:
    """Ctrl-C is how it usually ends: exit code 0, and nothing is mounted any more."""
    mounted.workshop.backup()
    process = mounted.begin()

    process.send_signal(number)

    assert process.wait(20) == 0
    assert not os.path.ismount(mounted.directory)


def test_nothing_of_a_damaged_frame_is_read(mounted: Mounted) -> None:
    """The reader gets an error; whoever mounted it reads why; the rest can be read."""
    workshop = mounted.workshop
    (workshop.subject / "long").write_bytes(os.urandom(12 << 20))
    backup_id = workshop.backup()
    (data,) = (workshop.store / "web" / backup_id).glob("data.tar*")
    data.chmod(0o600)
    with data.open("r+b") as stream:
        stream.seek(10 << 20)
        stream.write(b"damaged")
    process = mounted.begin()

    with pytest.raises(OSError, match="Input/output error"):
        (mounted.directory / "long").read_bytes()

    assert (mounted.directory / "index.html").read_text() == "<h1>hello</h1>\n"
    process.send_signal(signal.SIGINT)
    assert b"mount_read_failed" in mounted.said()


def test_a_directory_with_something_in_it_is_refused(mounted: Mounted) -> None:
    """It would be hidden."""
    mounted.workshop.backup()

    done = mounted.workshop.run("mount", "web", str(mounted.workshop.subject))

    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_without_fuse_there_is_a_hint(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    mounted.workshop.backup()
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nowhere/libfuse.so")

    done = mounted.workshop.run("mount", "web", str(mounted.directory))

    assert done.returncode == 1
    assert "error: cannot mount: " in done.stderr
    assert "holdfast[mount]" in done.stderr
