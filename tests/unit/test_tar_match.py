"""What a pattern of a plan leaves out: our own matcher beside GNU tar itself."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from handlers.errors import PermanentError
from handlers.tools.tar.match import Excluded, leaves_nothing
from handlers.tools.tar.options import TarOptions
from handlers.tools.tar.program import Archiving

DIRECTORIES = ("a/b", "a/..a", "ab/a\\", "[a]/b", "\udcff/b", "A/a/b")
NAMES = ("a", "b", "A", "ab", "a*", "[a]", "a\\", "-", "..a", "a\nb", "é", "\udcff", "a?b", "]", "a.b")
PIECES = (
    *("a", "b", "A", "*", "?", "**", "/", "/**/", "-", ".", "!", "^", "]", "[", "\\", "\\*", "\\[", "é", "\udcff"),
    *("[ab]", "[!a]", "[^b]", "[a-b]", "[]a]", "[!]a]", "[a-]", "[\\]]", "[\\a-b]", "[[:alpha:]]", "[[:upper:]b]"),
    *("[[.a.]]", "[[=b=]]", "[[.a.]-b]", "[é]", "[!\udcff]", "[/]", "[!/]", "[b-a]", "[a"),
)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every name at the top, and in directories whose names are like them."""
    root = tmp_path_factory.mktemp("subject")
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True)
    for place in (root, *(root / directory for directory in DIRECTORIES)):
        for name in NAMES:
            if not (place / name).exists():
                (place / name).write_bytes(b"")
    return root


def kept_by_tar(root: Path, patterns: Sequence[str], scratch: Path) -> set[bytes]:
    """The names that GNU tar archives."""
    (scratch / "names").write_bytes(b".\0")
    (scratch / "snapshot").unlink(missing_ok=True)
    archiving = Archiving(
        root=root, snapshot=scratch / "snapshot", index="/dev/null", names=scratch / "names", exclude=patterns
    )
    done = subprocess.run(archiving.argv(), capture_output=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {os.fsencode(name) for name in archive.getnames()}


def kept_by_us(root: Path, patterns: Sequence[str]) -> set[bytes]:
    """The names that our matcher lets through."""
    excluded = Excluded(patterns)

    def walk(place: Path, name: bytes) -> Iterator[bytes]:
        if excluded(name):
            return
        yield name
        if place.is_dir():
            for entry in place.iterdir():
                yield from walk(entry, name + b"/" + os.fsencode(entry.name))

    return set(walk(root, b"."))


def accepted(patterns: Sequence[str]) -> bool:
    """Whether a plan may have them."""
    try:
        TarOptions(root=Path("/"), exclude=tuple(patterns))
        Excluded(patterns)
    except (ValidationError, PermanentError):
        return False
    return True


@settings(max_examples=25, deadline=None)
@given(
    patterns=st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), min_size=1, max_size=2)
)
@example(patterns=["/a"])
@example(patterns=["a/"])
@example(patterns=["b*", "/[[]a]/"])
@example(patterns=["a/**/b"])
@example(patterns=["**/b"])
@example(patterns=["a\\"])
@example(patterns=["*\\"])
@example(patterns=["[a"])
@example(patterns=["/?"])
@example(patterns=["a?b"])
@example(patterns=["/a*b"])
@example(patterns=["[!a]b"])
def test_our_matcher_agrees_with_gnu_tar(
    subject: Path, tmp_path_factory: pytest.TempPathFactory, patterns: list[str]
) -> None:
    """Whatever the patterns, the same names stay."""
    assume(accepted(patterns))

    assert kept_by_us(subject, patterns) == kept_by_tar(subject, patterns, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize(
    ("pattern", "left_out", "kept"),
    [
        ("cache", [b"./cache", b"./var/cache", b"./var/cache/x"], [b"./cached", b"./my.cache"]),
        ("/cache", [b"./cache", b"./cache/x"], [b"./var/cache"]),
        ("var/cache", [b"./var/cache", b"./srv/var/cache"], [b"./var/x/cache"]),
        ("*.tmp", [b"./x.tmp", b"./a/b.tmp"], [b"./tmp"]),
        ("/a/**/z", [b"./a/z", b"./a/b/c/z"], [b"./b/a/z"]),
        ("a\\[1]", [b"./a[1]"], [b"./a1"]),
        ("cache/", [b"./cache/x", b"./var/cache/x"], [b"./cache", b"./var/cache"]),
    ],
)
def test_the_documented_examples_hold(pattern: str, left_out: list[bytes], kept: list[bytes]) -> None:
    """Those in the description of the option `exclude`."""
    excluded = Excluded([pattern])

    assert [name for name in left_out if not excluded(name)] == []
    assert [name for name in kept if excluded(name)] == []


@pytest.mark.parametrize("pattern", ["?", "[!a]*", "?*", "[.]"])
def test_a_pattern_that_matches_the_top_directory_is_refused(pattern: str) -> None:
    """It would leave nothing to back up, with either engine."""
    assert leaves_nothing(pattern)
    with pytest.raises(ValidationError, match="would leave nothing to back up"):
        TarOptions(root=Path("/srv"), exclude=(pattern,))


@pytest.mark.parametrize("pattern", ["[[:letter:]]", "[[.space.]]"])
def test_brackets_that_only_gnu_tar_understands_are_named(pattern: str) -> None:
    """Rather than to guess what is left out."""
    with pytest.raises(PermanentError, match="only GNU tar understands"):
        Excluded([pattern])
