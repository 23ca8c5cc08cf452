"""Full backups without GNU tar; what they are is checked by GNU tar, and by a comparer of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from handlers.contract import ProblemKind, Progress
from handlers.errors import Cancelled, PermanentError, TemporaryError
from handlers.tar_level import TarHandler
from handlers.tools.codecs import Codec
from tests.workshop.comparer import differences, photograph
from tests.workshop.furnished import furnish
from tests.workshop.tar_levels import DirectorySink, Plan, Recorder

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="needs root")


@pytest.fixture
def plan(tmp_path: Path, subject: Path) -> Plan:
    place = tmp_path / "store"
    place.mkdir()
    return Plan(place, subject, engine="internal")


def unpacked(plan: Plan, *options: str) -> Path:
    """The last set restored by hand, as its RESTORE.md says."""
    target = plan.place / "restored"
    target.mkdir()
    (data,) = plan.sets[-1].directory.glob("data.tar*")
    subprocess.run(
        [
            *("tar", "--extract", f"--file={data}", f"--directory={target}", "--numeric-owner"),
            *("--preserve-permissions", "--acls", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp"),
            *(options or ("--listed-incremental=/dev/null",)),
        ],
        check=True,
    )
    return target


def listing(plan: Plan) -> list[bytes]:
    """The index of the last set, decompressed by the plain tool."""
    index = plan.sets[-1].directory / "index.zst"
    return subprocess.run(["zstd", "-dc", index], check=True, capture_output=True).stdout.splitlines()


@pytest.mark.parametrize("codec", list(Codec))
def test_gnu_tar_unpacks_every_codec(plan: Plan, subject: Path, codec: Codec) -> None:
    """The suffix and the part's record say which one it is, the parts are those of GNU tar's sets but the snapshot."""
    produced = plan.back_up(codec=codec)

    assert [part.name for part in produced.parts] == ["data.tar" + codec.suffix, "data.frames", "index.zst"]
    assert produced.parts[0].codec == codec
    assert differences(photograph(subject), photograph(unpacked(plan))) == []


@pytest.mark.parametrize("options", [(), ("--no-same-owner",)] if not is_root else [()])
def test_everything_comes_back_through_gnu_tar(plan: Plan, subject: Path, options: tuple[str, ...]) -> None:
    """Types, modes, owners, times, contents, holes, attributes, access lists, links: by an independent comparison."""
    furnish(subject)

    produced = plan.back_up()

    without = frozenset() if is_root else frozenset({"uid", "gid"})
    assert differences(photograph(subject), photograph(unpacked(plan, *options)), without=without) == []
    assert produced.problems == ()
    assert produced.tools == {"tar": "internal, because the plan asks for it: level 0 only"}


def test_everything_comes_back_through_holdfast_and_compares_equal(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """The guard takes every member for one that GNU tar wrote, and the listing says what is there."""
    furnish(subject)
    plan.back_up()
    target = tmp_path / "target"
    target.mkdir()

    restored = plan.handler.restore(plan.sets, target, [], plan.control)

    assert differences(photograph(subject), photograph(target)) == []
    assert list(plan.handler.compare(plan.sets, target, plan.control)) == []
    assert restored.files == len(listing(plan))


def test_the_listing_is_what_gnu_tar_prints_of_the_archive(plan: Plan, subject: Path) -> None:
    """Line for line, but for the block: while it writes, GNU tar counts from the extended header."""
    furnish(subject)
    plan.back_up(codec="none")

    done = subprocess.run(
        [
            *("tar", "--list", "--verbose", "--verbose", "--full-time", "--utc", "--block-number", "--numeric-owner"),
            *("--quoting-style=c", f"--file={plan.sets[0].directory / 'data.tar'}"),
        ],
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    printed = [line.partition(b": ")[2] for line in done.stdout.splitlines() if b"** Block of NULs **" not in line]
    assert [line.partition(b": ")[2] for line in listing(plan)] == printed


def test_every_member_starts_at_the_block_that_the_index_names(plan: Plan, subject: Path) -> None:
    """Random access stands on this."""
    furnish(subject)
    plan.back_up(codec="none")

    with (plan.sets[0].directory / "data.tar").open("rb") as file:
        for line in listing(plan):
            found = re.match(rb'block (\d+): [^"]*"((?:[^"\\]|\\.)*)"', line)
            assert found is not None
            file.seek(int(found[1]) * 512)
            with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape", encoding="utf-8") as archive:
                first = archive.next()
            assert first is not None
            name = os.fsencode(first.name) + (b"/" if first.isdir() else b"")
            assert name == found[2].decode("unicode_escape").encode("latin-1")


def test_single_paths_come_back(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """With little more read than the file itself."""
    furnish(subject)
    plan.back_up()
    target = tmp_path / "target"
    target.mkdir()

    plan.handler.restore(plan.sets, target, [b"d/hard", b"latin-\xe4\xff", b"holes"], plan.control)

    assert (target / "d" / "hard").read_text() == "plain" * 1000
    assert set(photograph(target)) == {b".", b"d", b"d/hard", b"holes", b"latin-\xe4\xff"}


def test_python_and_gnu_tar_read_the_same_members(plan: Plan, subject: Path) -> None:
    """Nothing about the archive is ours alone."""
    furnish(subject)
    plan.back_up(codec="none")
    data = plan.sets[0].directory / "data.tar"

    with tarfile.open(data, encoding="utf-8", errors="surrogateescape") as archive:
        names = {os.fsencode(member.name) for member in archive}
    listed = subprocess.run(
        ["tar", "--list", "--null", "--quoting-style=literal", f"--file={data}"], check=True, capture_output=True
    )
    in_tar = subprocess.run(["tar", "--compare", f"--file={data}", f"--directory={subject}"], capture_output=True)

    assert len(names) == len(listing(plan))
    assert all(name + end in listed.stdout for name in names for end in [b"/" if name in {b".", b"./d"} else b""])
    assert in_tar.returncode == 0, in_tar.stdout


def test_a_file_beyond_8_gib_is_whole(plan: Plan, subject: Path) -> None:
    """Its size does not fit into the header; sparse, so that it costs nothing here."""
    with (subject / "huge").open("wb") as file:
        file.seek(9 << 30)
        file.write(b"end")

    produced = plan.back_up()
    target = unpacked(plan)

    assert produced.bytes_in < 1 << 20
    assert (target / "huge").stat().st_size == (9 << 30) + 3
    assert differences(photograph(subject), photograph(target)) == []


def test_a_huge_member_has_its_size_in_the_extended_header(tmp_path: Path) -> None:
    """For a file without holes nobody wants to wait here."""
    from handlers.tools.tar.header import FILE, Facts, member_header

    header = member_header(b"./huge", FILE, Facts(0o600, 0, 0, 0), size=9 << 30)

    assert tarfile.TarFile.tarinfo.frombuf(header[-512:], "utf-8", "strict").size == 0
    assert b"19 size=9663676416\n" in header


def test_holes_can_be_stored_as_zeros(plan: Plan, subject: Path) -> None:
    """Where the plan says so."""
    with (subject / "hole").open("wb") as file:
        file.truncate(3 << 20)

    produced = plan.back_up(sparse=False)

    assert produced.bytes_in > 3 << 20
    assert (unpacked(plan) / "hole").read_bytes() == bytes(3 << 20)


@pytest.mark.parametrize(("xattrs", "acls"), [(False, False), (True, False), (False, True)])
def test_attributes_and_access_lists_can_be_left_out(plan: Plan, subject: Path, xattrs: bool, acls: bool) -> None:
    """Each for itself."""
    furnish(subject)
    expected = photograph(subject)

    plan.back_up(xattrs=xattrs, acls=acls)

    found = photograph(unpacked(plan))
    assert any(facts.xattrs for facts in found.values()) is xattrs
    assert any(facts.acls for facts in found.values()) is acls
    assert len(found) == len(expected)


CHOICES: list[dict[str, Any]] = [
    {"include": ("d", "plain")},
    {"include": ("d/sub", "plain")},
    {"exclude": ("sub", "*.tmp", "/keep/*.d")},
    {"exclude": ("keep/",)},
    {"include": ("d", "keep"), "exclude": ("/d", "a?")},
    {"one_file_system": True},
]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_both_engines_choose_the_same_members(
    plan: Plan, subject: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """With what a plan includes, excludes, and with what is mounted below root."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("x.tmp", "keep/a", "keep/b.d/c", "keep/a1", "mounted/under", "mounted-file"):
        (subject / name).parent.mkdir(exist_ok=True, parents=True)
        (subject / name).write_text(name)
    mounted = []
    try:
        if is_root:
            for kind, what, place in (
                ("-ttmpfs", "tmpfs", other),
                ("--bind", other / "inside", subject / "mounted"),
                ("--bind", other / "file", subject / "mounted-file"),
            ):
                subprocess.run(["mount", kind, what, place], check=True)
                mounted.append(place)
                (other / "inside").mkdir(exist_ok=True)
                (other / "inside" / "file").write_text("inside")
                (other / "file").write_text("file")
        names = []
        for engine in ("internal", "gnu"):
            plan.back_up(level=0, engine=engine, **options)
            names.append(sorted(line.partition(b'"')[2] for line in listing(plan)))
            plan.sets[-1].directory.rename(plan.place / engine)
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", place], check=True)

    assert names[0] == names[1]


