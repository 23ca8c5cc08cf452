"""Our own archiver while the subject changes under it, or cannot be read; GNU tar unpacks what it made."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.contract import FileProblem
from handlers.tools.tar.internal import Walking, write_archive
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.comparer import differences, photograph

MIB = 1 << 20
Meddle = Callable[["Output"], None]


class Output:
    """Keeps the archive in memory, and meddles with the subject at every checkpoint or piece of the archive."""

    def __init__(self, at_checkpoint: Meddle | None = None, at_piece: Meddle | None = None) -> None:
        self.content = bytearray()
        self.lines = b""
        self.problems: list[tuple[str, str, str]] = []
        self._at_checkpoint = at_checkpoint
        self._at_piece = at_piece

    def archive(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take it, then meddle."""
        self.content += chunk
        if self._at_piece is not None:
            self._at_piece(self)

    def listing(self, lines: bytes) -> None:
        """Take it."""
        self.lines += lines

    def checkpoint(self) -> None:
        """Meddle."""
        if self._at_checkpoint is not None:
            self._at_checkpoint(self)

    def problem(self, problem: FileProblem, name: bytes) -> None:
        """Remember."""
        assert problem.path == os.fsdecode(name.removeprefix(b"./"))
        self.problems.append((problem.kind.value, problem.path, problem.detail))


def archived(subject: Path, output: Output) -> Output:
    """The whole subject."""
    write_archive(Walking(root=subject, names=(".",)), output, output.problem)
    return output


def unpacked(output: Output, target: Path) -> Path:
    """By GNU tar."""
    target.mkdir()
    command = ["tar", "--extract", "--file=-", f"--directory={target}", "--acls", "--xattrs", "--xattrs-include=*"]
    subprocess.run([*command, "--numeric-owner", "--preserve-permissions"], input=output.content, check=True)
    return target


def once(meddle: Callable[[], object], when: Callable[[Output], bool] = lambda _: True) -> Meddle:
    """Do it the first time that it is time to."""
    done = []

    def perhaps(output: Output) -> None:
        if not done and when(output):
            done.append(1)
            meddle()

    return perhaps


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    root = tmp_path / "subject"
    (root / "d").mkdir(parents=True)
    (root / "d" / "inside").write_text("inside")
    (root / "a").write_bytes(b"a" * 2 * MIB)
    (root / "z").write_text("last")
    return root


def test_a_file_that_shrinks_is_padded_and_named(subject: Path, tmp_path: Path) -> None:
    """Never a torn archive: what follows it is whole."""
    output = archived(subject, Output(at_piece=once(lambda: os.truncate(subject / "a", MIB))))

    assert output.problems == [("changed", "a", f"File shrank by {MIB} bytes; padding with zeros")]
    target = unpacked(output, tmp_path / "target")
    assert (target / "a").read_bytes() == b"a" * MIB + bytes(MIB)
    assert (target / "z").read_text() == "last"


def test_a_file_that_grows_is_cut_and_named(subject: Path, tmp_path: Path) -> None:
    """As long as it was when it was opened."""

    def grow() -> None:
        with (subject / "a").open("ab") as file:
            file.write(b"more")

    output = archived(subject, Output(at_piece=once(grow)))

    assert output.problems == [("changed", "a", "file changed as we read it")]
    assert (unpacked(output, tmp_path / "target") / "a").read_bytes() == b"a" * 2 * MIB


def test_a_sparse_file_that_shrinks_is_padded_and_named(subject: Path, tmp_path: Path) -> None:
    """Its map was written before."""
    with (subject / "a").open("wb") as file:
        for at in (0, 4 * MIB, 8 * MIB):
            file.seek(at)
            file.write(b"x" * MIB)

    output = archived(subject, Output(at_piece=once(lambda: os.truncate(subject / "a", MIB))))

    assert [problem[:2] for problem in output.problems] == [("changed", "a")]
    target = unpacked(output, tmp_path / "target")
    assert (target / "a").read_bytes() == b"x" * MIB + bytes(8 * MIB)
    assert (target / "z").read_text() == "last"


def test_what_vanishes_after_it_was_found_is_named(subject: Path) -> None:
    """Files, and directories with all that is in them."""

    def remove() -> None:
        (subject / "z").unlink()
        shutil.rmtree(subject / "d")

    output = archived(subject, Output(at_piece=once(remove)))

    assert sorted(output.problems) == [
        ("changed", ".", "file changed as we read it"),
        ("vanished", "d", "File removed before we read it"),
        ("vanished", "z", "File removed before we read it"),
    ]


