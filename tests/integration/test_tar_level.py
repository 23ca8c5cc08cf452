"""The tar handler with real GNU tar on real trees; what it made is unpacked with plain tools."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import orjson
import psutil
import pytest

from handlers.contract import ProblemKind, Progress
from handlers.errors import Cancelled, IntegrityError, PermanentError, TemporaryError
from handlers.tar_level import TarHandler
from handlers.tools.codecs import Codec
from tests.workshop.tar_levels import Plan, Recorder
from tests.workshop.tar_sets import tree_of

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="needs root")
needs_another_user = pytest.mark.skipif(not is_root, reason="root becomes another user here")


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    root = tmp_path / "subject"
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "a").write_text("a")
    (root / "d" / "sub" / "deep").write_text("deep")
    (root / "plain").write_text("plain" * 1000)
    return root


@pytest.fixture
def plan(tmp_path: Path, subject: Path) -> Plan:
    place = tmp_path / "store"
    place.mkdir()
    return Plan(place, subject)


def unpacked(plan: Plan) -> Path:
    """The chain restored by hand."""
    target = plan.place / f"restored-{len(plan.sets)}"
    target.mkdir()
    for made in plan.sets:
        (data,) = made.directory.glob("data.tar*")
        subprocess.run(
            [
                *("tar", "--extract", f"--file={data}", f"--directory={target}", "--listed-incremental=/dev/null"),
                *("--numeric-owner", "--preserve-permissions", "--acls", "--xattrs", "--xattrs-include=*"),
            ],
            check=True,
        )
    return target


def text_of(plan: Plan, name: str) -> bytes:
    """A part of the last set, decompressed by the plain tool."""
    return subprocess.run(["zstd", "-dc", plan.sets[-1].directory / name], check=True, capture_output=True).stdout


def listed(plan: Plan) -> list[str]:
    """The names in the last set as the plain tool lists them, directories left out."""
    (data,) = plan.sets[-1].directory.glob("data.tar*")
    done = subprocess.run(
        ["tar", "--list", f"--file={data}", "--quoting-style=c"], check=True, capture_output=True, text=True
    )
    return sorted(name.strip('"').removeprefix("./") for name in done.stdout.splitlines() if not name.endswith('/"'))


def test_a_level_zero_unpacks_with_plain_tar(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """No incremental switch, no Holdfast: `tar -xf` gives the tree."""
    plan.back_up()

    target = tmp_path / "plain"
    target.mkdir()
    subprocess.run(["tar", "-xf", plan.sets[0].directory / "data.tar.zst", "-C", target], check=True)
    assert tree_of(target) == tree_of(subject)


@pytest.mark.parametrize("codec", list(Codec))
def test_every_codec_makes_a_file_that_plain_tar_unpacks(plan: Plan, subject: Path, codec: Codec) -> None:
    """The suffix and the part's record say which one it is."""
    produced = plan.back_up(codec=codec, strength=3)

    data = produced.parts[0]
    assert (data.name, data.codec) == ("data.tar" + codec.suffix, codec)
    assert data.frames is not None
    assert tree_of(unpacked(plan)) == tree_of(subject)


def test_a_chain_brings_back_changes_deletions_and_renames(plan: Plan, subject: Path) -> None:
    """Each level holds what changed, and the chain gives the last state."""
    plan.back_up()
    (subject / "new").write_text("new")
    (subject / "d" / "a").unlink()
    plan.back_up()
    (subject / "d" / "sub").rename(subject / "moved")
    (subject / "plain").write_text("changed")
    plan.back_up()

    assert tree_of(unpacked(plan)) == tree_of(subject)
    assert [made.level for made in plan.sets] == [0, 1, 2]


def test_a_level_with_nothing_new_holds_directories_only(plan: Plan) -> None:
    """A no-change increment is small, even when nothing but the index tells."""
    plan.back_up()

    produced = plan.back_up()

    assert listed(plan) == []
    assert produced.files == 3


def test_a_lower_level_can_be_made_again_from_its_parent(plan: Plan, subject: Path) -> None:
    """The parent's snapshot is never changed: level 1 after level 2 holds everything since level 0."""
    plan.back_up()
    (subject / "one").write_text("1")
    plan.back_up()
    (subject / "two").write_text("2")
    plan.back_up()

    shutil.rmtree(plan.place / "set-1")
    plan.back_up(level=1)

    assert listed(plan) == ["one", "two"]


