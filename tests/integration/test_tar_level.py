"""Levels by the tar handler with real GNU tar on real trees; what it made is unpacked with plain tools."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import orjson
import pytest

from handlers.contract import Progress
from handlers.tar_level import TarHandler
from handlers.tools.codecs import Codec
from tests.workshop.tar_levels import Plan, listed, text_of, unpacked
from tests.workshop.tar_sets import tree_of

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="needs root")


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


def test_everything_is_fine_says_check(plan: Plan, subject: Path) -> None:
    """Nothing stands in the way."""
    assert plan.handler.check(TarHandler.Options(root=subject)) == []


def test_the_plan_can_be_looked_at_before_it_runs(plan: Plan, subject: Path) -> None:
    """A dry run shows the very command."""
    shown = plan.handler.prepare(plan.job()).describe()

    assert f"--directory={subject}" in shown["command"]  # type: ignore[operator]  # JSON says no more
    assert orjson.dumps(shown)


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
