"""What is done in an indicator's directory, which may belong to somebody hostile."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from config.indicators import Afterwards
from handlers.errors import PermanentError
from tests.workshop.another_user import needs_another_user
from tests.workshop.indicating import touch
from worker.intake.indicator_acts import Acts, Own, carry_out, put_back
from worker.intake.indicator_sighting import Sighting, moment

Do = Callable[..., bool]
OWN = Own("pool")
LINE = b"request=r backup=b outcome=succeeded\n"


@pytest.fixture
def do(tmp_path: Path) -> Iterator[Do]:
    """Answers the indicator in the test's directory as it was seen when the test began."""
    seen = Sighting.of(touch(tmp_path).stat(), plan="web", level="auto")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    def run(**afterwards: Any) -> bool:
        acts = Acts.of(Afterwards(**afterwards))
        return carry_out(acts, directory, indicator="cback.collect", is_it=seen.is_it, line=LINE, own=OWN)

    yield run
    os.close(directory)


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_answer_is_a_file_of_one_line(tmp_path: Path, do: Do) -> None:
    """Nothing else is left, and doing it again changes nothing."""
    assert do(write="cback.stage")
    assert do(write="cback.stage")

    assert (tmp_path / "cback.stage").read_bytes() == LINE
    assert stat.S_IMODE((tmp_path / "cback.stage").stat().st_mode) == 0o644
    assert names(tmp_path) == {"cback.collect", "cback.stage"}


@needs_another_user
def test_answer_has_owner_and_mode_as_configured(tmp_path: Path, do: Do) -> None:
    """By name or number; the indicator keeps what it has."""
    do(write="cback.stage", owner="nobody:65534", mode="0600")

    found = (tmp_path / "cback.stage").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65534, 0o600)
    assert (tmp_path / "cback.collect").stat().st_uid == 0


def test_unknown_owner_is_told_before_anything_is_done() -> None:
    """With a hint."""
    with pytest.raises(PermanentError, match="nobody-of-this-name"):
        Acts.of(Afterwards(write="x", owner="nobody-of-this-name:root"))


@pytest.mark.parametrize("afterwards", [{"write": "cback.stage"}, {"indicator": "delete"}, {"indicator": "move"}])
def test_later_indicator_is_left_alone(tmp_path: Path, do: Do, afterwards: dict[str, str]) -> None:
    """Touched again since: that is another request, with an answer of its own."""
    os.utime(tmp_path / "cback.collect", ns=(1, 1))

    assert not do(**afterwards)

    assert names(tmp_path) == {"cback.collect"}


def test_indicator_that_is_gone_is_not_answered(tmp_path: Path, do: Do) -> None:
    """Whoever took it away does not wait."""
    (tmp_path / "cback.collect").unlink()

    assert not do(write="cback.stage")

    assert names(tmp_path) == set()


def test_indicator_is_deleted_after_the_answer(tmp_path: Path, do: Do) -> None:
    """Both in one go."""
    do(write="cback.stage", indicator="delete")

    assert names(tmp_path) == {"cback.stage"}


def test_indicators_are_kept_side_by_side(tmp_path: Path, do: Do) -> None:
    """Where the name is taken, the time is added; where that is taken too, a number."""
    time = moment((tmp_path / "cback.collect").stat().st_mtime_ns)
    (tmp_path / "done").mkdir()
    touch(tmp_path / "done")
    touch(tmp_path / "done", f"cback.collect.{time}")

    do(indicator="move")

    assert names(tmp_path) == {
        "done",
        "done/cback.collect",
        f"done/cback.collect.{time}",
        f"done/cback.collect.{time}.2",
    }


def test_directory_for_answered_ones_is_made(tmp_path: Path, do: Do) -> None:
    """Under the name that was asked for."""
    do(indicator="move", move_to="taken")

    assert names(tmp_path) == {"taken", "taken/cback.collect"}


def test_links_in_the_way_lead_nowhere(tmp_path: Path, do: Do) -> None:
    """The answer takes a link's place; what it pointed to stays as it was. A leftover of ours is removed."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o640)
    (tmp_path / "cback.stage").symlink_to(victim)
    (tmp_path / ".pool.holdfast.new").symlink_to(victim)

    do(write="cback.stage", mode="0666")

    assert victim.read_text() == "precious"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o640
    assert not (tmp_path / "cback.stage").is_symlink()
    assert (tmp_path / "cback.stage").read_bytes() == LINE


def test_hard_link_in_the_way_is_not_written_through(tmp_path: Path, do: Do) -> None:
    """Neither its content nor its owner nor its mode."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("cback.stage", ".pool.holdfast.new"):
        (tmp_path / name).hardlink_to(victim)

    do(write="cback.stage", owner="1:1")

    assert (victim.read_text(), victim.stat().st_uid) == ("precious", os.geteuid())


def test_link_instead_of_the_directory_is_not_followed(tmp_path: Path, do: Do) -> None:
    """Nothing moves out of the directory; the indicator stays."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "done").symlink_to(outside)

    with pytest.raises(OSError, match="done"):
        do(indicator="move")

    assert names(tmp_path) == {"cback.collect", "done", "outside"}


def test_what_cannot_be_written_leaves_no_half_file(tmp_path: Path, do: Do) -> None:
    """A directory is in the way of the answer: it stays, and nothing is beside it."""
    (tmp_path / "cback.stage" / "full").mkdir(parents=True)

    with pytest.raises(OSError, match="directory"):
        do(write="cback.stage", indicator="delete")

    assert names(tmp_path) == {"cback.collect", "cback.stage", "cback.stage/full"}


@pytest.mark.parametrize("verb", ["delete", "move"])
@pytest.mark.parametrize("how", ["written again", "replaced", "replaced, and made once more"])
def test_touch_in_the_same_instant_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, do: Do, verb: str, how: str
) -> None:
    """Between our look and our act: there is an indicator afterwards, which asks again."""
    indicator = tmp_path / "cback.collect"
    rename = os.rename

    def rename_late(path: str, target: str, **where: int) -> None:
        monkeypatch.undo()
        if how == "written again":
            os.utime(indicator, ns=(5, 5))
        else:
            touch(tmp_path, "other").rename(indicator)
        rename(path, target, **where)
        if "once more" in how:
            touch(tmp_path)

    monkeypatch.setattr(os, "rename", rename_late)

    do(indicator=verb)

    assert names(tmp_path) == {"cback.collect"}


@pytest.mark.parametrize("touched_since", [False, True])
def test_what_a_crash_left_half_done_is_undone(tmp_path: Path, touched_since: bool) -> None:
    """An indicator that was being taken away is there again; a later one that is there already stays."""
    touch(tmp_path, OWN.aside)
    if touched_since:
        (tmp_path / "cback.collect").write_text("later")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    put_back(directory, "cback.collect", OWN)

    os.close(directory)
    assert names(tmp_path) == {"cback.collect"}
    assert (tmp_path / "cback.collect").read_text() == ("later" if touched_since else "")
