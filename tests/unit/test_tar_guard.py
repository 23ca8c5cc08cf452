"""What the guard lets through to GNU tar, and what it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import IntegrityError
from handlers.tools.tar.archive_format import Window, next_member
from handlers.tools.tar.guard import MAX_LOOSE, Guard
from handlers.tools.tar.rewrite import rewritten
from tests.workshop.tar_sets import archive_of, directory, header, member, padded, record

NOWHERE = Path("/nonexistent")
TOP = directory(b"./", b"Dd\0Yf\0\0")
MTIME = (b"mtime", b"1795234078.347537148")


def cut(archive: bytes, size: int) -> Iterator[bytes]:
    return (archive[at : at + size] for at in range(0, len(archive), size))


def passed(archive: bytes, size: int = 1 << 20, target: Path = NOWHERE) -> bytes:
    return b"".join(bytes(chunk) for chunk in Guard(cut(archive, size), target).passed())


def sparse(regions: list[tuple[int, int]], real: int, name: bytes = b"./holes", **fields: int) -> bytes:
    """A file with holes as GNU tar writes it."""
    numbers = [len(regions), *(number for region in regions for number in region)]
    table = padded(b"".join(b"%d\n" % number for number in numbers))
    data = b"".join(padded(b"x" * length) for _, length in regions)
    pax = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", name),
        (b"GNU.sparse.realsize", b"%d" % real),
    ]
    size = fields.get("size", len(table) + sum(length for _, length in regions))
    return member(b"./GNUSparseFile.0/holes", content=table + data, pax=pax, size=size)


LEGITIMATE = {
    "an empty archive": b"",
    "a tree": TOP
    + directory(b"./d/", b"Yx\0\0")
    + member(b"./f", content=b"f" * 700, pax=[MTIME])
    + member(b"./d/x", content=b""),
    "dots in names": TOP + member(b"./notes..txt") + member(b"./...") + member(b"./..a") + member(b"./a.."),
    "links to anywhere": TOP
    + member(b"./zone", b"2", link=b"/etc/localtime")
    + member(b"./up", b"2", link=b"..")
    + member(b"./gone", b"2", link=b"nowhere/../at all"),
    "a hard link": TOP + member(b"./f", content=b"1") + member(b"./g", b"1", link=b"./f"),
    "devices and a pipe": TOP + member(b"./c", b"3") + member(b"./b", b"4") + member(b"./p", b"6"),
    "long names": TOP
    + member(b"./" + b"n" * 80, pax=[(b"path", b"./" + b"n" * 200)])
    + member(b"./l", b"2", link=b"x", pax=[(b"linkpath", b"t" * 300)]),
    "a prefix": TOP + directory(b"./d/") + member(b"name", prefix=b"./d"),
    "attributes": TOP
    + member(
        b"./f",
        pax=[
            (b"SCHILY.xattr.user.x", b"a\0=\nb"),
            (b"SCHILY.acl.access", b"user::rw-"),
            (b"uid", b"123456789"),
            (b"RHT.security.selinux", b"x"),
        ],
    ),
    "a file beyond eight gigabytes in its records": TOP + member(b"./f", content=b"abc", size=0, pax=[(b"size", b"3")]),
    "holes": TOP + sparse([(512, 512), (4096, 3)], 4099) + member(b"./f", content=b"after"),
    "holes at odd places": TOP + sparse([(0, 100), (4096, 3)], 9000) + member(b"./f", content=b"after"),
    "a plan with single names": directory(b"./srv/www/") + member(b"./srv/www/i") + member(b"./etc/hosts"),
}


@pytest.mark.parametrize("name", LEGITIMATE)
def test_what_gnu_tar_writes_passes_unchanged(name: str) -> None:
    """To the byte, up to the two zero blocks at the end; what is after them is not needed."""
    archive = LEGITIMATE[name] + bytes(10_240)

    assert passed(archive) == LEGITIMATE[name] + bytes(1024)


@given(st.sampled_from(sorted(LEGITIMATE)), st.integers(1, 3000))
def test_chunks_do_not_matter(name: str, size: int) -> None:
    """The archive may come in pieces of any size."""
    assert passed(LEGITIMATE[name] + bytes(1024), size) == LEGITIMATE[name] + bytes(1024)


def with_byte(block: bytes, at: int, value: int) -> bytes:
    """A header with one byte changed, and the checksum made right again."""
    changed = bytearray(block)
    changed[at] = value
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def pax(*records: bytes) -> bytes:
    body = b"".join(records)
    return header(b"x", b"x", len(body)) + padded(body) + member(b"./f")


HOSTILE = {
    "dots": (TOP + member(b"../f"), "unsafe name"),
    "dots within": (TOP + directory(b"./d/") + member(b"./d/../../f"), "unsafe name"),
    "dots at the end": (TOP + directory(b"./d/.."), "unsafe name"),
    "an absolute name": (TOP + member(b"/etc/passwd"), "unsafe name"),
    "an absolute name with a prefix": (TOP + member(b"passwd", prefix=b"/etc"), "unsafe name"),
    "an empty step": (TOP + directory(b"./d/") + member(b"./d//f"), "unsafe name"),
    "no name": (TOP + member(b""), "no directory|unsafe name"),
    "a path record over a harmless name": (TOP + member(b"./f", pax=[(b"path", b"../f")]), "unsafe name"),
    "an empty path record": (TOP + member(b"./f", pax=[(b"path", b"")]), "no directory|unsafe name"),
    "a path record with a zero byte": (TOP + member(b"./f", pax=[(b"path", b"./f\0/../x")]), "unsafe name"),
    "a sparse name": (TOP + sparse([(0, 1)], 1, b"../holes"), "unsafe name"),
    "a file through a link": (TOP + member(b"./d", b"2", link=b"/etc") + member(b"./d/passwd"), "no directory"),
    "a directory through a link": (TOP + member(b"./d", b"2", link=b"/etc") + directory(b"./d/x/"), "no directory"),
    "a link in place of a directory": (
        TOP + directory(b"./d/") + member(b"./d", b"2", link=b"/etc") + member(b"./d/passwd"),
        "place of a directory",
    ),
    "a hard link in place of a directory": (
        TOP + directory(b"./d/") + member(b"./l", b"2", link=b"/") + member(b"./d", b"1", link=b"./l"),
        "place of a directory",
    ),
    "a hard link to the outside": (TOP + member(b"./h", b"1", link=b"/etc/passwd"), "unsafe name"),
    "a hard link upwards": (TOP + member(b"./h", b"1", link=b"../x"), "unsafe name"),
    "a hard link through a link": (
        TOP + member(b"./d", b"2", link=b"/etc") + member(b"./h", b"1", link=b"./d/passwd"),
        "no file of the archive",
    ),
    "a hard link by a link record": (
        TOP + member(b"./h", b"1", link=b"./f", pax=[(b"linkpath", b"/etc/passwd")]),
        "unsafe name",
    ),
    "a single name through a link": (
        directory(b"./srv/www/") + member(b"./l", b"2", link=b"/etc") + member(b"./l/passwd"),
        "no directory",
    ),
    "a GNU long name": (TOP + member(b"././@LongLink", b"L", b"../f\0") + member(b"./f"), "unknown type"),
    "a GNU long link": (TOP + member(b"././@LongLink", b"K", b"/etc\0") + member(b"./f"), "unknown type"),
    "a global header": (TOP + member(b"g", b"g", record(b"path", b"../f")) + member(b"./f"), "unknown type"),
    "an old list of names": (TOP + member(b"./d/", b"D", b"\0"), "unknown type"),
    "an old sparse file": (TOP + member(b"./f", b"S"), "unknown type"),
    "a volume": (TOP + member(b"v", b"V"), "unknown type"),
    "the rest of a file": (TOP + member(b"./f", b"M"), "unknown type"),
    "two extended headers": (
        TOP + member(b"x", b"x", record(*MTIME)) + member(b"./f", pax=[(b"path", b"../f")]),
        "unknown type",
    ),
    "another format": (TOP + member(b"./f", magic=b"ustar  \0"), "another format"),
    "a wrong checksum": (TOP + member(b"./f")[:100] + b"1" + member(b"./f")[101:], "checksum"),
    "a size in another notation": (TOP + with_byte(member(b"./f"), 124, 0x80), "size"),
    "a size with blanks": (TOP + with_byte(member(b"./f"), 124, 0x20), "size"),
    "a directory with content": (TOP + member(b"./d/", b"5", b"x" * 512), "with 512 bytes"),
    "a link with content": (TOP + member(b"./l", b"2", b"x" * 512, link=b"a"), "with 512 bytes"),
    "a file with the name of a directory": (TOP + member(b"./f/"), "a file called"),
    "a link to nothing": (TOP + member(b"./l", b"2"), "symbolic link to"),
    "an unknown record": (TOP + member(b"./f", pax=[(b"GNU.sparse.map", b"0,1")]), "unknown extended header keyword"),
    "a real size without holes": (TOP + member(b"./f", pax=[(b"GNU.sparse.realsize", b"9999")]), "unknown version"),
    "a record given twice": (TOP + member(b"./f", pax=[(b"path", b"./a"), (b"path", b"./b")]), "given twice"),
    "a record that is too long": (TOP + pax(b"99 path=./f\n"), "wrong length"),
    "a record that is too short": (TOP + pax(b"9 path=./f\n"), "wrong length"),
    "a record without length": (TOP + pax(b" path=./f\n"), "without length"),
    "a record with a leading zero": (TOP + pax(b"012 path=./f\n"), "without length"),
    "a record without value": (TOP + pax(b"7 path\n"), "wrong length"),
    "zero bytes after the records": (TOP + pax(record(b"path", b"./f"), b"\0\0"), "without length"),
    "an endless extended header": (TOP + header(b"x", b"x", 1 << 30), "extended header of"),
    "holes that eat the next member": (TOP + sparse([(0, 99_999)], 99_999, size=1024), "whose map makes"),
    "holes beyond the end": (TOP + sparse([(0, 512), (4096, 3)], 100), "with a region"),
    "holes that overlap": (TOP + sparse([(600, 512), (512, 3)], 9000), "with a region"),
    "a list of names with a path": (directory(b"./", b"Y../x\0\0"), "has a list"),
    "a list of names with dots": (directory(b"./", b"D..\0\0"), "has a list"),
    "a list of names of another kind": (directory(b"./", b"Zx\0\0"), "has a list"),
    "a list of names without end": (directory(b"./", b"Yx"), "without end"),
    "a rename that nobody expects": (directory(b"./", b"Da\0R../../x\0Ta\0\0"), "renamed"),
    "a rename in a later directory": (TOP + directory(b"./d/", b"R/etc\0Ta\0\0"), "only the first"),
    "a temporary name elsewhere": (directory(b"./", b"X/etc\0Ra\0T\0\0"), "renamed"),
    "something after the end": (TOP + bytes(1024) + member(b"../f"), "after its end"),
    "a lone zero block": (TOP + bytes(512) + member(b"./f"), "after its end"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_do_harm_does_not_pass(name: str) -> None:
    """The error says what is wrong, and nothing of the member has passed."""
    hostile, words = HOSTILE[name]
    seen = bytearray()

    with pytest.raises(IntegrityError, match=words):
        seen.extend(byte for chunk in Guard(cut(hostile + bytes(1024), 1 << 20), NOWHERE).passed() for byte in chunk)

    assert b"passwd" not in seen
    assert b"../" not in seen


@pytest.mark.parametrize("length", [0, 512, 600, 1024, 2048])
def test_an_archive_that_was_cut_short_is_an_integrity_error(length: int) -> None:
    """Without its end no archive is whole."""
    with pytest.raises(IntegrityError, match="cut short"):
        passed((TOP + member(b"./f", content=b"x" * 999) + bytes(1024))[:length])


def test_a_directory_above_a_single_name_must_not_be_a_link_on_disk(tmp_path: Path) -> None:
    """What an earlier level left there is looked at."""
    (tmp_path / "srv").symlink_to("/etc")

    with pytest.raises(IntegrityError, match="'srv', which is no directory"):
        passed(member(b"./srv/passwd") + bytes(1024), target=tmp_path)


@pytest.mark.slow
def test_single_names_are_limited_in_number() -> None:
    """They have to be remembered, and a plan does not name that many."""
    archive = archive_of(*(member(b"./%d" % number) for number in range(MAX_LOOSE + 1)))

    with pytest.raises(IntegrityError, match="more than"):
        passed(archive)


def test_renames_are_done_before_anything_passes_and_gnu_tar_hears_nothing_of_them() -> None:
    """The records are taken out, the names stay."""
    archive = directory(b"./", b"Db\0Yf\0Ra\0Tb\0\0", pax=[MTIME]) + directory(b"./b/") + bytes(1024)
    done: list[str] = []
    guard = Guard(cut(archive, 700), NOWHERE, lambda: done.append("moved"))

    first = next(iter(chunks := guard.passed()))
    rest = b"".join(bytes(chunk) for chunk in chunks)

    assert done == ["moved"]
    assert bytes(first) + rest == directory(b"./", b"Db\0Yf\0\0", pax=[MTIME]) + directory(b"./b/") + bytes(1024)


@given(
    st.dictionaries(
        st.sampled_from([b"path", b"linkpath", b"mtime"]), st.binary(min_size=1, max_size=2000), min_size=1
    ),
    st.booleans(),
)
def test_headers_written_anew_say_what_they_should(changes: dict[bytes, bytes], has_records: bool) -> None:
    """Whatever their length: the lengths of records count themselves."""
    changes = {key: b"./" + value.replace(b"/", b"_").replace(b"\0", b"_") + b"_" for key, value in changes.items()}
    old = member(b"./l", b"2", link=b"t", pax=[MTIME, (b"path", b"./old")] if has_records else [])

    found = next_member(Window(iter([rewritten(old, changes) + bytes(1024)])))

    assert found is not None
    assert found.path == changes.get(b"path", b"./old" if has_records else b"./l")[2:]
    assert found.link == changes.get(b"linkpath", b"t")


@pytest.mark.slow
def test_the_guard_is_not_what_a_restore_waits_for() -> None:
    """Sixty thousand members a second are wanted; half of it is asked for, whatever the machine."""
    records = [MTIME, (b"atime", b"1795234078.34749811"), (b"ctime", b"1795234078.347537148")]
    one = b"".join(member(b"./d/name%03d" % number, content=b"x" * 100, pax=records) for number in range(1000))
    chunks = [TOP + directory(b"./d/"), *[one] * 60, bytes(1024)]
    best = 0.0

    for _ in range(3):
        guard = Guard(iter(chunks), NOWHERE)
        # Of this thread's own: others use this machine too.
        started = time.thread_time()
        for _chunk in guard.passed():
            pass
        best = max(best, guard.members / (time.thread_time() - started))

    assert best > 30_000, f"{best:,.0f} members/s"
