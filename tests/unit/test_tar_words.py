"""What GNU tar's messages, options and exit codes mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from handlers.contract import ProblemKind
from handlers.errors import PermanentError, TemporaryError
from handlers.tools.process import Ended
from handlers.tools.tar import program as tar
from handlers.tools.tar.options import TarOptions


def ended(code: int, killed_by: str | None = None, stderr: str = "") -> Ended:
    return Ended(code=code, killed_by=killed_by, stderr=stderr)


@pytest.mark.parametrize(
    ("line", "kind", "path"),
    [
        (b'tar: "./d/x": Cannot open: Permission denied', ProblemKind.UNREADABLE, "d/x"),
        (b'tar: "./d/x": Cannot stat: Permission denied', ProblemKind.UNREADABLE, "d/x"),
        (b'tar: "./l": Cannot readlink: Input/output error', ProblemKind.UNREADABLE, "l"),
        (b'tar: "./x": Read error at byte 0, while reading 512 bytes: Input/output error', ProblemKind.UNREADABLE, "x"),
        (b'tar: "./x": Cannot stat: No such file or directory', ProblemKind.VANISHED, "x"),
        (b'tar: "./x": File removed before we read it', ProblemKind.VANISHED, "x"),
        (b'/usr/bin/tar: "./x": file changed as we read it', ProblemKind.CHANGED, "x"),
        (b'tar: "./x": File shrank by 1 byte; padding with zeros', ProblemKind.CHANGED, "x"),
        (b'tar: "./x": File shrank by 40960 bytes; padding with zeros', ProblemKind.CHANGED, "x"),
        (b'tar: "./s": socket ignored', ProblemKind.SOCKET, "s"),
        (b'tar: "./x": Unknown file type; file ignored', ProblemKind.UNKNOWN_TYPE, "x"),
        (b'tar: "./b": Directory has been renamed from "./a"', ProblemKind.RENAMED, "b"),
        (b'tar: "./x": Warning: Cannot llistxattrat: Permission denied', ProblemKind.OTHER, "x"),
        (b'tar: "x": Warning: Cannot flistxattr: Input/output error', ProblemKind.OTHER, "x"),
        (b'tar: "x": Warning: Cannot acl_get_file_at: Input/output error', ProblemKind.OTHER, "x"),
        (b'tar: "./d/": Cannot savedir: Input/output error', ProblemKind.UNREADABLE, "d"),
        (b'tar: "./d": Cannot open: Not a directory', ProblemKind.CHANGED, "d"),
        (b'tar: "./d/x": Cannot stat: Not a directory', ProblemKind.CHANGED, "d/x"),
        (b'tar: "./d": Cannot open: Too many levels of symbolic links', ProblemKind.CHANGED, "d"),
        (rb'tar: "./10\:30": Cannot open: Permission denied', ProblemKind.UNREADABLE, "10:30"),
        (b'tar: "./x": something new under the sun', ProblemKind.OTHER, "x"),
        (b'tar: ".": file changed as we read it', ProblemKind.CHANGED, "."),
    ],
)
def test_a_line_about_a_file_names_it_with_what_is_wrong(line: bytes, kind: ProblemKind, path: str) -> None:
    """Each message that GNU tar has for one file gets the kind that decides the outcome."""
    said = tar.meaning(line)

    assert isinstance(said, tar.OfFile)
    assert (said.problem.kind, said.problem.path) == (kind, path)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"tar: Exiting with failure status due to previous errors",
        b"tar: Removing leading `/' from member names",
        b'tar: "./d": Directory is new',
        b'tar: "./x": implausibly old time stamp 1969-12-31 23:00:00',
        b'tar: "./x": time stamp 2099-01-01 00:00:00 is 9999.5 s in the future',
        b'tar: "./mnt": file is on a different filesystem; not dumped',
        b'tar: "./mnt": directory is on a different filesystem; not dumped',
    ],
)
def test_known_noise_is_no_problem(line: bytes) -> None:
    """A good backup does not turn partial because tar is talkative."""
    assert isinstance(tar.meaning(line), tar.Noise)


@pytest.mark.parametrize(
    ("line", "usage"),
    [
        (b"tar: unrecognized option '--xattrs'", True),
        (b"Try 'tar --help' or 'tar --usage' for more information.", True),
        (b"tar: Error is not recoverable: exiting now", False),
        (b"tar: memory exhausted", False),
        (b'tar: "/scratch/tree.snar": Cannot write: No space left on device', False),
        (b'tar: ".": Cannot open: Permission denied', False),
        (b'tar: "./": Cannot savedir: Input/output error', False),
        (b'tar: ".": Cannot open: Not a directory', False),
        (b'tar: ".": Cannot stat: No such file or directory', False),
    ],
)
def test_giving_up_is_recognised(line: bytes, usage: bool) -> None:
    """Ending early, or losing the subject itself, is never taken for trouble with one file."""
    said = tar.meaning(line)

    assert isinstance(said, tar.Fatal)
    assert said.usage is usage


def test_a_line_about_a_file_that_is_no_member_is_unknown() -> None:
    """Trouble with the snapshot file must not pass for an unreadable file of the subject."""
    said = tar.meaning(b'tar: "/scratch/tree.snar": Cannot open: Permission denied')

    assert isinstance(said, tar.Unknown)


def test_names_are_unquoted_and_made_printable() -> None:
    """A hostile name arrives as one line that can be turned back into its bytes."""
    said = tar.meaning(rb'tar: "./a\"b\\c\nd\377\303\244\: Cannot open\: x": Cannot open: Permission denied')

    assert isinstance(said, tar.OfFile)
    assert said.name == b'./a"b\\c\nd\xff\xc3\xa4: Cannot open: x'
    assert said.problem.path == r'a"b\\c\x0ad\xffä: Cannot open: x'
    assert said.problem.kind is ProblemKind.UNREADABLE


@given(st.binary(max_size=200))
def test_no_line_is_too_strange(line: bytes) -> None:
    """Whatever stands on stderr has a meaning."""
    assert isinstance(tar.meaning(line), tar.Noise | tar.Fatal | tar.Unknown | tar.OfFile)


def test_an_archive_is_good_after_exit_code_zero_and_one() -> None:
    """1 says that some files changed."""
    for code in (0, 1):
        tar.require_archive(ended(code), fatal=None, unknown=None, problems=0)


def test_an_archive_is_good_after_exit_code_two_when_only_files_were_complained_of() -> None:
    """Unreadable files cost those files, not the backup."""
    tar.require_archive(ended(2), fatal=None, unknown=None, problems=3)


@pytest.mark.parametrize(
    ("end", "fatal", "unknown", "problems"),
    [
        (ended(2), None, None, 0),
        (ended(2), None, "what is this", 4),
        (ended(2), tar.Fatal("Error is not recoverable: exiting now"), None, 4),
        (ended(0), tar.Fatal("Error is not recoverable: exiting now"), None, 0),
        (ended(137, "SIGKILL"), None, None, 4),
        (ended(141, "SIGPIPE"), None, None, 0),
        (ended(3), None, None, 1),
        (ended(127), None, None, 1),
    ],
)
def test_an_archive_is_not_good_unless_tar_says_so(
    end: Ended, fatal: tar.Fatal | None, unknown: str | None, problems: int
) -> None:
    """Signals, unknown codes and words that we do not understand never end in a success."""
    with pytest.raises(TemporaryError):
        tar.require_archive(end, fatal=fatal, unknown=unknown, problems=problems)


def test_options_that_tar_does_not_know_need_a_person() -> None:
    """Trying again would not help."""
    with pytest.raises(PermanentError, match="refused its arguments"):
        tar.require_archive(
            ended(2), fatal=tar.Fatal("unrecognized option '--xattrs'", usage=True), unknown=None, problems=0
        )


@pytest.mark.parametrize("pattern", ["", "/", "//", "*", "**", "/*", "*/", ".", "./x", "/./x", "a\0b"])
def test_patterns_that_cannot_be_meant_are_refused(pattern: str) -> None:
    """A pattern that leaves nothing would make an empty backup succeed."""
    with pytest.raises(ValidationError):
        TarOptions(root=Path("/srv"), exclude=(pattern,))


@pytest.mark.parametrize(
    "include",
    [(), ("",), ("/etc",), ("../etc",), ("a/../b",), (".", "etc"), ("etc", "etc/x"), ("etc", "etc"), ("a\0b",)],
)
def test_included_names_stay_below_root_and_apart(include: tuple[str, ...]) -> None:
    """A name outside root, or one inside another, is a mistake in the plan."""
    with pytest.raises(ValidationError):
        TarOptions(root=Path("/srv"), include=include)


def test_included_names_that_begin_alike_are_no_mistake() -> None:
    """`etc-old` is not below `etc`."""
    options = TarOptions(root=Path("/srv"), include=("etc/", "etc-old", "./var//lib"))

    assert options.include == ("etc", "etc-old", "var/lib")


@pytest.mark.parametrize(
    "wrong",
    [{"root": "relative"}, {"strength": 10}, {"strength": -1}, {"threads": 0}, {"codec": "zip"}, {"unknown": 1}],
)
def test_other_options_are_checked_too(wrong: dict[str, object]) -> None:
    """What tar or the codec would choke on is refused before anything runs."""
    with pytest.raises(ValidationError):
        TarOptions.model_validate({"root": "/srv", **wrong})
