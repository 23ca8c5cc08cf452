"""Restores of what real GNU tar has archived, compared with the subject itself."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.contract import Progress
from handlers.errors import Cancelled, IntegrityError, PermanentError, TemporaryError
from handlers.tools.codecs import Codec
from handlers.tools.tar_in_place import directories_in_place
from handlers.tools.tar_restore import compare, list_members, restore_chain, restore_paths
from tests.workshop.tar_sets import Chain, Quiet, StoredSet, stored_set, tree_of

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="devices and owners need root")


class InPlace(Chain):
    """A chain whose levels take a renamed directory for a new one."""

    def back_up(self, *options: str) -> StoredSet:
        """The next level."""
        if self.sets:
            self.snapshot = b"".join(directories_in_place([self.snapshot], self.subject))
        return super().back_up(*options)


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """An empty directory to back up."""
    place = tmp_path / "subject"
    place.mkdir()
    return place


@pytest.fixture
def chain(tmp_path: Path, subject: Path) -> Chain:
    """Its levels, as GNU tar makes them."""
    return Chain(subject, tmp_path / "scratch")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory to restore into."""
    place = tmp_path / "target"
    place.mkdir()
    return place


def restored(chain: Chain, target: Path) -> dict[bytes, object]:
    """All levels, and what came of them; nothing differs from the listings."""
    restore_chain(chain.sets, target, Quiet())
    assert list(compare(chain.sets, target, Quiet())) == []
    return tree_of(target)


def fill(subject: Path) -> None:
    """One of everything that needs no root."""
    (subject / "d/sub").mkdir(parents=True)
    (subject / "d/f").write_text("hello\n")
    (subject / "d/g").write_bytes(os.urandom(300_000))
    os.link(subject / "d/f", subject / "d/sub/hard")
    (subject / "zone").symlink_to("/etc/localtime")
    (subject / "up").symlink_to("..")
    (subject / "gone").symlink_to("nowhere/at all")
    (subject / "notes..txt").write_text("dots")
    (subject / "...").write_text("more dots")
    (subject / "-rf").write_text("no option")
    (subject / "a -> b").write_text("no link")
    (subject / ("n" * 200)).mkdir()
    (subject / ("n" * 200) / ("m" * 250)).write_text("long")
    os.mkfifo(subject / "pipe")
    with (subject / "holes").open("wb") as file:
        file.truncate(30 << 20)
        file.seek(10 << 20)
        file.write(b"in the middle")
    Path(os.fsdecode(os.fsencode(subject) + b'/\xff\xfe\n\t"\\name')).write_text("bytes")
    (subject / "grüße").write_text("umlauts")
    (subject / "read only").mkdir()
    (subject / "read only/f").write_text("x")
    (subject / "read only").chmod(0o555)
    (subject / "d/sub").chmod(0o1777)
    (subject / "d/g").chmod(0o6711)
    os.setxattr(subject / "d/f", "user.colour", b"blue\0=\n")
    os.utime(subject / "d/f", ns=(0, -1_500_000_001))
    os.utime(subject / "gone", ns=(0, 5), follow_symlinks=False)
    os.utime(subject / "notes..txt", ns=(0, 4_102_444_800_000_000_001))


@AS_ROOT
@pytest.mark.parametrize("codec", Codec)
def test_everything_comes_back_as_it_was(tmp_path: Path, subject: Path, target: Path, codec: Codec) -> None:
    """Content, modes, owners, nanoseconds, links, holes, devices, attributes and any name, with every codec."""
    fill(subject)
    os.mknod(subject / "null", 0o600 | 0o020000, os.makedev(1, 3))
    os.mknod(subject / "disk", 0o600 | 0o060000, os.makedev(7, 9))
    os.chown(subject / "d", 12345, 3_000_000_000)
    chain = Chain(subject, tmp_path / "scratch", codec=codec)
    chain.back_up()

    found = restored(chain, target)

    assert found == tree_of(subject)
    assert (target / "holes").stat().st_blocks < 1000


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

    assert restored(chain, target) == tree_of(subject)


