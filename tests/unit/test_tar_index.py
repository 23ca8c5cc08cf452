"""GNU tar's listing, read back."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import IntegrityError
from handlers.tools.tar.index import Member, lines_of, members, places
from tests.workshop.tar_sets import LISTING

FILE = b'block 12: -rw-r--r--  0/0             123 2026-11-21 03:29:00.123456789 "./dir/name"\n'


def read(*lines: bytes) -> list[Member]:
    return list(members([b"".join(lines)]))


def test_a_file_has_all_its_fields() -> None:
    """Block, permissions, numeric owner, size, time in nanoseconds and path."""
    (found,) = read(FILE)

    assert found == Member(12, "-", 0o644, 0, 0, 123, 1795231740_123456789, b"dir/name", None)


def test_fractions_are_read_although_tar_drops_their_last_zeros() -> None:
    """`.5` is half a second, and nothing at all is none."""
    half, none = read(
        b'block 0: -rw-r--r--  0/0  1 1970-01-02 00:00:00.5         "./a"\n',
        b'block 3: -rw-r--r--  0/0  1 1970-01-02 00:00:00           "./b"\n',
    )

    assert (half.mtime_ns, none.mtime_ns) == (86_400_500_000_000, 86_400_000_000_000)


def test_links_keep_their_targets_as_they_are_and_shared_paths_are_paths() -> None:
    """A symbolic link's target is any text, what a hard link shares is a member."""
    symbolic, hard = read(
        b'block 0: lrwxrwxrwx  0/0 0 2026-11-21 03:29:00 "./l" -> "./we \\"ird/"\n',
        b'block 3: hrw-r--r--  0/0 0 2026-11-21 03:29:00 "./h" link to "./d/f"\n',
    )

    assert (symbolic.type, symbolic.link) == ("l", b'./we "ird/')
    assert (hard.type, hard.link) == ("h", b"d/f")


def test_marks_of_attributes_and_lists_are_skipped() -> None:
    """`*` is an extended attribute, `+` an access control list, `.` a security context."""
    found = read(*(FILE.replace(b"-rw-r--r-- ", b"-rw-r--r--" + mark) for mark in (b"*", b"+", b".", b" ")))

    assert [member.mode for member in found] == [0o644] * 4


def test_set_id_and_sticky_bits_are_read() -> None:
    """With the execute bit the letters are small, without it capital."""
    found = read(FILE.replace(b"-rw-r--r--", b"-rwsr-sr-t"), FILE.replace(b"-rw-r--r--", b"-rwSr-Sr-T"))

    assert [member.mode for member in found] == [0o7755, 0o7644]


def test_devices_have_numbers_and_no_size() -> None:
    """Major and minor stand where the size would."""
    (found,) = read(FILE.replace(b"-rw-r--r--", b"brw-r--r--").replace(b"  123", b"7,123"))

    assert (found.type, found.device, found.size) == ("b", (7, 123), 0)


def test_the_top_directory_is_a_dot() -> None:
    """Whatever tar calls it."""
    assert [member.path for member in read(FILE.replace(b"./dir/name", b"./"))] == [b"."]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        FILE.replace(b"block 12", b"block x"),
        FILE.replace(b"-rw", b"?rw"),
        FILE.replace(b"2026-11-21", b"2026-13-21"),
        FILE.replace(b'name"', b"name"),
        FILE.replace(b"name", b"na\\qme"),
        b"block 0: ** Block of NULs **\n",
    ],
)
def test_a_line_that_is_no_member_is_an_integrity_error(line: bytes) -> None:
    """Nothing is skipped: a member that is not understood would be missed."""
    with pytest.raises(IntegrityError, match="index"):
        read(FILE, line)


def test_a_listing_that_was_cut_short_is_an_integrity_error() -> None:
    """The last line has an end too."""
    with pytest.raises(IntegrityError, match="cut short"):
        read(FILE, FILE[:-1])


def test_an_endless_line_does_not_fill_memory() -> None:
    """A hostile listing is refused before it has been read."""
    chunks = (b"x" * 60_000 for _ in range(1_000_000))

    with pytest.raises(IntegrityError, match="endless"):
        list(lines_of(chunks))


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=9), st.integers(1, 7))
def test_lines_do_not_depend_on_the_chunks(lines: list[bytes], size: int) -> None:
    """However the text is cut."""
    text = b"".join(line + b"\n" for line in lines)

    assert list(lines_of(text[at : at + size] for at in range(0, len(text), size))) == lines


def test_places_agree_with_members() -> None:
    """The brief reading finds the same blocks, types and paths."""
    text = FILE + FILE.replace(b"-rw", b"lrw").replace(b'"\n', b'" -> "a \\" b"\n').replace(b"name", b"n\\303\\251\\n")

    assert [(p.block, p.type, p.path) for p in places([text])] == [(m.block, m.type, m.path) for m in members([text])]


@pytest.mark.slow
def test_a_million_lines_are_read_in_little_memory() -> None:
    """Memory does not grow with the listing."""
    chunk = b"".join(FILE.replace(b"name", b"%d" % number) for number in range(1000))

    tracemalloc.start()
    count = sum(1 for _ in places(chunk for _ in range(100)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert count == 100_000
    assert peak < 4 << 20


NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: name not in {b".", b".."} and not set(name) & {0, 47})


@given(
    names=st.sets(NAMES, min_size=1, max_size=4),
    target=NAMES,
    time=st.integers(-(2**31), 2**33).filter(lambda second: second),
    nanoseconds=st.integers(0, 999_999_999),
)
def test_what_tar_lists_is_what_is_on_disk(
    tmp_path_factory: pytest.TempPathFactory, names: set[bytes], target: bytes, time: int, nanoseconds: int
) -> None:
    """Any name, any link target, any time from 1901 to 2242."""
    root = tmp_path_factory.mktemp("listed")
    index = Path(f"{root}.index")
    for name in names:
        place = os.fsencode(root) + b"/" + name
        os.symlink(target, place)  # noqa: PTH211  # names as bytes
        os.utime(place, ns=(0, time * 1_000_000_000 + nanoseconds), follow_symlinks=False)
    subprocess.run(
        ["tar", "-c", "--format=posix", *LISTING, f"--index-file={index}", "-f", "/dev/null", "-C", root, "."],
        check=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )

    found = {member.path: member for member in members([index.read_bytes()])}

    assert set(found) == {b".", *names}
    for name in names:
        assert found[name].link == target
        mtime_ns = os.lstat(os.fsencode(root) + b"/" + name).st_mtime_ns
        assert found[name].mtime_ns in ({mtime_ns, -mtime_ns} if abs(mtime_ns) < 10**9 else {mtime_ns})
