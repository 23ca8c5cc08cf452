"""Local peers are staged whole, or it is told what is not."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handlers.contract import ProblemKind
from handlers.errors import PermanentError
from handlers.tools.peers.verdicts import Verdict
from tests.workshop.another_user import needs_another_user, nobody, open_directory
from tests.workshop.peers import HOSTILE_NAMES, files_below, fill
from tests.workshop.pool import Pool, collected
from tests.workshop.staged import local_peer, staged


def test_what_a_peer_has_collected_is_in_the_set_as_it_is(tmp_path: Path) -> None:
    """Names, content, modes and times; the indicators are not among the files."""
    directory = collected(tmp_path / "a", "dump.sql", "sub/deep/more", "empty.d/.keep")
    os.utime(directory / "dump.sql", ns=(1, 1_111_111_111_222_333_444))
    (directory / "dump.sql").chmod(0o640)
    (directory / "sub").chmod(0o750)
    pool = Pool(tmp_path, {"a": local_peer(directory)})

    made = pool.stage()

    files = staged(made.directory, "a")
    assert set(files) == {"dump.sql", "sub/deep/more", "empty.d/.keep"}
    assert files["dump.sql"].read_text() == "content of dump.sql"
    about = files["dump.sql"].stat()
    assert (about.st_mtime_ns, stat.S_IMODE(about.st_mode)) == (1_111_111_111_222_333_444, 0o640)
    assert stat.S_IMODE((made.tree("peers") / "a" / "sub").stat().st_mode) == 0o750
    record = made.record("a")
    assert (record.verdict, record.files, record.left_out) == (Verdict.STAGED, 6, ("cback.collect",))
    assert made.made.problems == ()


def test_names_that_programs_would_misread_are_only_names(tmp_path: Path) -> None:
    """Leading dashes, line ends, bytes that are no text."""
    directory = tmp_path / "a"
    directory.mkdir()
    written = fill(directory)
    pool = Pool(tmp_path, {"a": local_peer(directory, collect_indicator=None)})

    made = pool.stage()

    assert files_below(made.tree("peers") / "a") == written
    assert len(written) == len(HOSTILE_NAMES)
    assert made.record("a").verdict is Verdict.STAGED


def test_odd_files_do_not_keep_a_peer_from_being_staged(tmp_path: Path) -> None:
    """Cedar's fault: one link among the files ended the copy half way. Each is named; the rest is there."""
    directory = collected(tmp_path / "a", "1", "2", "sub/3")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "sub" / "secret").symlink_to("/etc/passwd")
    os.mkfifo(directory / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "socket"))
    pool = Pool(tmp_path, {"a": local_peer(directory)})

    made = pool.stage()

    assert set(staged(made.directory, "a")) == {"1", "2", "sub/3"}
    assert made.problems() == {
        "peers/a/dangling": ProblemKind.OTHER,
        "peers/a/sub/secret": ProblemKind.OTHER,
        "peers/a/pipe": ProblemKind.UNKNOWN_TYPE,
        "peers/a/socket": ProblemKind.SOCKET,
    }
    assert made.record("a").verdict is Verdict.INCOMPLETE
    assert made.record("a").refused_count == 4
    assert pool.acknowledge(made) == []
    assert not (directory / "cback.stage").exists()


def test_links_are_kept_as_links_where_that_is_asked_for(tmp_path: Path) -> None:
    """Wherever they point, and never followed."""
    directory = collected(tmp_path / "a", "file")
    (directory / "out").symlink_to("/etc/passwd")
    (directory / "dangling").symlink_to("../nowhere")
    pool = Pool(tmp_path, {"a": local_peer(directory, links="keep")})

    made = pool.stage()

    files = staged(made.directory, "a")
    assert {name: str(path.readlink()) for name, path in files.items() if path.is_symlink()} == {
        "out": "/etc/passwd",
        "dangling": "../nowhere",
    }
    assert made.record("a").verdict is Verdict.STAGED


