"""Restores of what real GNU tar has archived, whole, damaged, cancelled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from handlers.contract import Progress
from handlers.errors import Cancelled, IntegrityError, PermanentError, TemporaryError
from handlers.tools.tar.restore import compare, list_members, restore_chain, restore_paths
from tests.workshop.comparer import Photograph, differences, photograph
from tests.workshop.tar_sets import Chain, Quiet, fill


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """An empty directory to back up."""
    place = tmp_path / "subject"
    place.mkdir()
    return place


def restored(chain: Chain, target: Path) -> Photograph:
    """All levels, and what came of them; nothing differs from the listings."""
    restore_chain(chain.sets, target, Quiet())
    assert list(compare(chain.sets, target, Quiet())) == []
    return photograph(target)


def test_a_chain_ends_with_the_last_level(chain: Chain, subject: Path, target: Path) -> None:
    """What was changed, added, deleted, and what changed its type."""
    fill(subject)
    chain.back_up()
    (subject / "d/f").write_text("changed")
    (subject / "zone").unlink()
    (subject / "zone").mkdir()
    (subject / "zone/f").write_text("now a directory")
    shutil.rmtree(subject / "d/sub")
    (subject / "d/sub").symlink_to("/etc")
    chain.back_up()
    (subject / "notes..txt").unlink()
    shutil.rmtree(subject / "zone")
    (subject / "zone").write_text("now a file")
    (subject / "d/sub").unlink()
    (subject / "d/sub").mkdir()
    (subject / "d/sub/f").write_text("a directory again")
    chain.back_up()

    assert differences(photograph(subject), restored(chain, target)) == []


def test_the_listing_of_a_set_can_be_read_alone(chain: Chain, subject: Path) -> None:
    """As for `ls`."""
    (subject / "f").write_text("123")
    chain.back_up()

    assert [(member.path, member.size) for member in list_members(chain.sets[0])] == [(b".", 0), (b"f", 3)]


def test_a_set_without_frame_table_is_restored_whole_but_not_in_part(chain: Chain, subject: Path, target: Path) -> None:
    """What plain tools have compressed anew, for instance."""
    (subject / "f").write_text("123")
    stored = chain.back_up()
    name = "data.tar.zst"
    stored.parts[name] = replace(stored.parts[name], frames=None)

    restore_chain(chain.sets, target, Quiet())

    assert (target / "f").read_text() == "123"
    with pytest.raises(PermanentError, match="no frame table"):
        restore_paths(chain.sets, target, [b"f"], Quiet())


@pytest.mark.parametrize("part", ["data.tar.zst", "data.frames"])
@pytest.mark.parametrize("at", [10, -10])
def test_a_damaged_part_is_an_integrity_error(chain: Chain, subject: Path, target: Path, part: str, at: int) -> None:
    """At its start or at its end, behind what GNU tar needs."""
    (subject / "f").write_bytes(os.urandom(300_000))
    stored = chain.back_up()
    damaged = bytearray(stored.content[part])
    damaged[at] ^= 1
    stored.content[part] = bytes(damaged)

    with pytest.raises(IntegrityError):
        restore_chain(chain.sets, target, Quiet())


def test_what_is_behind_the_end_of_the_archive_is_checked_too(chain: Chain, subject: Path, target: Path) -> None:
    """GNU tar stops at two zero blocks; the part's checksum covers all of it."""
    (subject / "f").write_text("x")
    stored = chain.back_up()
    stored.content["data.tar.zst"] += b"more"

    with pytest.raises(IntegrityError):
        restore_chain(chain.sets, target, Quiet())


def test_a_chain_without_its_first_level_is_refused(chain: Chain, target: Path) -> None:
    """An increment alone is not what the operator asked for."""
    chain.back_up()
    chain.back_up()

    with pytest.raises(PermanentError, match="no chain"):
        restore_chain(chain.sets[1:], target, Quiet())


def test_a_restore_can_be_cancelled(chain: Chain, subject: Path, target: Path) -> None:
    """Whatever the checkpoint raises comes through, and nothing runs on."""

    class Stop(Quiet):
        def checkpoint(self) -> None:
            raise Cancelled("enough")

    (subject / "f").write_bytes(os.urandom(1 << 20))
    chain.back_up()

    with pytest.raises(Cancelled, match="enough"):
        restore_chain(chain.sets, target, Stop())


def test_a_restore_tells_how_far_it_is(chain: Chain, subject: Path, target: Path) -> None:
    """The last report is the result."""
    (subject / "f").write_bytes(os.urandom(1 << 20))
    chain.back_up()
    control = Quiet()

    done = restore_chain(chain.sets, target, control)

    assert control.progress == Progress(files=2, bytes_in=done.bytes_read, bytes_out=1 << 20)
    assert done.files == 2
    assert control.checkpoints > 0


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A filesystem of one megabyte."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_a_temporary_error(chain: Chain, subject: Path, target: Path) -> None:
    """Trying again may help; GNU tar's words are in the message."""
    (subject / "f").write_bytes(os.urandom(3 << 20))
    chain.back_up()

    with small_disk(target), pytest.raises(TemporaryError, match="no room"):
        restore_chain(chain.sets, target, Quiet())
