"""Everything comes back as it was: files of every odd kind through two levels, judged by a comparer of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from handlers.tools.codecs import Codec
from tests.workshop.comparer import Difference, below, differences
from tests.workshop.oddities import ODDITIES
from tests.workshop.places import erase, fast_place
from tests.workshop.stories import Story, tell, tell_as_nobody

IS_ROOT = os.geteuid() == 0
FOR_NOBODY = [name for name, oddity in ODDITIES.items() if not oddity.needs_root]
ALL = list(ODDITIES) if IS_ROOT else FOR_NOBODY
FEW = ["links", "holes", "names", "types"]
STORIES = {
    "zstd": ALL,
    "gzip, on disk": ALL,
    "bzip2": FEW,
    "xz": FEW,
    "none, on disk": FEW,
    "internal": ALL,
    **({"nobody": FOR_NOBODY} if IS_ROOT else {}),
}
"""Kinds of files by codec, engine or user."""


@pytest.fixture(scope="module", params=STORIES)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """One with each codec, in memory or on disk, one by the engine without levels, one by nobody."""
    name, _, on_disk = request.param.partition(", ")
    kinds = STORIES[request.param]
    place = (None if on_disk else fast_place()) or tmp_path_factory.mktemp("story")
    try:
        if name == "nobody":
            return tell_as_nobody(place, kinds)
        if name == "internal":
            return tell(place, kinds, each_alone=False, levels=1, engine="internal")
        return tell(place, kinds, each_alone=name == "zstd", codec=Codec(name))
    finally:
        erase(place)


def stale(one: Difference) -> bool:
    """Whether a directory kept an attribute that a later level no longer has: GNU tar alone never takes one away."""
    return one.aspect == "xattrs" and one.path == b"attributes/d"


def above(path: bytes) -> Iterator[bytes]:
    """The directories that a path is in, the top one left out."""
    return (path[:end] for end in range(len(path)) if path[end : end + 1] == b"/")


def test_the_handler_brings_everything_back_as_it_was_at_each_level(story: Story) -> None:
    """Compared in all that the comparer knows; the first step of a path that differs tells the kind of files."""
    for subject, found in zip(story.subjects, story.by_handler, strict=True):
        assert differences(subject, found) == []


def test_the_page_brings_everything_back_as_it_was_at_each_level(story: Story) -> None:
    """GNU tar and the codec's program alone, with the commands of RESTORE.md."""
    for subject, found in zip(story.subjects, story.by_page, strict=True):
        assert [one for one in differences(subject, found) if not stale(one)] == []


def test_single_files_come_back_with_the_directories_above_them(story: Story) -> None:
    """Alone or together, as they were at the last level; alone without what they shared."""
    wanted = story.subjects[-1]
    assert {path.partition(b"/")[0] for path in story.chosen} == {path for path in wanted if path.count(b"/") == 0} - {
        b"."
    }
    for path, found in story.chosen.items():
        assert {upper: wanted[upper] for upper in above(path)} == {upper: found[upper] for upper in above(path)}
        assert differences(below(wanted, path), below(found, path)) == []


def test_single_files_bring_nothing_else_along(story: Story) -> None:
    """But the directories above them."""
    together = len({id(found) for found in story.chosen.values()}) == 1
    for path, found in story.chosen.items():
        asked = set(story.chosen) if together else {path}
        assert found.keys() == asked.union({b"."}, *(above(one) for one in asked))


def test_the_handlers_own_comparison_agrees(story: Story) -> None:
    """It looks at less, but finds nothing wrong where nothing is."""
    assert story.listed == []
    assert [told for told in story.problems if "archived whole" not in told[1]] == []


def test_what_the_file_system_here_cannot_hold_is_said(story: Story) -> None:
    """It was not tried then; the other file systems may hold it."""
    if story.unheld:
        pytest.skip("; ".join(f"{kind}: {what}" for kind, what in story.unheld.items()))
