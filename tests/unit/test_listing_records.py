"""What a peer says of its directory, believed in its form alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.contents import EntryType
from handlers.errors import PermanentError
from handlers.tools.remote.listing_records import Records, RemoteEntry

SUM = hashlib.sha256(b"").hexdigest().encode()


def read(text: bytes, *, piece: int = 1000, max_names: int = 100) -> Mapping[bytes, RemoteEntry]:
    records = Records(b"TOKEN", max_names=max_names, max_bytes=1 << 20, peer="web01")
    for at in range(0, len(text), piece):
        records.take(memoryview(text[at : at + piece]))
    return records.finish()


def pairs(*names: bytes) -> bytes:
    return b"\0TOKEN begin\0TOKEN pairs exact\0" + b"".join(b"f 644 7 1.5\0./%s\0" % name for name in names)


@given(piece=st.integers(1, 50))
def test_records_are_read_however_they_are_cut(piece: int) -> None:
    """Pieces of a stream have no meaning."""
    text = b"hello\0TOKEN begin\0TOKEN pairs exact\0d 750 0 -1.25\0./a\0f 4755 12 1.000000001\0./a/b\nc\0TOKEN end 0\0"

    assert read(b"\0" + text, piece=piece) == {
        b"a": RemoteEntry(EntryType.DIRECTORY, None, -1_250_000_000, 0o750),
        b"a/b\nc": RemoteEntry(EntryType.FILE, 12, 1_000_000_001, 0o4755),
    }


@pytest.mark.parametrize(
    "name", [b"", b"/etc/passwd", b"../x", b"a/../../x", b"a//b", b"a/./b", b"a/", b"x" * 256, b"a/" * 40_000 + b"a"]
)
def test_names_that_cannot_be_are_refused(name: bytes) -> None:
    """A peer that lists such a name is not to be trusted with any other."""
    with pytest.raises(PermanentError, match=r"web01 (lists a name that cannot be|lists more|sends)"):
        read(pairs(name))


def test_a_name_below_a_file_is_refused() -> None:
    """Whoever makes that tree would be led elsewhere by a link."""
    text = b"\0TOKEN begin\0TOKEN pairs exact\0l 777 0 1\0./a\0f 644 1 1\0./a/passwd\0"

    with pytest.raises(PermanentError, match="lists b'a/passwd', and b'a' is a symlink"):
        read(text)


def test_of_a_name_that_is_met_twice_the_later_one_counts() -> None:
    """`find` does that where something is renamed meanwhile; it is no reason to stage nothing."""
    begin = b"\0TOKEN begin\0TOKEN pairs exact\0"

    entries = read(begin + b"f 644 1 1\0./a\0f 600 2 3\0./a\0", max_names=1)

    assert [(name, entry.size, entry.mode) for name, entry in entries.items()] == [(b"a", 2, 0o600)]


def test_names_and_bytes_have_limits() -> None:
    """Memory is ours."""
    with pytest.raises(PermanentError, match="more than 3 names"):
        read(pairs(b"a", b"b", b"c", b"d"), max_names=3)
    with pytest.raises(PermanentError, match="more than 1048576 bytes"):
        read(b"\0TOKEN begin\0" + b"x" * (2 << 20))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (SUM + b"  ./a\n" + SUM + b"  ./b\n", {b"a", b"b"}),
        (b"\\" + SUM + b"  ./new\\nline\n" + SUM + b"  ./b\n", {b"new\nline", b"b"}),
        (SUM + b"  ./new\nline\n", {b"new\nline"}),
        (b"\\" + SUM + b" *./c\\\\d\\r\n", {b"c\\d\r"}),
        (b"\\" + SUM + b"  ./c\\\\d\r\n", {b"c\\d\r"}),
        (SUM + b" ./a\n", {b"a"}),
        (SUM + b"  ./b\n", {b"b"}),
        (b"garbage\n" + SUM + b"  ./a\n", set()),
        (SUM + b"  ./unasked\n", set()),
        (b"", set()),
    ],
)
def test_sums_are_read_by_the_names_they_were_asked_for(text: bytes, names: set[bytes]) -> None:
    """Whichever program wrote them: escaped or not, with one blank or two, with files left out."""
    asked = (b"a", b"new\nline", b"b", b"c\\d\r")

    entries = read(pairs(*asked) + b"TOKEN sums\0" + text + b"".join(b"\0./" + name for name in asked) + b"\0\0")

    assert {name for name, entry in entries.items() if entry.sha256} == names


@given(st.lists(st.binary(max_size=40) | st.sampled_from([b"TOKEN sums", b"TOKEN batches", b"TOKEN pairs", b"./a"])))
def test_garbage_is_refused_or_harmless(records: list[bytes]) -> None:
    """Nothing but the one kind of error, and no name that leads elsewhere."""
    try:
        entries = read(b"\0TOKEN begin\0TOKEN pairs exact\0" + b"\0".join(records))
    except PermanentError:
        return
    assert all(not name.startswith(b"/") and b".." not in name.split(b"/") for name in entries)


@pytest.mark.parametrize(
    "facts",
    [b"f 644 1 1e999999", b"f 9 1 1", b"f 644 -1 1", b"f 644 " + b"9" * 99 + b" 1", b"f 644 1 nan", b"", b"f 644 1"],
)
def test_facts_that_make_no_sense_are_refused(facts: bytes) -> None:
    """Numbers have a length."""
    with pytest.raises(PermanentError, match="facts that make no sense"):
        read(b"\0TOKEN begin\0TOKEN pairs exact\0" + facts + b"\0./a\0")