RENAMES: dict[str, Callable[[Path], object]] = {
    "to a new name": lambda s: (s / "a").rename(s / "new"),
    "into another directory": lambda s: (s / "a").rename(s / "b/a"),
    "out of another directory": lambda s: (s / "a/x").rename(s / "x"),
    "into a new directory": lambda s: ((s / "made").mkdir(), (s / "a").rename(s / "made/a")),
    "onto one that was deleted": lambda s: (shutil.rmtree(s / "b"), (s / "a").rename(s / "b")),
    "onto a file that was deleted": lambda s: ((s / "file").unlink(), (s / "a").rename(s / "file")),
    "onto a link that was deleted": lambda s: ((s / "link").unlink(), (s / "a").rename(s / "link")),
    "one after the other": lambda s: ((s / "b").rename(s / "c"), (s / "a").rename(s / "b")),
    "one within the other": lambda s: ((s / "a/x").rename(s / "a/y"), (s / "a").rename(s / "new")),
    "inside out": lambda s: ((s / "a/x").rename(s / "x"), (s / "a").rename(s / "x/a")),
    "in a circle": lambda s: ((s / "a").rename(s / "t"), (s / "b").rename(s / "a"), (s / "t").rename(s / "b")),
    "and back again later": lambda s: (s / "a").rename(s / "z"),
}


def two_directories(subject: Path, inner: tuple[str, str]) -> None:
    """`a` and `b`, each with a directory, files and a file of two names."""
    for name, below in zip("ab", inner, strict=True):
        (subject / name / below).mkdir(parents=True)
        (subject / name / below / "deep").write_text(f"deep in {name}")
        (subject / name / f"only in {name}").write_text(name)
        (subject / name / "f").write_text(f"f of {name}")
        os.link(subject / name / "f", subject / name / "linked")
    (subject / "file").write_text("file")
    (subject / "link").symlink_to("/etc")


@pytest.mark.parametrize("how", RENAMES)
@pytest.mark.parametrize("noted", [True, False])
def test_renamed_directories_keep_what_did_not_change(
    chain: Chain, subject: Path, target: Path, tmp_path: Path, how: str, noted: bool
) -> None:
    """As GNU tar notes them, with unchanged files in the older archive alone; or taken for new directories."""
    if not noted:
        chain = InPlace(subject, tmp_path / "scratch")
    # Where both have a directory of the same name, GNU tar's own notes are wrong.
    two_directories(subject, ("x", "y" if noted else "x"))
    chain.back_up()
    RENAMES[how](subject)
    chain.back_up()
    if how == "and back again later":
        (subject / "z").rename(subject / "a")
        chain.back_up()
    wanted = tree_of(subject)

    found = restored(chain, target)
    single = tmp_path / "single"
    for number, path in enumerate(path for path in sorted(wanted) if path.count(b"/") == 1):
        place = single / str(number)
        place.mkdir(parents=True)
        restore_paths(chain.sets, place, [path], Quiet())
        assert tree_of(place)[path][:-1] == wanted[path][:-1]

    assert found == wanted


NAMES = st.sampled_from("abcd")
PLACES = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
EDITS = st.one_of(
    st.tuples(st.just("write"), PLACES, st.text("xyz", max_size=3)),
    st.tuples(st.just("make"), PLACES, st.just("")),
    st.tuples(st.just("point"), PLACES, st.sampled_from(["a", "..", "/etc/localtime", "nowhere"])),
    st.tuples(st.just("share"), PLACES, PLACES),
    st.tuples(st.just("move"), PLACES, PLACES),
    st.tuples(st.just("replace"), PLACES, PLACES),
    st.tuples(st.just("delete"), PLACES, st.just("")),
    st.tuples(st.just("allow"), PLACES, st.sampled_from(["600", "755", "4711", "1777"])),
    st.tuples(st.just("date"), PLACES, st.integers(-(10**18), 10**18).map(str)),
)
LEVELS = st.lists(st.lists(EDITS, min_size=3, max_size=15), min_size=3, max_size=3)


