"""The lines and headers that we write ourselves, read back by what reads GNU tar's."""

from __future__ import annotations

import os
import subprocess
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from handlers.tools.tar.archive_format import Window, next_member
from handlers.tools.tar.header import DIRECTORY, FILE, SYMBOLIC_LINK, Facts, decimal_time, member_header
from handlers.tools.tar.index import members
from handlers.tools.tar.listing import Listing
from handlers.tools.tar.rewrite import records_of

SECOND = 1_000_000_000

names = st.binary(min_size=1, max_size=300).map(lambda name: name.translate(None, b"\0/") or b"x")
paths = st.lists(names.filter(lambda name: name not in {b".", b".."}), min_size=1, max_size=4).map(b"/".join)
facts = st.builds(
    Facts,
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    # Far beyond the year 9999 and before year 1, which file systems can hold, and `datetime` cannot.
    mtime_ns=st.integers(-(2**36) * SECOND, 2**40 * SECOND),
)


@given(st.lists(st.tuples(paths, facts, st.integers(0, 2**62), st.none() | names), min_size=1, max_size=5))
def test_the_listing_is_read_back_as_it_was_meant(rows: list[tuple[bytes, Facts, int, bytes | None]]) -> None:
    """Whatever the names, numbers and times, and however wide the columns have become."""
    listing = Listing()
    lines = [
        listing.line(at, b"-" if link is None else b"l", b"./" + path, about, size=0 if link else size, link=link)
        for at, (path, about, size, link) in enumerate(rows)
    ]

    found = list(members(lines))

    for at, (path, about, size, link) in enumerate(rows):
        member = found[at]
        assert (member.block, member.path, member.link) == (at, path, link)
        assert (member.mode, member.uid, member.gid) == about[:3]
        assert member.size == (0 if link else size)
        # GNU tar prints the second before and the second after 1970-01-01 alike.
        assert member.mtime_ns in {about.mtime_ns, -about.mtime_ns if abs(about.mtime_ns) < SECOND else about.mtime_ns}


@given(paths, facts, st.integers(0, 2**62), st.sampled_from([FILE, DIRECTORY, SYMBOLIC_LINK]), names)
def test_headers_are_read_back_by_the_guard_and_by_python(
    path: bytes, about: Facts, size: int, kind: bytes, link: bytes
) -> None:
    """What does not fit into the plain header is told by the extended one."""
    name = b"./" + path + (b"/" if kind == DIRECTORY else b"")
    size = size if kind == FILE else 0
    link = link if kind == SYMBOLIC_LINK else b""

    headers = member_header(name, kind, about, size=size, link=link)

    header = next_member(Window(iter([headers + bytes(1024)])))
    assert header is not None
    assert (header.path, header.type, header.link, header.size) == (path, kind.decode(), link, size)
    told = records_of(headers).get(b"mtime")
    assert told is None or told == decimal_time(about.mtime_ns)
    plain = tarfile.TarInfo.frombuf(headers[-512:], "latin-1", "strict")
    assert plain.mode == about.mode
    assert plain.mtime == (about.mtime_ns // SECOND if told is None else plain.mtime)
    assert int(records_of(headers).get(b"uid", b"%d" % plain.uid)) == about.uid


def test_odd_times_are_printed_as_gnu_tar_prints_them() -> None:
    """Of years with fewer than four digits, or more, before 1970 and at its very edge."""
    times = (-62_167_219_201, -62_167_219_200, -62_100_000_000, -40_000_000_000, -1, 0, 5_000_000_000, 400_000_000_000)
    all_facts = [Facts(0o640, 1, 2, seconds * SECOND + part) for seconds in times for part in (0, 1, 750_000_000)]
    listing = Listing()
    lines = [listing.line(0, b"-", b"./x", about) for about in all_facts]
    archive = b"".join(member_header(b"./x", FILE, about) for about in all_facts) + bytes(1024)

    printed = subprocess.run(
        ["tar", "--list", "-vv", "--full-time", "--utc", "--numeric-owner", "--quoting-style=c", "--file=-"],
        input=archive,
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    ).stdout

    assert [line.removeprefix(b"block 0: ") for line in lines] == printed.splitlines(keepends=True)
    assert [member.mtime_ns for member in members(lines) if abs(member.mtime_ns) >= SECOND] == [
        about.mtime_ns for about in all_facts if abs(about.mtime_ns) >= SECOND
    ]
