"""Access control lists by number, and attributes that a directory no longer has."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from handlers.errors import IntegrityError
from handlers.tools.tar.access import attribute_names, numbered_lists, take_away, text_of_list
from handlers.tools.tar.archive_format import ACL, XATTR, Malformed
from handlers.tools.tar.guard import Guard
from tests.workshop.odd_attributes import access_list, named_user
from tests.workshop.tar_sets import archive_of, directory, member

TEXT = ACL + b"access"
RAW = XATTR + b"system.posix_acl_access"


def raw(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """A list as the kernel has it."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


FULL = raw((1, 7, 0), (2, 6, 5), (2, 1, 2**32 - 2), (4, 4, 0), (8, 3, 12345), (16, 7, 0), (32, 0, 0))
IN_WORDS = b"user::rwx\nuser:5:rw-\nuser:4294967294:--x\ngroup::r--\ngroup:12345:-wx\nmask::rwx\nother::---\n"


def test_a_list_is_written_by_number() -> None:
    """Whatever names GNU tar wrote."""
    assert text_of_list(FULL) == IN_WORDS
    assert numbered_lists({TEXT: b"user::rwx\nuser:games:rw-\n", RAW: FULL}) == {TEXT: IN_WORDS}


def test_lists_whose_numbers_are_not_there_stay_as_they_are() -> None:
    """The plan leaves out extended attributes."""
    assert numbered_lists({TEXT: b"user::rwx\nuser:games:rw-\n"}) == {}
    assert numbered_lists({RAW: FULL}) == {}


@pytest.mark.parametrize(
    "broken", [b"", b"\2\0\0", FULL[:-1], raw(version=3), raw((3, 7, 0)), raw((1, 8, 0))], ids=repr
)
def test_what_is_no_list_is_malformed(broken: bytes) -> None:
    """The kernel would not take it either."""
    with pytest.raises(Malformed, match="access list"):
        text_of_list(broken)


def test_a_numbered_list_is_one_to_the_kernel(tmp_path: Path) -> None:
    """Read back by the plain tool."""
    access_list(tmp_path, "access", *named_user(2**31, 5))
    value = os.getxattr(tmp_path, "system.posix_acl_access")

    told = subprocess.run(["getfacl", "-cnpE", tmp_path], check=True, capture_output=True).stdout

    assert text_of_list(value) == told.rstrip() + b"\n"


def test_attributes_are_named_as_the_file_system_names_them() -> None:
    """Lists are none of them; two characters are quoted."""
    names = (XATTR + b"user.a%3Db%2541", RAW, TEXT, XATTR + b"trusted.x")

    assert attribute_names(names) == (b"user.a=b%41", b"trusted.x")


def test_attributes_are_taken_from_directories_alone(tmp_path: Path) -> None:
    """What is gone, or something else by now, is left alone."""
    for name in ("d", "d/e", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "f").write_text("f")
    (tmp_path / "link").symlink_to("other")
    for name in (".", "d", "d/e", "f", "other"):
        os.setxattr(tmp_path / name, "user.gone", b"")
        os.setxattr(tmp_path / name, "user.stays", b"")

    take_away(
        tmp_path,
        dict.fromkeys((b"", b"d/e", b"f", b"link", b"nowhere", b"f/x"), (b"user.gone", b"user.never was")),
    )

    left = {name: "user.gone" in os.listxattr(tmp_path / name) for name in (".", "d", "d/e", "f", "other")}
    assert left == {".": False, "d": True, "d/e": False, "f": True, "other": True}
    assert all("user.stays" in os.listxattr(tmp_path / name) for name in left)


def test_the_guard_lets_lists_pass_by_number_and_remembers_attributes_of_directories(tmp_path: Path) -> None:
    """In each place of an archive; the rest passes as it is."""
    lists = [(TEXT, b"user::rwx\nuser:games:rwx\n"), (RAW, FULL)]
    parts = [
        directory(b"./", pax=[*lists, (XATTR + b"user.top", b"1")]),
        directory(b"./d/", pax=[(XATTR + b"user.d", b"1")]),
        member(b"./d/f", content=b"content", pax=lists),
        member(b"./d/g", content=b"content" * 1000, pax=[(XATTR + b"user.g", b"1")]),
        member(b"./d/h", content=b"plain"),
    ]
    archive = archive_of(*parts)
    guard = Guard(iter([archive]), tmp_path)

    passed = b"".join(guard.passed())

    assert passed.count(IN_WORDS) == 2
    assert b"games" not in passed
    assert parts[3] + parts[4] in passed
    assert guard.directory_attributes == {b"": (b"user.top",), b"d": (b"user.d",)}
    assert b"".join(Guard(iter([passed]), tmp_path).passed()) == passed


def test_the_guard_refuses_a_list_that_is_none(tmp_path: Path) -> None:
    """Naming the member."""
    archive = archive_of(directory(b"./"), member(b"./f", pax=[(TEXT, b"user::rwx\n"), (RAW, b"rubbish")]))

    with pytest.raises(IntegrityError, match="'f' has access list"):
        b"".join(Guard(iter([archive]), tmp_path).passed())