def test_the_numbers_are_those_of_the_archive(plan: Plan, subject: Path) -> None:
    """Members are counted with directories; newlines in names count nothing."""
    (subject / "new\nline\n").write_text("x")

    produced = plan.back_up(codec="none")

    assert produced.files == sum(1 for _ in subject.rglob("*")) + 1
    assert produced.bytes_in == (plan.sets[0].directory / "data.tar").stat().st_size
    assert produced.tools["tar"]
    assert produced.problems == ()
    assert not (plan.sets[0].directory / "problems.zst").exists()


def test_started_is_said_once_and_progress_ends_with_the_truth(plan: Plan) -> None:
    """The worker's events come from here."""
    produced = plan.back_up()

    assert plan.control.calls == ["started"]
    assert plan.control.reports[-1] == Progress(
        files=produced.files, bytes_in=produced.bytes_in, bytes_out=produced.parts[0].size_bytes
    )


def test_every_member_starts_at_the_block_that_the_index_names(plan: Plan, subject: Path) -> None:
    """Random access stands on this: of any member, tar reading from there finds it first."""
    (subject / ("n" * 200)).write_text("long name")
    os.link(subject / "plain", subject / "z-hard")
    (subject / "symlink").symlink_to("t" * 180)
    os.mkfifo(subject / "fifo")
    with (subject / "sparse").open("wb") as file:
        for at in range(0, 100 << 20, 1 << 20):
            file.seek(at)
            file.write(b"x")
    os.setxattr(subject / "plain", "user.key", b"value")
    if is_root:
        os.mknod(subject / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))

    plan.back_up(codec="none")

    archive = (plan.sets[0].directory / "data.tar").read_bytes()
    lines = text_of(plan, "index.zst").decode().splitlines()
    assert len(lines) == sum(1 for _ in subject.rglob("*")) + 1
    for line in lines:
        block, rest = line.removeprefix("block ").split(": ", 1)
        name = rest.split(' "', 1)[1].split('"')[0]
        first = subprocess.run(
            ["tar", "--list", "--quoting-style=c"], input=archive[int(block) * 512 :], check=True, capture_output=True
        ).stdout.splitlines()[0]
        assert first.decode() == f'"{name}"'