def delete(place: Path) -> None:
    """Whatever it is."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def edit(root: Path, what: str, path: str, other: str) -> None:  # noqa: C901  # one branch per kind of change
    """One change, where it is possible at all."""
    place = root / path
    if any(upper.is_symlink() for upper in place.parents) or (what == "make" and place.is_symlink()):
        return
    is_real = os.path.lexists(place) and not place.is_symlink()
    if what == "write" and place.parent.is_dir() and not place.is_dir() and not place.is_symlink():
        place.write_text(other)
    elif what == "make":
        if not any(os.path.lexists(upper) and not upper.is_dir() for upper in (place, *place.parents)):
            place.mkdir(parents=True, exist_ok=True)
    elif what == "point" and place.parent.is_dir():
        delete(place)
        place.symlink_to(other)
    elif what == "delete":
        if place.parent.is_dir():
            delete(place)
    elif what == "allow" and is_real:
        place.chmod(int(other, 8))
    elif what == "date" and os.path.lexists(place):
        os.utime(place, ns=(0, int(other)), follow_symlinks=False)
    elif what in {"move", "replace", "share"} and os.path.lexists(place):
        to = root / other
        if any(upper.is_symlink() for upper in to.parents) or not to.parent.is_dir():
            return
        if to == place or place in to.parents or to in place.parents:
            return
        if what == "replace":
            delete(to)
        if os.path.lexists(to):
            return
        if what != "share":
            place.rename(to)
        elif place.is_file() and not place.is_symlink():
            os.link(place, to)


def shared_across_directories(root: Path) -> bool:
    """Whether a file has names in several directories."""
    seen: dict[int, set[Path]] = {}
    for place in root.rglob("*"):
        if not place.is_symlink() and place.is_file():
            seen.setdefault(place.stat().st_ino, set()).add(place.parent)
    return any(len(directories) > 1 for directories in seen.values())


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(levels=LEVELS)
def test_whatever_was_done_to_the_subject_the_chain_brings_back_its_last_state(
    tmp_path_factory: pytest.TempPathFactory, levels: list[list[tuple[str, str, str]]]
) -> None:
    """Three levels of any edits; then every file alone, too."""
    place = tmp_path_factory.mktemp("chain")
    subject, target = place / "subject", place / "target"
    subject.mkdir()
    target.mkdir()
    chain = InPlace(subject, place / "scratch")
    shared = False
    for edits in levels:
        for what, path, other in edits:
            edit(subject, what, path, other)
        shared = shared or shared_across_directories(subject)
        chain.back_up()
    wanted = tree_of(subject)
    # Of a file with names in a renamed directory and in another one, GNU tar stores the content twice.
    compared = slice(0, -1) if shared else slice(None)

    restore_chain(chain.sets, target, Quiet())

    assert {path: about[compared] for path, about in tree_of(target).items()} == {
        path: about[compared] for path, about in wanted.items()
    }
    assert shared or list(compare(chain.sets, target, Quiet())) == []
    for number, path in enumerate(sorted(wanted)[-3:]):
        alone = place / f"alone{number}"
        alone.mkdir()
        restore_paths(chain.sets, alone, [path], Quiet())
        found = tree_of(alone)
        below = {key for key in wanted if key == path or key.startswith(path + b"/") or path == b"."}
        assert all(found[key][:-1] == wanted[key][:-1] for key in below)
        assert set(found) <= below | {path[:end] for end in range(len(path)) if path[end : end + 1] == b"/"} | {b"."}
    shutil.rmtree(place)


def test_single_members_come_with_the_directories_above_them(chain: Chain, subject: Path, target: Path) -> None:
    """And with nothing else; a hard link whose other name was not asked for is a file of its own."""
    fill(subject)
    (subject / "d").chmod(0o750)
    chain.back_up()

    done = restore_paths(chain.sets, target, [b"./d/sub/hard", b"notes..txt", b"read only/"], Quiet())

    wanted = tree_of(subject)
    found = tree_of(target)
    assert set(found) == {b".", b"d", b"d/sub", b"d/sub/hard", b"notes..txt", b"read only", b"read only/f"}
    assert all(found[path][:-1] == wanted[path][:-1] for path in found if path != b".")
    assert done.files == 6
    assert done.bytes_out == 6 + 4 + 1


def test_hard_links_that_are_asked_for_together_stay_one_file(chain: Chain, subject: Path, target: Path) -> None:
    """Whether or not the name that has the content is among them."""
    (subject / "d").mkdir()
    (subject / "a first").write_text("shared")
    for name in ("b", "c", "d/e"):
        os.link(subject / "a first", subject / name)
    chain.back_up()

    restore_paths(chain.sets, target, [b"d/e", b"c", b"b"], Quiet())

    assert not (target / "a first").exists()
    assert (target / "b").read_text() == "shared"
    assert (target / "b").stat().st_nlink == 3


def test_an_unchanged_file_is_found_in_the_level_that_has_it(chain: Chain, subject: Path, target: Path) -> None:
    """Three levels back, its directory renamed twice; a changed one beside it comes from the last level."""
    (subject / "one").mkdir()
    (subject / "one/old").write_text("never touched")
    (subject / "one/new").write_text("first")
    with (subject / "one/holes").open("wb") as file:
        file.truncate(1 << 20)
        file.write(b"start")
    chain.back_up()
    (subject / "one").rename(subject / "two")
    chain.back_up()
    (subject / "deep").mkdir()
    (subject / "two").rename(subject / "deep/three")
    chain.back_up()
    (subject / "deep/three/new").write_text("last")
    chain.back_up()

    restore_paths(chain.sets, target, [b"deep"], Quiet())

    wanted = {path: about for path, about in tree_of(subject).items() if path != b"."}
    assert {path: about for path, about in tree_of(target).items() if path != b"."} == wanted


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (b"nowhere", "'nowhere' is not in set"),
        (b"d/nowhere", "'d/nowhere' is not in set"),
        (b"gone/f", "'gone/f' is not in set"),
        (b"deleted", "'deleted' is not in set"),
        (b"../f", "unsafe name"),
        (b"/etc/passwd", "unsafe name"),
        (b"excluded", "'excluded' is not in set"),
        (b"socket", "was there when set set-1 was made"),
    ],
)
def test_a_path_that_is_not_there_is_named_before_anything_is_written(
    chain: Chain, subject: Path, target: Path, path: bytes, words: str
) -> None:
    """Also if an older level has it, but it was deleted since."""
    (subject / "d").mkdir()
    for name in ("f", "deleted", "excluded"):
        (subject / name).write_text(name)
    chain.back_up("--exclude=./excluded")
    (subject / "deleted").unlink()
    socket_at(subject / "socket")
    chain.back_up("--exclude=./excluded")

    with pytest.raises(PermanentError, match=words) as raised:
        restore_paths(chain.sets, target, [b"f", path], Quiet())

    assert raised.value.hint
    assert list(target.iterdir()) == []


def socket_at(place: Path) -> None:
    """A socket, which tar does not store."""
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(place))


def test_a_plan_of_single_names_restores_what_it_names(subject: Path, target: Path, tmp_path: Path) -> None:
    """Directories above the names are no members; unchanged names are in no directory's list."""
    (subject / "etc").mkdir()
    (subject / "srv/www").mkdir(parents=True)
    (subject / "opt").mkdir()
    (subject / "etc/zone").symlink_to("/etc/localtime")
    (subject / "opt/conf").write_text("one")
    (subject / "srv/www/i").write_text("unchanged")
    (subject / "srv/not").write_text("not in the plan")
    chain = Named(subject, tmp_path / "scratch")
    chain.names = ["./etc/zone", "./opt/conf", "./srv/www"]
    chain.back_up()
    (subject / "srv/www/j").write_text("new")
    chain.back_up()

    restore_chain(chain.sets, target, Quiet())
    single = tmp_path / "single"
    single.mkdir()
    restore_paths(chain.sets, single, [b"srv", b"opt/conf", b"etc"], Quiet())

    wanted = {b"etc/zone", b"opt/conf", b"srv/www", b"srv/www/i", b"srv/www/j", b"etc", b"opt", b"srv", b"."}
    assert set(tree_of(target)) == wanted
    assert set(tree_of(single)) == wanted
    assert list(compare(chain.sets, target, Quiet())) == []
    (target / "opt/conf").unlink()
    assert [found.path for found in compare(chain.sets, target, Quiet())] == ["opt/conf"]


