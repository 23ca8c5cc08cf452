"""The handler's own comparison of a restored tree with the listings of its chain."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.tools.tar.restore import compare, restore_chain
from tests.workshop.tar_sets import Chain, Quiet, fill

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """An empty directory to back up."""
    place = tmp_path / "subject"
    place.mkdir()
    return place


DAMAGES: dict[str, Callable[[Path], object]] = {
    "has 5 bytes, not 6": lambda t: write_like(t / "d/f", "hell\n"),
    "has mode 0600, not 0644": lambda t: (t / "d/f").chmod(0o600),
    "was changed at": lambda t: os.utime(t / "d/f", ns=(0, 1)),
    "is missing": lambda t: (t / "d/g").unlink(),
    "has type d, not -": lambda t: ((t / "d/g").unlink(), (t / "d/g").mkdir()),
    "points to 'x', not '/etc/localtime'": lambda t: ((t / "zone").unlink(), (t / "zone").symlink_to("x")),
    "is not one file with": lambda t: ((t / "d/sub/hard").unlink(), (t / "d/sub/hard").write_text("hello\n")),
    "should not be there": lambda t: (t / "d/extra").write_text("x"),
    "has type l, not d": lambda t: ((t / "d").rename(t / "d2"), (t / "d").symlink_to("d2")),
}


def write_like(place: Path, text: str) -> None:
    """Another content with the old time."""
    times = place.stat().st_atime_ns, place.stat().st_mtime_ns
    place.write_text(text)
    os.utime(place, ns=times)


@pytest.mark.parametrize("words", DAMAGES)
@pytest.mark.parametrize("levels", [1, 2])
def test_a_comparison_finds_what_is_wrong(chain: Chain, subject: Path, target: Path, words: str, levels: int) -> None:
    """Whether the file is in the last level or unchanged since an older one."""
    fill(subject)
    for _ in range(levels):
        chain.back_up()
    restore_chain(chain.sets, target, Quiet())

    DAMAGES[words](target)

    assert any(words in found.what for found in compare(chain.sets, target, Quiet()))


@AS_ROOT
def test_a_comparison_by_root_finds_a_wrong_owner(chain: Chain, subject: Path, target: Path) -> None:
    """As any other user nobody could have restored it."""
    (subject / "f").write_text("x")
    chain.back_up()
    restore_chain(chain.sets, target, Quiet())

    os.chown(target / "f", 1, 2)

    assert [(found.path, found.what) for found in compare(chain.sets, target, Quiet())] == [
        ("f", "belongs to 1:2, not 0:0")
    ]