def test_hard_links_symlinks_holes_times_and_attributes_come_back(plan: Plan, subject: Path) -> None:
    """What is there is what comes back, and a hole stays a hole."""
    os.link(subject / "plain", subject / "d" / "hard")
    (subject / "to-nowhere").symlink_to("nowhere")
    os.mkfifo(subject / "fifo")
    with (subject / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    os.setxattr(subject / "plain", "user.key", b"wo\0rld")
    subprocess.run(["setfacl", "-m", "u:1234:r", subject / "plain"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rx", subject / "d"], check=True)
    os.utime(subject / "plain", ns=(5, 1_234_567_890_123_456_789))
    (subject / "d").chmod(0o2750)

    produced = plan.back_up()

    target = unpacked(plan)
    assert tree_of(target) == tree_of(subject)
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20
    assert produced.bytes_in < 1 << 20


@pytest.mark.parametrize(
    ("options", "kept"), [({"acls": False}, {"user.key"}), ({"xattrs": False}, {"system.posix_acl_access"})]
)
def test_attributes_that_the_plan_leaves_out_are_left_out(
    plan: Plan, subject: Path, options: dict[str, bool], kept: set[str]
) -> None:
    """Access lists do not slip in as extended attributes, nor the other way round."""
    os.setxattr(subject / "plain", "user.key", b"value")
    subprocess.run(["setfacl", "-m", "u:1234:r", subject / "plain"], check=True)

    plan.back_up(**options)

    assert set(os.listxattr(unpacked(plan) / "plain")) == kept


@needs_root
def test_file_capabilities_and_owners_come_back(plan: Plan, subject: Path) -> None:
    """A `ping` that lost its capability is a broken restore."""
    os.chown(subject / "plain", 12345, 54321)
    os.setxattr(subject / "plain", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))

    plan.back_up()

    assert tree_of(unpacked(plan)) == tree_of(subject)


HOSTILE = (
    b"--checkpoint-action=exec=touch pwned",
    b"--checkpoint=1",
    b"-dash",
    b"new\nline",
    b"bad\377\376",
    b"quo\"te'",
    b"back\\slash\\n",
    b"a[1]",
    b"a1",
    b"* ?",
    b" ",
    b"~",
    b"@file",
    "ümläut".encode(),
    b"x" * 255,
)


@pytest.mark.parametrize("named", [False, True], ids=["found", "included"])
def test_hostile_names_are_names(plan: Plan, subject: Path, named: bool) -> None:
    """Found in the tree or given by the plan, no name becomes an option or a pattern."""
    for name in HOSTILE:
        (Path(os.fsdecode(os.fsencode(subject) + b"/" + name))).write_bytes(name)
    included = [name.decode() for name in HOSTILE if name != b"a1" and b"\377" not in name]

    plan.back_up(include=tuple(included) if named else (".",))

    expected = tree_of(subject)
    if named:
        expected = {os.fsencode(name): expected[os.fsencode(name)] for name in included}
    found = tree_of(unpacked(plan))
    assert {name: found[name] for name in found if name != b"." or not named} == expected
    assert not list(Path.cwd().glob("pwned"))


def test_only_what_is_included_is_archived(plan: Plan, subject: Path) -> None:
    """Below the names of the plan everything, elsewhere nothing, level after level."""
    (subject / "other").mkdir()
    (subject / "other" / "x").write_text("x")
    plan.back_up(include=("d/sub", "plain"))
    assert listed(plan) == ["d/sub/deep", "plain"]
    (subject / "d" / "sub" / "more").write_text("more")
    (subject / "other" / "y").write_text("y")

    plan.back_up(include=("d/sub", "plain"))

    assert listed(plan) == ["d/sub/more"]


TREE = (
    "foo",
    "d/foo",
    "d/foobar",
    "d/x.log",
    "top.log",
    "a[1]",
    "a1",
    "cache/c",
    "d/cache/c",
    "build/keep/obj/1.o",
    "build/obj/2.o",
    "star*",
    "starfish",
)


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("foo", {"foo", "d/foo"}),
        ("/foo", {"foo"}),
        ("d/foo", {"d/foo"}),
        ("*.log", {"d/x.log", "top.log"}),
        ("/*.log", {"top.log"}),
        ("fo?", {"foo", "d/foo"}),
        (r"a\[1]", {"a[1]"}),
        ("a[1]", {"a1"}),
        (r"star\*", {"star*"}),
        ("star*", {"star*", "starfish"}),
        ("cache", {"cache/c", "d/cache/c"}),
        ("/cache/", {"cache/c"}),
        ("/d/cache", {"d/cache/c"}),
        ("build/*/1.o", set()),
        ("build/**/1.o", {"build/keep/obj/1.o"}),
        ("build/**/2.o", {"build/obj/2.o"}),
        ("build/**/obj", {"build/keep/obj/1.o", "build/obj/2.o"}),
        ("oo", set()),
        ("subject", set()),
    ],
)
def test_a_pattern_leaves_out_what_its_description_says(
    plan: Plan, subject: Path, pattern: str, gone: set[str]
) -> None:
    """A leading slash stands for root; otherwise a pattern matches whole names at any depth."""
    shutil.rmtree(subject)
    for name in TREE:
        (subject / name).parent.mkdir(parents=True, exist_ok=True)
        (subject / name).write_text(name)

    produced = plan.back_up(exclude=(pattern,))

    assert set(listed(plan)) == set(TREE) - gone
    assert produced.excluded == (pattern,)


def test_a_trailing_slash_keeps_the_directory_itself(plan: Plan, subject: Path) -> None:
    """An excluded cache comes back empty, so that the application finds it."""
    plan.back_up(exclude=("sub/",))

    target = unpacked(plan)
    assert (target / "d" / "sub").is_dir()
    assert list((target / "d" / "sub").iterdir()) == []


def test_patterns_that_leave_nothing_are_an_error(plan: Plan, subject: Path) -> None:
    """An empty archive is not a backup of anything."""
    with pytest.raises(PermanentError, match="nothing to back up"):
        plan.back_up(include=("d",), exclude=("/d",))


