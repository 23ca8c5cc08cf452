"""Subjects that change while real GNU tar reads them: what is said of it, what is in the archive, what heals it."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from handlers.contract import ProblemKind, Produced
from handlers.errors import TemporaryError
from handlers.tools import confine
from handlers.tools.tar.records import END, Records
from tests.workshop.interfering import Blocked
from tests.workshop.tar_levels import Plan, Recorder, listed, text_of, unpacked
from tests.workshop.tar_sets import tree_of

OUTSIDE = "outside the subject"


class Race(NamedTuple):
    """What happens to a directory of the subject while tar archives `big`, before it comes to the files in it."""

    happens: Callable[[Path], object]
    said: set[tuple[str, str]]


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _append_in_secret(path: Path) -> None:
    before = path.stat()
    _append(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _lead_out(place: Path, outside: Path) -> None:
    place.rename(outside.parent / "swapped")
    place.symlink_to(outside / "d")


WHILE_READ: dict[str, Callable[[Path], object]] = {
    "it grows": _append,
    "it shrinks": lambda big: os.truncate(big, 100),
    "it is emptied": lambda big: os.truncate(big, 0),
    "it grows and its time is set back": _append_in_secret,
    "it gets another name": lambda big: os.link(big, big.parent / "d/name"),
}
BEFORE_READ = {
    "a file vanishes": Race(lambda p: (p / "d/f").unlink(), {("vanished", "d/f")}),
    "a file loses one of its names": Race(lambda p: (p / "d/hard").unlink(), {("vanished", "d/hard")}),
    "a file grows": Race(lambda p: _append(p / "d/f"), set()),
    "a file becomes a link": Race(lambda p: ((p / "d/f").unlink(), (p / "d/f").symlink_to("/etc/passwd")), set()),
    "a file becomes a pipe": Race(lambda p: ((p / "d/f").unlink(), os.mkfifo(p / "d/f")), set()),
    "a new file comes": Race(lambda p: (p / "d/new").write_text("new"), set()),
    "a directory vanishes": Race(lambda p: shutil.rmtree(p / "d"), {("vanished", "d"), ("vanished", "d/sub")}),
    "a directory becomes a file": Race(
        lambda p: (shutil.rmtree(p / "e"), (p / "e").write_text("a file")), {("changed", "e")}
    ),
    "a directory becomes a link within": Race(
        lambda p: (shutil.rmtree(p / "e"), (p / "e").symlink_to("d")), {("changed", "e")}
    ),
    "a directory becomes a link that leads out": Race(
        lambda p: _lead_out(p / "d", p.parent.parent / OUTSIDE), {("changed", "d"), ("changed", "d/sub")}
    ),
    "a directory is renamed": Race(
        lambda p: (p / "d").rename(p / "renamed"), {("vanished", "d"), ("vanished", "d/sub")}
    ),
    "a directory is moved away and back": Race(lambda p: ((p / "d").rename(p / "t"), (p / "t").rename(p / "d")), set()),
}


def fill(subject: Path, text: str) -> None:
    """`big` is more than a pipe holds, and comes first."""
    subject.mkdir(exist_ok=True)
    (subject / "big").write_bytes(os.urandom(1 << 20) * 3)
    _fill_place(subject, text)
    outside = subject.parent / OUTSIDE
    _fill_place(outside, OUTSIDE)


def _fill_place(place: Path, text: str) -> None:
    (place / "d/sub").mkdir(parents=True, exist_ok=True)
    (place / "e").mkdir(exist_ok=True)
    for name in ("d/f", "d/g", "d/sub/deep", "e/f", "z"):
        (place / name).write_text(f"{name} {text}")
    (place / "d/hard").unlink(missing_ok=True)
    os.link(place / "d/g", place / "d/hard")


def said_of(produced: Produced) -> dict[tuple[str, str], int]:
    """How often each problem is told."""
    problems = [(problem.kind.value, problem.path) for problem in produced.problems]
    assert sum(produced.problem_counts.values()) == len(problems)
    return {problem: problems.count(problem) for problem in problems}


def require_whole(plan: Plan) -> Path:
    """Plain GNU tar lists and unpacks the chain without a word, the handler does so too."""
    (data,) = plan.sets[-1].directory.glob("data.tar*")
    done = subprocess.run(["tar", "--list", f"--file={data}"], check=True, capture_output=True)
    assert done.stderr == b""
    target = unpacked(plan)
    mine = plan.place / f"mine-{len(plan.sets)}"
    mine.mkdir()
    plan.handler.restore(plan.sets, mine, (), plan.control)
    assert tree_of(mine) == tree_of(target)
    return target


def slow(place: Path) -> Plan:
    """A plan whose tar has to wait for us: uncompressed, nothing is faster than the pipe."""
    (place / "store").mkdir()
    fill(place / "subject", "first")
    return Plan(place / "store", place / "subject", codec="none")


@pytest.fixture
def racing(tmp_path: Path) -> Plan:
    """For one race."""
    return slow(tmp_path)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("what", WHILE_READ)
def test_a_file_that_changes_while_it_is_read_is_named_once_and_comes_again(
    racing: Plan, what: str, level: int
) -> None:
    """The archive is not torn: what is missing is filled up with zeros, what comes late is left for the next level."""
    subject = racing.subject
    if level:
        racing.back_up()
        fill(subject, "second")
    racing.control = Blocked(subject, lambda: WHILE_READ[what](subject / "big"))

    produced = racing.back_up()

    assert said_of(produced) == {("changed", "big"): 1}
    assert not any(kind.is_loss for kind in produced.problem_counts)
    require_whole(racing)
    racing.control = Recorder()
    assert said_of(racing.back_up()) == {}
    assert tree_of(require_whole(racing)) == tree_of(subject)


class Aftermath(NamedTuple):
    """What came of a level with all races, and of the next one."""

    plan: Plan
    raced: Produced
    healing: Produced
    restored: tuple[Path, Path]


@pytest.fixture(scope="module", params=[0, 1])
def aftermath(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    """All races of BEFORE_READ at once, at level 0 or 1."""
    plan = slow(tmp_path_factory.mktemp("races"))
    places = {what: plan.subject / what for what in BEFORE_READ}
    for place in places.values():
        _fill_place(place, "first")
    if request.param:
        plan.back_up()
        fill(plan.subject, "second")
        for place in places.values():
            _fill_place(place, "second")
    plan.control = Blocked(plan.subject, lambda: [BEFORE_READ[what].happens(place) for what, place in places.items()])
    raced = plan.back_up()
    first = require_whole(plan)
    plan.control = Recorder()
    return Aftermath(plan, raced, plan.back_up(), (first, require_whole(plan)))


@pytest.mark.parametrize("what", BEFORE_READ)
def test_what_happens_before_tar_comes_to_it_is_named(aftermath: Aftermath, what: str) -> None:
    """By its kind, once; what is archived as it is now needs no word."""
    said = said_of(aftermath.raced)

    mine = {(kind, path.removeprefix(f"{what}/")): count for (kind, path), count in said.items() if what in path}
    assert mine == dict.fromkeys(BEFORE_READ[what].said, 1)


def test_nothing_of_it_is_a_loss(aftermath: Aftermath) -> None:
    """All is said, and what was deleted, nobody wanted."""
    assert not any(kind.is_loss for kind in aftermath.raced.problem_counts)


def test_the_next_level_heals_it_all(aftermath: Aftermath) -> None:
    """And tells of nothing but the directory that was renamed."""
    renamed = "a directory is renamed/renamed"

    assert said_of(aftermath.healing) == {("renamed", renamed): 1}
    assert tree_of(aftermath.restored[1]) == tree_of(aftermath.plan.subject)


@pytest.mark.skipif(not confine.is_possible(), reason="needs Landlock")
def test_nothing_from_outside_the_subject_is_archived(aftermath: Aftermath) -> None:
    """GNU tar would follow the link that took the place of a directory on its way."""
    for target in aftermath.restored:
        for path in target.rglob("*"):
            assert path.is_symlink() or not path.is_file() or OUTSIDE.encode() not in path.read_bytes()


def _many_directories(subject: Path) -> None:
    for number in range(800):
        (subject / f"a{number:04}").mkdir()


TYPE_CHANGES: dict[str, Callable[[Path], object]] = {
    "a directory becomes a file": lambda s: (shutil.rmtree(s / "d"), (s / "d").write_text("a file")),
    "a directory becomes a link that leads out": lambda s: _lead_out(s / "d", s.parent / OUTSIDE),
    "a directory becomes a link within": lambda s: (shutil.rmtree(s / "d"), (s / "d").symlink_to("e")),
    "a file becomes a directory": lambda s: ((s / "z").unlink(), (s / "z/in").mkdir(parents=True)),
}


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("what", TYPE_CHANGES)
def test_an_archive_that_would_be_torn_is_not_kept(racing: Plan, what: str, level: int) -> None:
    """Where tar saw one thing and archives another, GNU tar could not unpack it over the level before: try again."""
    subject = racing.subject
    if level:
        racing.back_up()
        fill(subject, "second")
    if what != "a file becomes a directory":
        _many_directories(subject)
    racing.control = Blocked(subject, lambda: TYPE_CHANGES[what](subject))

    with pytest.raises(TemporaryError, match="was replaced while tar read the subject"):
        racing.back_up()

    shutil.rmtree(racing.place / f"set-{level}")
    racing.control = Recorder()
    assert said_of(racing.back_up()) == {}
    assert tree_of(require_whole(racing)) == tree_of(subject)


@pytest.mark.parametrize("level", [0, 1])
def test_a_directory_that_vanishes_before_tar_comes_to_it_is_named(racing: Plan, level: int) -> None:
    """It is in no list and no member: nothing is torn."""
    subject = racing.subject
    if level:
        racing.back_up()
        fill(subject, "second")
    _many_directories(subject)
    racing.control = Blocked(subject, lambda: shutil.rmtree(subject / "d"))

    produced = racing.back_up()

    assert {kind for kind, _ in said_of(produced)} == {"vanished"}
    assert {path for _, path in said_of(produced)} == {"d", "d/sub"}
    require_whole(racing)
    racing.control = Recorder()
    racing.back_up()
    assert tree_of(require_whole(racing)) == tree_of(subject)


def _pretend_made_now(plan: Plan) -> None:
    """As if the clock had been ahead when the last level was made: all of the subject looks older than that."""
    records = Records([text_of(plan, "tree.snar.zst")])
    forged = records.head(time.time_ns()) + b"".join(record.raw + END for record in records)
    last = plan.sets[-1]
    path = last.directory / "tree.snar.zst"
    subprocess.run(["zstd", "-q", "-f", "-o", path], input=forged, check=True)
    content = path.read_bytes()
    part = replace(last.parts[path.name], size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    last.parts = {**last.parts, path.name: part}


def test_what_changed_is_taken_again_whatever_its_times_say(racing: Plan) -> None:
    """It is struck out of the snapshot, like what could not be read."""
    racing.control = Blocked(racing.subject, lambda: _append_in_secret(racing.subject / "big"))
    assert said_of(racing.back_up()) == {("changed", "big"): 1}
    racing.control = Recorder()
    _pretend_made_now(racing)

    racing.back_up()

    assert listed(racing) == ["big"]
    assert tree_of(require_whole(racing)) == tree_of(racing.subject)


def test_sockets_are_problems_but_no_loss(plan: Plan, subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket cannot be archived, and need not be; it is named once in a chain, like what is in an archive."""
    monkeypatch.chdir(subject)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        first, second = plan.back_up(), plan.back_up()
        with socket.socket(socket.AF_UNIX) as another:
            another.bind("another")
            third = plan.back_up()

    assert [said_of(produced) for produced in (first, second, third)] == [
        {("socket", "sock"): 1},
        {},
        {("socket", "another"): 1},
    ]
    assert not any(kind.is_loss for kind in first.problem_counts)


def test_all_problems_are_recorded_in_their_part(racing: Plan) -> None:
    """With the names as they are, however strange."""
    subject = racing.subject
    name = b'd/bad\xff"\n\\x0a: Cannot open'
    Path(os.fsdecode(os.fsencode(subject) + b"/" + name)).write_text("x")
    racing.control = Blocked(subject, lambda: Path(os.fsdecode(os.fsencode(subject) + b"/" + name)).unlink())

    racing.back_up()

    recorded = [orjson.loads(line) for line in text_of(racing, "problems.zst").splitlines()]
    assert [(line["kind"], line["path"]) for line in recorded] == [
        ("vanished", r'd/bad\xff"\x0a\\x0a: Cannot open'),
    ]
    assert ProblemKind(recorded[0]["kind"]).is_tried_again