def test_a_directory_that_became_a_symbolic_link_is_archived_as_one(subject: Path, tmp_path: Path) -> None:
    """And not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")

    def replace() -> None:
        shutil.rmtree(subject / "d")
        (subject / "d").symlink_to(outside)

    output = archived(subject, Output(at_piece=once(replace)))

    target = unpacked(output, tmp_path / "target")
    assert os.readlink(target / "d") == str(outside)  # noqa: PTH115  # compared as text
    assert b"secret" not in output.content


def test_a_directory_that_keeps_turning_into_a_link_is_never_followed(subject: Path, tmp_path: Path) -> None:
    """Whatever the moment: nothing from outside is ever in an archive, and each archive is whole."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "inside").write_text("secret")
    (tmp_path / "link").symlink_to(outside)
    (subject / "a").unlink()
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            (subject / "d").rename(tmp_path / "aside")
            (tmp_path / "link").rename(subject / "d")
            (subject / "d").rename(tmp_path / "link")
            (tmp_path / "aside").rename(subject / "d")

    flipping = threading.Thread(target=flip)
    flipping.start()
    try:
        outputs = [archived(subject, Output()) for _ in range(100)]
    finally:
        stop.set()
        flipping.join()

    assert [output for output in outputs if b"secret" in output.content] == []
    kinds = {kind for output in outputs for kind, _, _ in output.problems}
    assert kinds <= {"changed", "vanished", "unreadable"}
    for output in outputs[::25]:
        subprocess.run(["tar", "--list", "--file=-"], input=output.content, check=True, capture_output=True)


def deep(subject: Path, levels: int, name: str) -> None:
    """A chain of directories, each with a second directory beside the next one, made without a long path."""
    at = os.open(subject, os.O_RDONLY)
    for level in range(levels):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
        os.mkdir("z", dir_fd=at)
        os.close(os.open(f"file-{level}", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)


def remove_deep(subject: Path) -> None:
    """The shell's `rm` knows how; `shutil` does not."""
    subprocess.run(["rm", "-rf", subject], check=True)


def test_a_tree_deeper_than_the_longest_path_is_archived_whole(subject: Path) -> None:
    """With few directories open at once; those above are found again on the way back."""
    deep(subject, 300, "n" * 40)
    before = len(list(Path("/proc/self/fd").iterdir()))
    most = 0

    def count(output: Output) -> None:
        nonlocal most
        most = max(most, len(list(Path("/proc/self/fd").iterdir())))

    output = archived(subject, Output(at_checkpoint=count))
    remove_deep(subject)

    assert output.problems == []
    names = [line.partition(b'"')[2] for line in output.lines.splitlines()]
    assert len(names) == 5 + 3 * 300
    assert max(map(len, names)) > 3 * 4096
    assert names[-1] == b"./" + b"n" * 40 + b'/z/"'
    assert most < before + 100
    listed = subprocess.run(["tar", "--list", "--file=-"], input=output.content, check=True, capture_output=True)
    assert [name + b'"' for name in listed.stdout.splitlines()] == names


def test_what_is_left_of_a_directory_that_cannot_be_found_again_is_named(subject: Path, tmp_path: Path) -> None:
    """It was closed while we were deep below it, and was moved away meanwhile: the walk goes on with the others."""
    deep(subject, 150, "n")
    (subject / "zz").mkdir()
    (subject / "zz" / "file").write_text("file")
    seen = 0

    def move(output: Output) -> None:
        nonlocal seen
        seen += 1
        if seen == 250:
            (subject / "n" / "n").rename(tmp_path / "below")
            (subject / "n").rename(tmp_path / "above")

    output = archived(subject, Output(at_checkpoint=move))
    remove_deep(tmp_path / "below")

    assert ("unreadable", "n/z", "Cannot open: its directory was moved meanwhile") in output.problems
    assert {path for kind, path, _ in output.problems if kind != "changed"} == {"n/z"}
    names = [line.partition(b'"')[2] for line in output.lines.splitlines()]
    assert b"./" + b"n/" * 150 + b'z/"' in names
    assert names[-1] == b'./zz/file"'


@needs_another_user
def test_what_may_not_be_read_is_named_in_the_words_of_gnu_tar(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A file, a directory, and what is in one that may be listed but not entered; the rest is there."""
    with open_directory() as place:
        subject = place / "subject"
        for name in ("closed", "listed"):
            (subject / name).mkdir(parents=True)
            (subject / name / "file").write_text("file")
        (subject / "secret").write_text("secret")
        (subject / "z").write_text("z")
        for name, mode in (("closed", 0o700), ("listed", 0o744), ("secret", 0o600)):
            (subject / name).chmod(mode)
        with nobody():
            output = archived(subject, Output())

    assert sorted(output.problems) == [
        ("unreadable", "closed", "Cannot open: Permission denied"),
        ("unreadable", "listed/file", "Cannot stat: Permission denied"),
        ("unreadable", "secret", "Cannot open: Permission denied"),
    ]
    target = unpacked(output, tmp_path_factory.mktemp("unreadable") / "target")
    assert set(photograph(target)) == {b".", b"closed", b"listed", b"z"}


def test_a_file_that_is_replaced_by_a_directory_is_taken_as_it_is(subject: Path, tmp_path: Path) -> None:
    """The name was found as a file, and is looked at again."""

    def replace() -> None:
        (subject / "z").unlink()
        (subject / "z").mkdir()
        (subject / "z" / "new").write_text("new")

    output = archived(subject, Output(at_piece=once(replace)))

    assert (unpacked(output, tmp_path / "target") / "z" / "new").read_text() == "new"


def test_without_changes_there_are_no_problems(subject: Path, tmp_path: Path) -> None:
    """What the other tests compare with."""
    output = archived(subject, Output())

    assert output.problems == []
    assert differences(photograph(subject), photograph(unpacked(output, tmp_path / "target"))) == []