def test_an_empty_subject_is_backed_up(plan: Plan, subject: Path) -> None:
    """A directory without files is a fine subject: the directory is the member."""
    shutil.rmtree(subject)
    subject.mkdir()

    assert plan.back_up().files == 1


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_subject_that_is_no_directory_is_refused_before_anything_runs(plan: Plan, subject: Path, kind: str) -> None:
    """A mistyped or unmounted root never becomes an empty success."""
    shutil.rmtree(subject)
    if kind == "file":
        subject.write_text("x")

    with pytest.raises(PermanentError, match=str(subject)):
        plan.handler.prepare(plan.job())

    assert len(plan.handler.check(TarHandler.Options(root=subject))) == 1


def test_names_of_which_none_is_there_are_refused(plan: Plan) -> None:
    """All that the plan names is missing."""
    with pytest.raises(PermanentError, match="nothing to back up"):
        plan.back_up(include=("nope", "d/nope"))


def test_a_name_that_is_missing_makes_the_backup_partial(plan: Plan) -> None:
    """The plan asked for it, so its absence is a loss; the rest is kept."""
    produced = plan.back_up(include=("nope", "plain"))

    assert listed(plan) == ["plain"]
    assert [(problem.kind, problem.path) for problem in produced.problems] == [(ProblemKind.UNREADABLE, "nope")]