def test_directories_are_named_where_a_peer_is_staged_flat(tmp_path: Path) -> None:
    """With `recursive: false` only the files of the collect directory itself are taken."""
    directory = collected(tmp_path / "a", "1", "sub/2")
    pool = Pool(tmp_path, {"a": local_peer(directory, recursive=False)})

    made = pool.stage()

    assert set(staged(made.directory, "a")) == {"1"}
    assert made.problems() == {"peers/a/sub": ProblemKind.OTHER}


def test_an_empty_collect_directory_is_a_failure(tmp_path: Path) -> None:
    """Cedar's fault: a directory with nothing but the indicator was staged as one file."""
    pool = Pool(tmp_path, {"a": local_peer(collected(tmp_path / "a"))})

    with pytest.raises(PermanentError, match="a: there is nothing to stage"):
        pool.stage()


def test_an_empty_collect_directory_is_staged_where_that_is_allowed(tmp_path: Path) -> None:
    """There may be nothing to stage on some days."""
    pool = Pool(tmp_path, {"a": local_peer(collected(tmp_path / "a"), allow_empty=True)})

    made = pool.stage()

    assert (made.record("a").verdict, made.record("a").files) == (Verdict.STAGED, 0)


def test_a_run_without_any_peer_is_no_success(tmp_path: Path) -> None:
    """Cedar's fault: the master's indicator was written, and the exit code was 0, although nobody was ready."""
    peers = {name: local_peer(collected(tmp_path / name, "file", indicator=None)) for name in ("a", "b")}
    pool = Pool(tmp_path, peers, done_indicator=str(tmp_path / "done"))
    (tmp_path / "done").write_text("yesterday's")

    with pytest.raises(PermanentError, match=r"no peer could be staged: a: .* has no cback\.collect; b: "):
        pool.stage()

    assert not (tmp_path / "done").exists()


def test_a_required_peer_that_is_not_ready_is_a_loss(tmp_path: Path) -> None:
    """The others are staged, and told; the run as a whole is not done."""
    peers = {
        "a": local_peer(collected(tmp_path / "a", "file")),
        "b": local_peer(collected(tmp_path / "b", "file", indicator=None)),
    }
    pool = Pool(tmp_path, peers, done_indicator=str(tmp_path / "done"))

    made = pool.stage()

    assert made.problems() == {"peers/b": ProblemKind.OTHER}
    assert made.record("b").verdict is Verdict.NOT_READY
    assert not (made.tree("peers") / "b").exists()
    assert pool.acknowledge(made) == []
    assert (tmp_path / "a" / "cback.stage").read_text().startswith("pool/set-1\n")
    assert not (tmp_path / "b" / "cback.stage").exists()
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("ignore", "weekly", "kind"),
    [
        ("all", False, ProblemKind.IGNORED),
        ("all", True, ProblemKind.IGNORED),
        ("daily", False, ProblemKind.IGNORED),
        ("daily", True, ProblemKind.OTHER),
        ("weekly", False, ProblemKind.OTHER),
        ("weekly", True, ProblemKind.IGNORED),
        ("none", True, ProblemKind.OTHER),
    ],
)
def test_failures_are_ignored_on_the_days_that_the_plan_names(
    tmp_path: Path, ignore: str, weekly: bool, kind: ProblemKind
) -> None:
    """A run is weekly on its starting day, or where a full backup was asked for."""
    peers = {
        "a": local_peer(collected(tmp_path / "a", "file")),
        "b": local_peer(tmp_path / "missing", ignore_failures=ignore),
    }
    pool = Pool(tmp_path, peers, starting_day=_not_today(), done_indicator=str(tmp_path / "done"))

    made = pool.stage(full_asked=weekly)
    pool.acknowledge(made)

    assert made.problems() == {"peers/b": kind}
    assert made.report.weekly is weekly
    assert (tmp_path / "done").exists() is (kind is ProblemKind.IGNORED)


