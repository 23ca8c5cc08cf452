"""The comparer of the tests: it sees each kind of difference, and none where there is none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workshop.comparer import OWNERS, below, differences, photograph
from tests.workshop.odd_attributes import CAPABILITY, access_list, named_user
from tests.workshop.odd_contents import write_at

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="devices, owners and capabilities need root")


def fill(root: Path) -> None:
    """One of each kind."""
    (root / "d/e").mkdir(parents=True)
    (root / "f").write_text("content")
    (root / "other").write_text("content")
    os.link(root / "f", root / "d/hard")
    (root / "l").symlink_to("f")
    os.mkfifo(root / "pipe")
    with (root / "holes").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(500_000)
        file.write(b"data")
    os.setxattr(root / "f", "user.key", b"value")
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """A small tree."""
    root = tmp_path / "subject"
    fill(root)
    return root


def at_its_old_time(place: Path, change: Callable[[Path], object]) -> None:
    """The change, and nothing but the change."""
    times = [(path, os.lstat(path)) for path in (place, place.parent) if os.path.lexists(path)]
    change(place)
    for path, about in times:
        if os.path.lexists(path):
            os.utime(path, ns=(0, about.st_mtime_ns), follow_symlinks=False)


def replaced(place: Path, make: Callable[[Path], object]) -> None:
    """Another file of this name."""
    shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    make(place)


CHANGES: dict[str, tuple[str, Callable[[Path], object], set[tuple[str, str]]]] = {
    "missing": ("other", Path.unlink, {("other", "missing")}),
    "extra": ("new", lambda p: p.write_text(""), {("new", "extra")}),
    "extra, not UTF-8": ("d/\udcff\n", lambda p: p.write_text(""), {("d/\udcff\n", "extra")}),
    "mode": ("f", lambda p: p.chmod(0o600), {("f", "mode"), ("d/hard", "mode")}),
    "set-user-id": ("other", lambda p: p.chmod(0o4644), {("other", "mode")}),
    "set-group-id of a directory": ("d/e", lambda p: p.chmod(0o2755), {("d/e", "mode")}),
    "sticky": ("d/e", lambda p: p.chmod(0o1755), {("d/e", "mode")}),
    "time of change": ("d/e", lambda p: os.utime(p, ns=(0, 1)), {("d/e", "mtime_ns")}),
    "time of a link": ("l", lambda p: os.utime(p, ns=(0, -1), follow_symlinks=False), {("l", "mtime_ns")}),
    "content alone": ("other", lambda p: p.write_text("CONTENT"), {("other", "content")}),
    "size": ("other", lambda p: os.truncate(p, 100), {("other", "size"), ("other", "content")}),
    "a moved piece of data": (
        "holes",
        lambda p: (os.truncate(p, 0), os.truncate(p, 1 << 20), write_at(p, 600_000, b"data")),
        {("holes", "content")},
    ),
    "a filled hole": ("holes", lambda p: write_at(p, 100_000, bytes(5000)), {("holes", "data_bytes")}),
    "target of a link": ("l", lambda p: replaced(p, lambda p: p.symlink_to("F")), {("l", "target")}),
    "attribute": ("other", lambda p: os.setxattr(p, "user.key", b""), {("other", "xattrs")}),
    "value of an attribute": (
        "f",
        lambda p: os.setxattr(p, "user.key", b"VALUE"),
        {("f", "xattrs"), ("d/hard", "xattrs")},
    ),
    "access list": (
        "d/e",
        lambda p: access_list(p, "access", *named_user(12345, 4)),
        {("d/e", "acls"), ("d/e", "mode")},
    ),
    "default access list": ("d", lambda p: access_list(p, "default", *named_user(12345, 4)), {("d", "acls")}),
    "a link that is a file of its own": (
        "d/hard",
        lambda p: (shutil.copy2(p, f"{p}2"), Path(f"{p}2").rename(p)),
        {("d/hard", "shares"), ("f", "shares")},
    ),
    "one more name": (
        "other2",
        lambda p: os.link(p.with_name("other"), p),
        {("other2", "extra"), ("other", "shares")},
    ),
    "another partner": (
        "d/hard",
        lambda p: replaced(p, lambda p: os.link(p.parent.parent / "other", p)),
        {("d/hard", "shares"), ("f", "shares"), ("other", "shares"), ("other", "mtime_ns"), ("d/hard", "xattrs")},
    ),
    "type": (
        "pipe",
        lambda p: replaced(p, lambda p: p.symlink_to("x")),
        {("pipe", "type"), ("pipe", "mode"), ("pipe", "target")},
    ),
}

NEEDS_ROOT: dict[str, tuple[str, Callable[[Path], object], set[tuple[str, str]]]] = {
    "owner": ("other", lambda p: os.chown(p, 2**31, -1), {("other", "uid")}),
    "group of a link": ("l", lambda p: os.lchown(p, -1, 12345), {("l", "gid")}),
    "number of a device": (
        "null",
        lambda p: replaced(p, lambda p: os.mknod(p, 0o600 | stat.S_IFCHR, os.makedev(1, 5))),
        {("null", "device")},
    ),
    "capability": (
        "other",
        lambda p: os.setxattr(p, "security.capability", CAPABILITY),
        {("other", "xattrs")},
    ),
    "attribute of a link": (
        "l",
        lambda p: os.setxattr(p, "trusted.key", b"x", follow_symlinks=False),
        {("l", "xattrs")},
    ),
}


@pytest.mark.parametrize("name", [*CHANGES, *(pytest.param(name, marks=AS_ROOT, id=name) for name in NEEDS_ROOT)])
def test_a_difference_is_seen_and_named(subject: Path, name: str) -> None:
    """Each kind of it, and nothing besides."""
    path, change, expected = (CHANGES | NEEDS_ROOT)[name]
    before = photograph(subject)

    if "time" in name:
        change(subject / path)
    else:
        at_its_old_time(subject / path, change)

    found = differences(before, photograph(subject))
    assert {(os.fsdecode(one.path), one.aspect) for one in found} == expected


def test_a_copy_is_the_same(subject: Path, tmp_path: Path) -> None:
    """Made by another program."""
    (subject / "\udcff\n'\"\\").write_text("odd")
    subprocess.run(["cp", "-a", "--sparse=always", subject, tmp_path / "copy"], check=True)

    assert differences(photograph(subject), photograph(tmp_path / "copy")) == []


def test_more_holes_are_as_good_as_the_data_of_zeros(tmp_path: Path) -> None:
    """A restore may save room, not waste it."""
    for name in ("written", "hole"):
        (tmp_path / name).mkdir()
    (tmp_path / "written/f").write_bytes(bytes(1 << 20))
    with (tmp_path / "hole/f").open("wb") as file:
        file.truncate(1 << 20)
    one, other = (
        {path: facts for path, facts in photograph(tmp_path / name).items() if path != b"."}
        for name in ("written", "hole")
    )
    ignored = frozenset({"mtime_ns"})

    assert differences(one, other, without=ignored) == []
    assert [found.aspect for found in differences(other, one, without=ignored)] == ["data_bytes"]


def test_aspects_can_be_left_out(subject: Path) -> None:
    """Who is not root cannot bring back owners."""
    before = photograph(subject)
    after = {
        path: type(facts)(**{name: getattr(facts, name) for name in facts.__slots__} | {"uid": 99, "gid": 99})
        for path, facts in before.items()
    }

    assert differences(before, after, without=OWNERS) == []
    assert len(differences(before, after)) == 2 * len(before)


def test_a_part_of_a_tree_forgets_what_is_shared_with_the_rest(subject: Path) -> None:
    """As a restore of single paths does."""
    whole = photograph(subject)

    part = below(whole, b"d")

    assert set(part) == {b"d", b"d/hard", b"d/e"}
    assert part[b"d/hard"].shares is None
    assert below(whole, b".") == whole


def test_a_tree_deeper_than_any_path_is_seen_whole(tmp_path: Path) -> None:
    """With few open files, whatever the depth."""
    top = tmp_path / "top"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("abcd", dir_fd=at)
        below_it = os.open("abcd", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below_it
    os.mkfifo("deepest", dir_fd=at)
    os.close(at)

    found = photograph(top)

    assert len(found) == 1502
    assert max(map(len, found)) == 1500 * 5 + len("deepest")
    subprocess.run(["rm", "-rf", top], check=True)