def test_sockets_are_problems_but_no_loss(plan: Plan, subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket cannot be archived, and need not be."""
    monkeypatch.chdir(subject)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        produced = plan.back_up()

    assert [(problem.kind, problem.path) for problem in produced.problems] == [(ProblemKind.SOCKET, "sock")]
    assert not any(kind.is_loss for kind in produced.problem_counts)


def test_everything_is_fine_says_check(plan: Plan, subject: Path) -> None:
    """Nothing stands in the way."""
    assert plan.handler.check(TarHandler.Options(root=subject)) == []


def test_the_plan_can_be_looked_at_before_it_runs(plan: Plan, subject: Path) -> None:
    """A dry run shows the very command."""
    shown = plan.handler.prepare(plan.job()).describe()

    assert f"--directory={subject}" in shown["command"]  # type: ignore[operator]  # JSON says no more
    assert orjson.dumps(shown)


AS_NOBODY = """
import os, sys
from handlers.tar_level import TarHandler
from tests.workshop.tar_levels import Plan
os.setgroups([]); os.setgid(65534); os.setuid(65534)
from pathlib import Path
import orjson
plan = Plan(Path(sys.argv[1]), Path(sys.argv[2]))
for level in range(2):
    produced = plan.back_up()
    print(orjson.dumps([[p.kind, p.path, p.detail] for p in produced.problems]).decode(), flush=True)
    sys.stdin.read()
"""


@needs_another_user
def test_what_cannot_be_read_is_named_and_comes_with_the_next_level(open_place: Path) -> None:
    """Files become readable through a directory above them: their own times tell tar nothing, our snapshot does."""
    place, subject = open_place, open_place / "subject"
    subject.mkdir()
    (subject / "d").mkdir()
    (subject / "d" / "behind").write_text("behind")
    (subject / "d").chmod(0o744)
    (subject / "closed").mkdir()
    (subject / "closed" / "inside").write_text("inside")
    (subject / "closed").chmod(0o700)
    (subject / 'un"read\nable').write_text("x")
    (subject / 'un"read\nable').chmod(0)
    (subject / "readable").write_text("x")

    first, second = levels_as_nobody(place, subject, lambda: [(subject / d).chmod(0o755) for d in ("d", "closed")])

    assert sorted(first) == [
        ["unreadable", "closed", "Cannot open: Permission denied"],
        ["unreadable", "d/behind", "Cannot stat: Permission denied"],
        ["unreadable", r'un"read\x0aable', "Cannot open: Permission denied"],
    ]
    assert second == [["unreadable", r'un"read\x0aable', "Cannot open: Permission denied"]]
    target = place / "restored"
    target.mkdir()
    for made in ("set-0", "set-1"):
        subprocess.run(
            ["tar", "-xf", place / made / "data.tar.zst", "-C", target, "--listed-incremental=/dev/null"], check=True
        )
    assert {path.name for path in target.rglob("*") if path.is_file()} == {"readable", "behind", "inside"}


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that any user may enter and write to."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        yield Path(place)


def levels_as_nobody(place: Path, subject: Path, between: Callable[[], object]) -> list[list[list[str]]]:
    """The problems of two levels that another user made."""
    with subprocess.Popen(
        [sys.executable, "-c", AS_NOBODY, place, subject], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as child:
        assert child.stdout is not None
        problems = [orjson.loads(child.stdout.readline())]
        between()
        second, _ = child.communicate(b"go on")
        problems.append(orjson.loads(second))
    assert child.returncode == 0
    return problems


class Interfering(Recorder):
    """A control that does something to the subject as soon as enough bytes of it have gone by."""

    def __init__(self, after_bytes: int, interfere: Callable[[], None]) -> None:
        super().__init__()
        self._after_bytes = after_bytes
        self._interfere: Callable[[], None] | None = interfere

    def report(self, progress: Progress) -> None:
        """Interfere once."""
        super().report(progress)
        if progress.bytes_in >= self._after_bytes and self._interfere is not None:
            interfere, self._interfere = self._interfere, None
            interfere()


@pytest.fixture
def big(plan: Plan, subject: Path) -> Path:
    """A file that takes a while: much more than all pipes and frames hold, of zeros that cost no disk."""
    path = subject / "big"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    plan.options |= {"sparse": False, "strength": 0}
    return path


def test_a_file_that_grows_while_it_is_read_is_named_and_comes_again(plan: Plan, big: Path) -> None:
    """It is in the set, perhaps inconsistent; the next level has it whole."""

    def grow() -> None:
        with big.open("ab") as file:
            file.write(b"more")

    plan.control = Interfering(16 << 20, grow)

    produced = plan.back_up()

    assert [(problem.kind, problem.path) for problem in produced.problems] == [(ProblemKind.CHANGED, "big")]
    plan.control = Recorder()
    big.write_text("small")
    plan.back_up()
    assert listed(plan) == ["big"]


def test_a_file_that_shrinks_while_it_is_read_is_named(plan: Plan, big: Path) -> None:
    """Tar fills it up with zeros, so that the archive stays whole."""
    plan.control = Interfering(16 << 20, lambda: os.truncate(big, 100))

    produced = plan.back_up()

    assert produced.problem_counts == {ProblemKind.CHANGED: len(produced.problems)}
    assert {problem.path for problem in produced.problems} == {"big"}
    assert "big" in listed(plan)


def test_a_file_that_vanishes_is_named_and_is_no_loss(plan: Plan, subject: Path, big: Path) -> None:
    """Whoever deleted it did not want it."""
    (subject / "zz").write_text("late")
    (subject / "zz").rename(subject / "d" / "zz")

    plan.control = Interfering(16 << 20, (subject / "d" / "zz").unlink)

    produced = plan.back_up()

    assert (ProblemKind.VANISHED, "d/zz") in [(problem.kind, problem.path) for problem in produced.problems]
    assert not any(kind.is_loss for kind in produced.problem_counts)
    assert produced.problem_counts[ProblemKind.VANISHED] == 1
    recorded = [orjson.loads(line) for line in text_of(plan, "problems.zst").splitlines()]
    assert [(line["kind"], line["path"]) for line in recorded] == [
        (problem.kind, problem.path) for problem in produced.problems
    ]


def tar_of(subject: Path) -> psutil.Process:
    """The tar that reads this subject."""
    (found,) = [
        child
        for child in psutil.Process().children(recursive=True)
        if f"--directory={subject}" in child.cmdline() and child.name() == "tar"
    ]
    return found


def children() -> list[psutil.Process]:
    """What this process started itself: the servers of the session start and end processes of their own."""
    return psutil.Process().children()


def test_a_tar_that_is_killed_is_a_temporary_error(plan: Plan, subject: Path, big: Path) -> None:
    """A torn archive is not a backup, even when tar had complained about files before."""
    plan.control = Interfering(16 << 20, lambda: tar_of(subject).send_signal(signal.SIGKILL))
    before = children()

    with pytest.raises(TemporaryError, match="SIGKILL"):
        plan.back_up()

    assert children() == before
    assert plan.sets == []


def test_a_tar_that_crashes_on_a_later_level_leaves_the_parent_alone(plan: Plan, subject: Path, big: Path) -> None:
    """Trying again gives the level that would have been."""
    plan.back_up(exclude=("big",))
    parent = (plan.sets[0].directory / "tree.snar.zst").read_bytes()
    (subject / "bigger").touch()
    os.truncate(subject / "bigger", 1 << 30)
    plan.control = Interfering(16 << 20, lambda: tar_of(subject).send_signal(signal.SIGSEGV))
    with pytest.raises(TemporaryError, match="SIGSEGV"):
        plan.back_up()
    assert (plan.sets[0].directory / "tree.snar.zst").read_bytes() == parent

    shutil.rmtree(plan.place / "set-1")
    plan.control = Recorder()
    plan.back_up(exclude=("big",))

    assert listed(plan) == ["bigger"]


class Stopping(Recorder):
    """A control that asks to stop once the work has begun and this many checkpoints have gone by."""

    def __init__(self, checkpoints: int) -> None:
        super().__init__()
        self._left = checkpoints

    def checkpoint(self) -> None:
        """Count down."""
        super().checkpoint()
        if self.calls:
            self._left -= 1
            if self._left < 0:
                raise Cancelled("stop")


class Freezing(Stopping):
    """A control that suspends tar, and asks to stop some checkpoints later."""

    def __init__(self, subject: Path) -> None:
        super().__init__(1_000_000)
        self._subject = subject
        self._frozen = False

    def report(self, progress: Progress) -> None:
        """Suspend tar once."""
        super().report(progress)
        if progress.bytes_in >= 16 << 20 and not self._frozen:
            self._frozen = True
            tar_of(self._subject).suspend()
            self.checkpoints.clear()
            self._left = 12


@pytest.mark.parametrize("checkpoints", [0, 1, 50])
def test_cancelling_ends_tar(plan: Plan, big: Path, checkpoints: int) -> None:
    """Whenever it comes: nothing runs on, no thread is left."""
    plan.control = Stopping(checkpoints)
    before, threads = children(), threading.active_count()

    with pytest.raises(Cancelled):
        plan.back_up()

    assert children() == before
    assert threading.active_count() == threads


def test_a_tar_that_says_nothing_can_be_cancelled(plan: Plan, subject: Path, big: Path) -> None:
    """Checkpoints go on at least once a second while tar is silent."""
    plan.control = Freezing(subject)
    before = children()

    with pytest.raises(Cancelled):
        plan.back_up()

    times = plan.control.checkpoints
    assert max(later - earlier for earlier, later in pairwise(times)) < 1
    assert children() == before


class FullSink:
    """A sink whose disk is full after some bytes of one part."""

    def __init__(self, part: str, room_bytes: int) -> None:
        self._part = part
        self._room_bytes = room_bytes

    def open_part(self, name: str) -> FullPart:
        """A part; only one of them is refused."""
        return FullPart(self._room_bytes if name == self._part else 1 << 60)


class FullPart:
    """A part that takes only so much."""

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Take it, or not."""
        self._room_bytes -= len(chunk)
        if self._room_bytes < 0:
            raise TemporaryError("no space left on the store")
        return len(chunk)

    def close(self) -> object:
        """Not reached by the part that matters."""
        raise TemporaryError("no space left on the store")


@pytest.mark.parametrize("part", ["data.tar", "data.frames", "index.zst", "problems.zst"])
def test_a_full_store_ends_the_backup_as_a_temporary_error(
    plan: Plan, subject: Path, big: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Whichever part does not fit, tar ends, and the error is the store's own."""
    monkeypatch.chdir(subject)
    before, threads = children(), threading.active_count()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
        os.truncate(big, 64 << 20)
        prepared = plan.handler.prepare(plan.job(codec="none"))

        with pytest.raises(TemporaryError, match="no space left on the store"):
            prepared.produce(FullSink(part, 100 if part != "data.tar" else 20 << 20))  # type: ignore[arg-type]  # its parts never close

    assert children() == before
    assert threading.active_count() == threads


def test_a_parent_without_a_snapshot_is_an_integrity_error(plan: Plan) -> None:
    """An empty snapshot would make tar write a level 0 under another name."""
    plan.back_up()
    path = plan.sets[0].directory / "tree.snar.zst"
    subprocess.run(["zstd", "-q", "-f", "-o", path], input=b"", check=True)
    content = path.read_bytes()
    part = plan.sets[0].parts["tree.snar.zst"]
    forged = replace(part, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    plan.sets[0].parts = {**plan.sets[0].parts, "tree.snar.zst": forged}

    with pytest.raises(IntegrityError, match="snapshot"):
        plan.back_up()


def test_another_tar_is_not_taken_for_gnu_tar(
    plan: Plan, subject: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar of another make, or too old, is refused with a hint."""
    tools = tmp_path / "bin"
    tools.mkdir()
    fake = tools / "tar"
    fake.write_text("#!/bin/sh\necho 'bsdtar 3.6.2 - libarchive 3.6.2'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    assert plan.handler.check(TarHandler.Options(root=subject)) == [f"{fake} is not GNU tar"]
    with pytest.raises(PermanentError, match="not GNU tar"):
        plan.back_up()


def page_commands(page: str) -> str:
    """The shell blocks of a page, as they stand."""
    blocks = [block.split("```")[0] for block in page.split("```sh\n")[1:]]
    return "\n".join(blocks)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_the_page_of_a_set_restores_its_chain(
    plan: Plan, subject: Path, tmp_path: Path, codec: Codec, shell: str
) -> None:
    """The commands of RESTORE.md, run as they stand, give the tree and one single file."""
    wanted = 'd/sub/ü "q\\n'
    (subject / wanted).write_text("first")
    os.link(subject / "plain", subject / "hard")
    (subject / "link").symlink_to("plain")
    os.setxattr(subject / "plain", "user.key", b"value")
    (subject / "filler").write_bytes(os.urandom(9 << 20))
    plan.back_up(codec=codec, strength=1)
    (subject / "d" / "a").unlink()
    (subject / "d" / "b").write_text("b")
    plan.back_up(codec="zstd")
    (subject / "d" / "sub").chmod(0o700)
    plan.back_up(codec=codec, strength=1)
    last = plan.sets[-1].directory
    page = (last / "RESTORE.md").read_text()
    whole, single = page_commands(page).split("zstd -dc ./index.zst | head -n 20\n")

    environment = {"PATH": os.environ["PATH"], "TARGET": str(tmp_path / "whole")}
    done = subprocess.run([shell, "-eu", "-c", whole], cwd=last, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    quoted = r"./d/sub/\303\274 \"q\\n"
    environment |= {"TARGET": str(tmp_path / "single"), "NAME": quoted}
    done = subprocess.run([shell, "-eu", "-c", single], cwd=last, env=environment, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert tree_of(tmp_path / "whole") == tree_of(subject)
    assert [path for path in (tmp_path / "single").rglob("*") if path.is_file()] == [tmp_path / "single" / wanted]
    assert (tmp_path / "single" / wanted).read_text() == "first"


def test_the_page_notices_a_damaged_part(plan: Plan, tmp_path: Path) -> None:
    """Its first command is the check, and nothing is restored after it failed."""
    plan.back_up()
    last = plan.sets[-1].directory
    with (last / "data.tar.zst").open("r+b") as file:
        file.seek(100)
        file.write(b"xx")
    page = (last / "RESTORE.md").read_text()

    done = subprocess.run(
        ["sh", "-c", page_commands(page)], cwd=last, env={**os.environ, "TARGET": str(tmp_path / "no")}
    )

    assert done.returncode != 0
    assert not (tmp_path / "no").exists()


def test_the_handler_restores_and_compares_what_it_made(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """Both halves fit together: the whole chain, single paths, the comparison."""
    plan.back_up()
    (subject / "d" / "new").write_text("new")
    (subject / "plain").unlink()
    plan.back_up()
    whole, single = tmp_path / "whole", tmp_path / "single"
    whole.mkdir()
    single.mkdir()

    plan.handler.restore(plan.sets, whole, (), plan.control)
    plan.handler.restore(plan.sets, single, (b"d/sub/deep",), plan.control)

    assert tree_of(whole) == tree_of(subject)
    assert list(plan.handler.compare(plan.sets, whole, plan.control)) == []
    assert (single / "d" / "sub" / "deep").read_text() == "deep"


def test_included_files_of_several_directories_restore(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """Directories above an included file are no members; the way back copes."""
    (subject / "e").mkdir()
    (subject / "e" / "f").write_text("f")
    plan.back_up(include=("d/a", "e/f", "d/sub"))
    whole = tmp_path / "whole"
    whole.mkdir()

    plan.handler.restore(plan.sets, whole, (), plan.control)

    assert (whole / "d" / "a").read_text() == "a"
    assert (whole / "e" / "f").read_text() == "f"
