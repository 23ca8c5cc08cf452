"""What a set has in it, told without restoring it, is what was there when the set was made."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from handlers.contents import Contents, Entry, EntryType
from handlers.contract import ProblemKind, SetReader
from handlers.errors import IntegrityError, PermanentError
from handlers.tar_level import TarHandler
from tests.integration.test_tar_chains import history, somewhere
from tests.workshop.another_user import needs_another_user, nobody
from tests.workshop.comparer import Photograph, photograph
from tests.workshop.edits import Step, steps
from tests.workshop.furnished import furnish
from tests.workshop.tar_levels import Plan
from tests.workshop.tar_sets import Chain, archive_of, directory, member, stored_set

CHAINS = int(os.environ.get("HOLDFAST_CHAINS", "5"))
LETTERS = {
    EntryType.FILE: "-",
    EntryType.DIRECTORY: "d",
    EntryType.SYMLINK: "l",
    EntryType.FIFO: "p",
    EntryType.BLOCK_DEVICE: "b",
    EntryType.CHARACTER_DEVICE: "c",
}


def contents_of(chain: Sequence[SetReader]) -> Contents:
    """The state of the last set."""
    return TarHandler().contents(chain, lambda: None)


def names(entries: Iterator[Entry]) -> list[bytes]:
    """Whole paths."""
    return [entry.path for entry in entries]


def read(contents: Contents, path: bytes) -> bytes:
    """A file's content."""
    found = contents.look(path)
    assert found is not None
    return b"".join(contents.read(found[0]))


def assert_shows(contents: Contents, subject: Photograph) -> None:
    """Every name, attribute and content, whichever way one asks; sets of hard links are one file each."""
    walked = {entry.path: entry for entry in contents.walk(b".")}
    assert set(walked) == set(subject) - {b"."}
    inside: dict[bytes, list[bytes]] = {}
    for path, entry in walked.items():
        facts = subject[path]
        inside.setdefault(path.rpartition(b"/")[0] or b".", []).append(path)
        assert entry.missing is None
        assert (LETTERS[entry.type], entry.mode) == (facts.type, facts.mode)
        assert (entry.uid, entry.gid, entry.target, entry.device) == (facts.uid, facts.gid, facts.target, facts.device)
        assert abs(entry.mtime_ns or 0) == abs(facts.mtime_ns)  # GNU tar's listing has no sign close to 1970
        assert entry.size == (facts.size or 0)
        if facts.type == "-":
            assert sum(map(len, contents.read(entry))) == facts.size
        if facts.shares:
            assert {walked[shared].place for shared in facts.shares} == {entry.place}
    for path in [b".", *walked]:
        found = contents.look(path)
        assert found is not None
        entry, below = found
        assert names(below) == sorted(inside.get(path, []))
        assert path == b"." or entry == walked[path]


@settings(max_examples=CHAINS, deadline=None, suppress_health_check=list(HealthCheck))
@given(taken=steps)
def test_each_point_in_time_is_shown_as_it_was(taken: list[Step]) -> None:
    """Any levels over any changes: renames, deletions, hard links, sparse files, other types, odd names."""
    with somewhere(on_disk=False) as place:
        for point in history(place, taken)[1]:
            assert_shows(contents_of(point.chain), point.subject)


def test_the_levels_of_gnu_tar_itself_are_read_with_their_renames(chain: Chain, subject: Path) -> None:
    """A file that did not change since lies in an older archive under the old name of its directory."""
    chain.back_up()
    (subject / "d").rename(subject / "moved")
    (subject / "plain").unlink()
    chain.back_up()

    contents = contents_of(chain.sets)

    assert names(contents.walk(b".")) == [b"moved", b"moved/a", b"moved/sub", b"moved/sub/deep"]
    assert read(contents, b"moved/sub/deep") == b"deep"
    assert contents.look(b"d/sub/deep") is None
    assert contents.look(b"plain") is None


def test_a_set_that_was_made_without_gnu_tar_shows_the_same(plan: Plan, subject: Path) -> None:
    """With all that a tree can have."""
    furnish(subject)
    plan.back_up(level=0, engine="internal")

    assert_shows(contents_of(plan.sets), photograph(subject))


def test_without_lists_a_directory_has_what_the_index_has_in_it() -> None:
    """A level 0 of a program that writes no lists of names."""
    archive = archive_of(directory(b"./", None), directory(b"./d/", None), member(b"./d/f", content=b"text"))
    line = b'block %d: %s 0/0 %d 2026-11-21 04:55:47.000000000 "%s"\n'
    index = b"".join(
        line % values
        for values in ((0, b"drwxr-xr-x", 0, b"./"), (1, b"drwxr-xr-x", 0, b"./d/"), (2, b"-rw-r--r--", 4, b"./d/f"))
    )
    contents = contents_of([stored_set(0, archive, index)])

    assert names(contents.walk(b".")) == [b"d", b"d/f"]
    assert read(contents, b"d/f") == b"text"


def test_a_path_may_be_written_in_several_ways(plan: Plan) -> None:
    """With dots and slashes around it; but not so that it leaves the subject."""
    plan.back_up()
    contents = contents_of(plan.sets)

    for path in (b"d/a", b"./d/a", b"d/a/"):
        found = contents.look(path)
        assert found is not None
        assert found[0].path == b"d/a"
    for path in (b"../d", b"/d/a", b"d/../d"):
        with pytest.raises(PermanentError, match="can be in no set"):
            contents.look(path)


