"""What rsync says, as it says it (3.1 to 3.5), and what is understood."""

from __future__ import annotations

import pytest

from handlers.contract import ProblemKind
from handlers.errors import HoldfastError, PermanentError, TemporaryError
from handlers.tools.remote.rsync_messages import Messages, NoRsyncThere, plain, trouble


@pytest.mark.parametrize(
    ("line", "path", "kind"),
    [
        (
            rb'rsync: [sender] send_files failed to open "/srv/d/a\#012b": Permission denied (13)',
            b"a\nb",
            ProblemKind.UNREADABLE,
        ),
        (rb'rsync: send_files failed to open "/srv/d/a": Permission denied (13)', b"a", ProblemKind.UNREADABLE),
        (rb'rsync: [sender] opendir "/srv/d/s" failed: Permission denied (13)', b"s", ProblemKind.UNREADABLE),
        (rb'rsync: [sender] readlink_stat("/srv/d/l") failed: Input/output error (5)', b"l", ProblemKind.UNREADABLE),
        (rb'rsync: read errors mapping "/srv/d/a": Input/output error (5)', b"a", ProblemKind.UNREADABLE),
        (rb'rsync: [sender] link_stat "/srv/d/x" failed: No such file or directory (2)', b"x", ProblemKind.VANISHED),
        (rb'file has vanished: "/srv/d/say "hi": no (2)"', b'say "hi": no (2)', ProblemKind.VANISHED),
        (rb'rsync: [receiver] mkstemp "/aim/.x.ab1" failed: Permission denied (13)', b".x.ab1", ProblemKind.OTHER),
        (rb'rsync: [generator] chown "/aim/x" failed: Operation not permitted (1)', b"x", ProblemKind.OTHER),
        (rb"ERROR: a b failed verification -- update discarded.", b"a b", ProblemKind.CHANGED),
        (
            rb'rsync: [sender] send_files failed to open "/srv/d/q": b": Permission denied (13)',
            b'q": b',
            ProblemKind.UNREADABLE,
        ),
    ],
)
def test_lines_of_stderr_tell_names_and_kinds(line: bytes, path: bytes, kind: ProblemKind) -> None:
    """Names relative to where they lie, exact to the byte."""
    heard = Messages((b"/srv/d", b"/aim"))

    heard.hear_error(line)

    assert [(problem.path, problem.kind) for problem in heard.problems] == [(path, kind)]


@pytest.mark.parametrize(
    "line",
    [
        b"WARNING: x failed verification -- update discarded (will try again).",
        b"IO error encountered -- skipping file deletion",
        b"rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1865)",
        b"Welcome to web01",
        b"",
    ],
)
def test_other_lines_are_no_problem_of_a_file(line: bytes) -> None:
    """What is tried again is not lost yet; summaries name nothing."""
    heard = Messages((b"/srv/d",))

    heard.hear_error(line)

    assert heard.problem_count == 0


def test_progress_is_read_in_both_spellings() -> None:
    """With and without the number of files."""
    heard = Messages(())

    assert heard.hear(b"         40 100%    0.00kB/s    0:00:00 (xfr#10, to-chk=0/11)")
    assert (heard.bytes_received, heard.files) == (40, 10)
    assert heard.hear(b"     65,536".replace(b",", b"") + b"  12%    1.00MB/s    0:00:01  ")
    assert (heard.bytes_received, heard.files) == (65_536, 10)
    assert not heard.hear(b'skipping non-regular file "a\\#001"')
    assert heard.problems[0].path == b"a\x01"


def test_escapes_are_undone_once() -> None:
    """A name that looks like an escape was escaped itself."""
    assert plain(rb"\#134#012 \#377 \#12 \x") == b"\\#012 \xff \\#12 \\x"


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (1, "unknown option", PermanentError),
        (2, "protocol version mismatch -- is your shell clean?", PermanentError),
        (3, "", PermanentError),
        (4, "", PermanentError),
        (5, "@ERROR: max connections (1) reached", TemporaryError),
        (10, "", TemporaryError),
        (11, "", TemporaryError),
        (12, "", TemporaryError),
        (12, "bash: line 1: rsync: command not found", NoRsyncThere),
        (12, "sh: 1: rsync: not found", NoRsyncThere),
        (14, "", TemporaryError),
        (20, "", TemporaryError),
        (22, "", TemporaryError),
        (30, "", TemporaryError),
        (35, "", TemporaryError),
        (126, "", PermanentError),
        (127, "", NoRsyncThere),
        (99, "", TemporaryError),
    ],
)
def test_exit_codes_decide_what_happens_next(code: int, said: str, expected: type[HoldfastError]) -> None:
    """Whether it may work later, or a person must look."""
    assert type(trouble(code, said, Messages(()), "web01")) is expected


def test_full_disk_here_is_tried_later() -> None:
    """It is no fault of the peer, nor of one file."""
    heard = Messages((b"/aim",))
    heard.hear_error(b'rsync: [receiver] write failed on "/aim/x": No space left on device (28)')

    error = trouble(11, "", heard, "web01")

    assert isinstance(error, TemporaryError)
    assert error.hint == "free some space"