class Named(Chain):
    """A chain of some names of the subject."""


def test_one_small_file_of_a_large_archive_takes_few_reads(tmp_path: Path, subject: Path, target: Path) -> None:
    """Below five per cent of 200 MiB, index and frame table included."""
    (subject / "bulk").mkdir()
    content = os.urandom(1 << 20)
    for number in range(200):
        (subject / "bulk" / f"{number:03}").write_bytes(content[number:] + content[:number])
    (subject / "bulk/099a").write_text("wanted")
    chain = Chain(subject, tmp_path / "scratch", codec=Codec.NONE, frame_bytes=4 << 20)
    chain.back_up()
    stored = sum(part.size_bytes for part in chain.sets[0].parts.values())

    done = restore_paths(chain.sets, target, [b"bulk/099a"], Quiet())

    assert (target / "bulk/099a").read_text() == "wanted"
    assert stored > 200 << 20
    assert done.bytes_read < stored * 5 // 100, f"{done.bytes_read} of {stored}"


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


def test_a_damaged_frame_is_an_integrity_error_for_a_single_file(chain: Chain, subject: Path, target: Path) -> None:
    """Each frame is checked before it is used."""
    (subject / "f").write_bytes(os.urandom(300_000))
    stored = chain.back_up()
    damaged = bytearray(stored.content["data.tar.zst"])
    damaged[len(damaged) // 2] ^= 1
    stored.content["data.tar.zst"] = bytes(damaged)

    with pytest.raises(IntegrityError, match="frame"):
        restore_paths(chain.sets, target, [b"f"], Quiet())


def test_an_index_of_another_archive_is_an_integrity_error(chain: Chain, subject: Path, target: Path) -> None:
    """The header at the block has to have the name."""
    (subject / "f").write_text("x")
    stored = chain.back_up()
    index = b'block 3: -rw-r--r--  0/0  1 2026-11-21 03:29:00 "./other"\n'
    other = stored_set(0, b"", index)
    stored.parts["index.zst"], stored.content["index.zst"] = other.parts["index.zst"], other.content["index.zst"]

    with pytest.raises(IntegrityError, match="the index has"):
        restore_paths(chain.sets, target, [b"other"], Quiet())


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


def restore_as_nobody(sets: str, target: str) -> None:
    """In a process of its own."""
    chain = pickle.loads(Path(sets).read_bytes())
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    if not os.access(sys.executable, os.X_OK):
        sys.executable = "/usr/bin/python3"
    restore_chain(chain, Path(target), Quiet())
    assert list(compare(chain, Path(target), Quiet())) == []


@AS_ROOT
def test_without_root_everything_but_owners_comes_back(
    chain: Chain, subject: Path, target: Path, tmp_path: Path
) -> None:
    """Read-only directories of an older level are no hindrance to the next one."""
    fill(subject)
    chain.back_up()
    (subject / "read only").chmod(0o755)
    (subject / "read only/g").write_text("added")
    (subject / "read only/f").unlink()
    (subject / ("n" * 200)).rename(subject / "read only" / "moved")
    (subject / "read only").chmod(0o555)
    chain.back_up()
    os.chown(target, 65534, 65534)
    for above in list(target.parents)[:-2]:
        above.chmod(above.stat().st_mode | 0o011)

    sets = tmp_path / "sets"
    sets.write_bytes(pickle.dumps(chain.sets))
    script = f"from {__name__} import restore_as_nobody; restore_as_nobody({os.fspath(sets)!r}, {os.fspath(target)!r})"

    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=Path(__file__).parents[2])

    def ownerless(tree: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
        return {path: (about[0], *about[3:]) for path, about in tree.items()}

    assert ownerless(tree_of(target)) == ownerless(tree_of(subject))


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


def test_many_paths_at_once_are_found_in_one_pass(chain: Chain, subject: Path, target: Path) -> None:
    """Thousands of them, unchanged since the level before."""
    for number in range(3000):
        if number % 100 == 0:
            (subject / f"{number // 100}").mkdir()
        (subject / f"{number // 100}/{number}").write_text(str(number))
    chain.back_up()
    chain.back_up()
    paths = [f"{number // 100}/{number}".encode() for number in range(0, 3000, 2)]

    done = restore_paths(chain.sets, target, paths, Quiet())

    assert done.files == 1500 + 30
    assert all((target / os.fsdecode(path)).is_file() for path in paths)
    assert done.bytes_read < 2 * sum(len(part) for reader in chain.sets for part in reader.content.values())