def test_sockets_are_named_and_left_out(plan: Plan, subject: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with GNU tar; nothing is missing for that."""
    monkeypatch.chdir(subject)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("here")

    produced = plan.back_up()

    assert [(problem.kind, problem.path) for problem in produced.problems] == [(ProblemKind.SOCKET, "here")]


def test_a_name_of_the_plan_that_is_not_there_is_a_loss(plan: Plan) -> None:
    """What was merely found may go away; what the plan names may not."""
    produced = plan.back_up(include=("plain", "missing/file"))

    assert [(problem.kind, problem.path) for problem in produced.problems] == [(ProblemKind.UNREADABLE, "missing/file")]


def test_nothing_at_all_is_no_backup(plan: Plan) -> None:
    """An exclude that takes everything is found out."""
    with pytest.raises(PermanentError, match="nothing to back up"):
        plan.back_up(include=("plain",), exclude=("plain",))


def test_only_level_zero_can_be_made(plan: Plan) -> None:
    """And the refusal says why, and what to do."""
    plan.back_up()

    with pytest.raises(PermanentError, match="level 1 takes GNU tar, but the tar engine is internal") as refused:
        plan.handler.prepare(plan.job(level=1))

    assert refused.value.exit_code == 4
    assert plan.handler.max_level(plan.job(level=0).options) == 0
    assert plan.handler.max_level(plan.job(level=0, engine="auto").options) is None


def test_no_level_is_built_upon_a_set_of_the_other_engine(subject: Path) -> None:
    """The scope tells them apart, and that of GNU tar's sets is what it always was."""
    scopes = {
        engine: TarHandler().scope(TarHandler.Options(root=subject, engine=engine))  # type: ignore[call-arg]
        for engine in ("auto", "gnu", "internal")
    }

    assert (
        scopes["auto"]
        == scopes["gnu"]
        == (f'{{"root":"{subject}","include":["."],"exclude":[],"one_file_system":false,"xattrs":true,"acls":true}}')
    )
    assert scopes["internal"] != scopes["gnu"]


def test_what_will_be_done_is_told_before(plan: Plan) -> None:
    """For `--dry-run`."""
    assert plan.handler.prepare(plan.job()).describe() == {
        "engine": "internal, because the plan asks for it: level 0 only",
        "level": 0,
        "parent": None,
        "names": ["."],
        "parts": ["data.tar.zst", "data.frames", "index.zst"],
    }


def test_started_is_said_once_and_progress_ends_with_the_truth(plan: Plan) -> None:
    """The worker's events come from here."""
    produced = plan.back_up()

    assert plan.control.calls == ["started"]
    assert plan.control.reports[-1] == Progress(
        files=produced.files, bytes_in=produced.bytes_in, bytes_out=produced.parts[0].size_bytes
    )


def test_work_ends_soon_after_it_is_cancelled(plan: Plan, subject: Path) -> None:
    """What the control raises passes through, and no thread is left behind."""
    (subject / "large").write_bytes(os.urandom(1 << 20) * 32)

    class Stop(Recorder):
        def checkpoint(self) -> None:
            super().checkpoint()
            if len(self.checkpoints) > 1:
                raise Cancelled("enough")

    plan.control = Stop()
    with pytest.raises(Cancelled):
        plan.back_up(codec="xz", threads=1)


def test_a_full_disk_is_a_passing_trouble(plan: Plan, subject: Path, tmp_path: Path) -> None:
    """What the sink raises passes through as it is."""
    (subject / "large").write_bytes(os.urandom(1 << 20) * 8)
    sink = _FullSink(tmp_path / "full")

    with pytest.raises(TemporaryError, match="no room"):
        plan.handler.prepare(plan.job()).produce(sink)
    sink.abandon()


class _FullSink(DirectorySink):
    def open_part(self, name: str) -> Any:
        part = super().open_part(name)
        return _Full(part)


class _Full:
    def __init__(self, part: Any) -> None:
        self._part = part
        self._room = 1 << 20

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        self._room -= len(chunk)
        if self._room < 0:
            raise TemporaryError("no room")
        return int(self._part.write(chunk))