@needs_another_user
def test_what_cannot_be_read_is_named() -> None:
    """A file, or a directory with all that is in it; the rest is there."""
    with open_directory() as place, nobody():
        directory = collected(place / "a", "good", "closed", "sub/hidden")
        (directory / "closed").chmod(0)
        (directory / "sub").chmod(0)
        pool = Pool(place, {"a": local_peer(directory)})

        made = pool.stage()

        assert set(staged(made.directory, "a")) == {"good"}
        assert made.problems() == {"peers/a/closed": ProblemKind.UNREADABLE, "peers/a/sub": ProblemKind.UNREADABLE}
        assert made.record("a").verdict is Verdict.INCOMPLETE
        (directory / "sub").chmod(0o700)


def test_set_id_bits_never_get_into_a_set(tmp_path: Path) -> None:
    """A program of a peer must not run with the rights of somebody here."""
    directory = collected(tmp_path / "a", "file", "linked")
    (directory / "file").chmod(0o6755)
    (directory / "linked").chmod(0o4711)
    (directory / "sub").mkdir()
    (directory / "sub").chmod(0o3777)
    pool = Pool(tmp_path, {"a": local_peer(directory, hard_link=True)})

    made = pool.stage()

    modes = {path.name: path.stat().st_mode & 0o7777 for path in (made.tree("peers") / "a").iterdir()}
    assert modes == {"file": 0o755, "linked": 0o711, "sub": 0o777}


@needs_another_user
def test_staged_files_get_the_owner_and_the_modes_that_are_asked_for(tmp_path: Path) -> None:
    """Files and directories, the peer's own directory among them."""
    directory = collected(tmp_path / "a", "sub/file")
    pool = Pool(tmp_path, {"a": local_peer(directory)}, owner="12:34", mode="0440", directory_mode="0550")

    made = pool.stage()

    found = {}
    for path in [made.tree("peers") / "a", *(made.tree("peers") / "a").rglob("*")]:
        about = path.stat()
        found[path.name] = (about.st_uid, about.st_gid, oct(about.st_mode & 0o7777))
    assert found == {"a": (12, 34, "0o550"), "sub": (12, 34, "0o550"), "file": (12, 34, "0o440")}


def test_files_are_linked_where_that_is_asked_for(tmp_path: Path) -> None:
    """The same file, without taking room; it is hashed all the same."""
    directory = collected(tmp_path / "a", "file")
    pool = Pool(tmp_path, {"a": local_peer(directory, hard_link=True)})

    made = pool.stage()

    assert staged(made.directory, "a")["file"].samefile(directory / "file")
    assert made.record("a").verdict is Verdict.STAGED


def test_files_of_another_file_system_are_copied_where_linking_is_asked_for(tmp_path: Path) -> None:
    """A hard link cannot cross that border."""
    shared = Path("/dev/shm")
    if shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system only")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        pool = Pool(tmp_path, {"a": local_peer(collected(Path(other), "file"), hard_link=True)})

        made = pool.stage()

        assert staged(made.directory, "a")["file"].read_text() == "content of file"
        assert staged(made.directory, "a")["file"].stat().st_nlink == 1


def test_large_files_and_files_with_holes_come_whole(tmp_path: Path) -> None:
    """Their parts are hashed in one thread while another one writes; holes stay holes."""
    directory = collected(tmp_path / "a")
    with (directory / "large").open("wb") as file:
        for number in range(20):
            file.write(bytes([number]) * (1 << 20))
        file.write(b"end")
    with (directory / "holes").open("wb") as file:
        file.seek(40 << 20)
        file.write(b"middle")
        file.truncate(80 << 20)
    pool = Pool(tmp_path, {"a": local_peer(directory)})

    made = pool.stage()

    files = staged(made.directory, "a")
    assert files["large"].read_bytes() == (directory / "large").read_bytes()
    assert files["holes"].stat().st_size == 80 << 20
    assert files["holes"].stat().st_blocks * 512 < 4 << 20


def _not_today() -> str:
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    return days[(datetime.now(UTC).astimezone().weekday() + 3) % 7]