def test_only_the_directory_that_is_asked_for_is_shown(plan: Plan, subject: Path) -> None:
    """Not what merely begins with its name, and names that need quoting are found, too."""
    odd = b'd \xff\n"q\\'
    for name in (b"d.d", b"d d", odd, odd + b"/below"):
        Path(os.fsdecode(os.fsencode(subject) + b"/" + name)).mkdir()
    plan.back_up()
    (subject / "d" / "new").write_text("new")
    plan.back_up()
    contents = contents_of(plan.sets)

    assert names(contents.walk(b"d")) == [b"d/a", b"d/new", b"d/sub", b"d/sub/deep"]
    found = contents.look(odd)
    assert found is not None
    assert names(found[1]) == [odd + b"/below"]


def test_what_the_plan_names_below_the_top_is_shown_with_the_directories_above(plan: Plan, subject: Path) -> None:
    """Those have no attributes in the set; a file that the plan names is as the newest level has it."""
    plan.back_up(include=("plain", "d/sub"))
    (subject / "d" / "sub" / "deep").write_text("changed")
    (subject / "d" / "sub" / "other").write_text("other")
    plan.back_up(include=("plain", "d/sub"))
    contents = contents_of(plan.sets)

    assert names(contents.walk(b".")) == [b"d", b"plain", b"d/sub", b"d/sub/deep", b"d/sub/other"]
    found = contents.look(b"d")
    assert found is not None
    assert found[0] == Entry(b"d", EntryType.DIRECTORY)
    assert names(found[1]) == [b"d/sub"]
    assert read(contents, b"d/sub/deep") == b"changed"
    assert read(contents, b"plain") == b"plain" * 1000


def test_what_was_left_out_on_purpose_is_not_missing(plan: Plan, subject: Path) -> None:
    """What is excluded is as if it were not there; a socket was there, and cannot be in a set."""
    plan.options["exclude"] = ("*.tmp",)
    (subject / "d" / "x.tmp").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(subject / "socket"))
        plan.back_up()
    (subject / "d" / "b").write_text("b")
    plan.back_up()

    for chain in (plan.sets[:1], plan.sets):
        contents = contents_of(chain)
        assert b"d/x.tmp" not in names(contents.walk(b"."))
        found = contents.look(b"socket")
        assert found is not None
        assert found[0].missing is ProblemKind.SOCKET
        assert found[0] in list(contents.walk(b"."))


@needs_another_user
def test_what_could_not_be_read_is_shown_as_such(open_plan: Plan) -> None:
    """A file and a directory, until a level has them."""
    subject = open_plan.subject
    (subject / "open").write_text("open")
    (subject / "secret").write_text("secret")
    (subject / "dark").mkdir()
    (subject / "dark" / "file").write_text("file")
    for name in ("secret", "dark"):
        (subject / name).chmod(0)
    with nobody():
        open_plan.back_up()

    contents = contents_of(open_plan.sets)

    shown = {entry.path: entry.missing for entry in contents.walk(b".")}
    assert shown[b"secret"] is shown[b"dark"] is ProblemKind.UNREADABLE
    assert shown[b"open"] is None
    for path in (b"secret", b"dark"):
        found = contents.look(path)
        assert found is not None
        assert found[0].missing is ProblemKind.UNREADABLE
    assert contents.look(b"dark/file") is None


def test_any_piece_of_a_file_can_be_read(plan: Plan, subject: Path) -> None:
    """Holes included, across frames, and behind the end."""
    with (subject / "sparse").open("wb") as file:
        for place in (0, 5 << 20, 9_999_999):
            file.seek(place)
            file.write(os.urandom(70_000))
        file.truncate(12 << 20)
    plan.back_up()
    content = (subject / "sparse").read_bytes()
    contents = contents_of(plan.sets)
    found = contents.look(b"sparse")
    assert found is not None

    assert b"".join(contents.read(found[0])) == content
    for at, length in (
        (0, 1),
        (69_990, 100),
        ((5 << 20) - 7, 80_000),
        (9_000_000, 2 << 20),
        (12 << 20, 5),
        (1 << 40, 1),
    ):
        assert b"".join(contents.read(found[0], at, length)) == content[at : at + length]


def test_little_is_read_for_one_file(plan: Plan, subject: Path) -> None:
    """The index and a frame or two, of an archive of many frames; of older levels nothing that is not needed."""
    for number in range(24):
        (subject / f"block-{number:02}").write_bytes(os.urandom(1 << 20))
    plan.back_up()
    (subject / "block-05").write_bytes(os.urandom(1 << 20))
    plan.back_up()
    stored = sum(part.size_bytes for level in plan.sets for part in level.parts.values())
    contents = contents_of(plan.sets)

    found = contents.look(b"block-17")
    assert found is not None
    digest = hashlib.sha256(b"".join(contents.read(found[0]))).digest()

    assert digest == hashlib.sha256((subject / "block-17").read_bytes()).digest()
    assert found[0].held_by == "set-0"
    assert contents.bytes_read < 11 << 20 < stored / 2


def test_nothing_of_a_damaged_frame_is_given_out(plan: Plan, subject: Path) -> None:
    """What came before it is; the index is checked whole before it is believed."""
    (subject / "long").write_bytes(os.urandom(16 << 20))
    plan.back_up()
    data = plan.sets[0].directory / "data.tar.zst"
    with data.open("r+b") as file:
        file.seek(9 << 20)
        file.write(b"damaged")
    contents = contents_of(plan.sets)
    found = contents.look(b"long")
    assert found is not None
    given: list[bytes] = []

    with pytest.raises(IntegrityError, match="frame 2"):
        given.extend(contents.read(found[0]))

    assert 0 < sum(map(len, given)) <= 8 << 20
    assert (subject / "long").read_bytes().startswith(b"".join(given))
