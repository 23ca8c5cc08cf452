"""`holdfast ls`, `cat` and `diff`: a look into what is stored."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workshop import UNPRIVILEGED, Workshop
from tests.workshop.comparer import Photograph, photograph

ODD = b"caf\xe9 'n\n"


@dataclass
class Album:
    """Three levels of a plan, each with what was there; all in one place, for tests that only read."""

    workshop: Workshop
    ids: list[str] = field(default_factory=list)
    subjects: list[Photograph] = field(default_factory=list)

    def back_up(self, *, prefix: Sequence[str] = (), expect: int = 0) -> None:
        """One more."""
        self.subjects.append(photograph(self.workshop.subject))
        done = self.workshop.run("backup", "web", "--json", prefix=list(prefix))
        assert done.returncode == expect, done.stderr
        self.ids.append(json.loads(done.stdout.splitlines()[-1])["backup_id"])

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """A command, with bytes."""
        command, environment = self.workshop.command(*arguments), self.workshop.environment()
        return subprocess.run(
            command, stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE, env=environment
        )


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    """Changes of all kinds between the levels."""
    album = Album(Workshop(tmp_path_factory.mktemp("album")))
    subject = album.workshop.subject
    odd = Path(os.fsdecode(os.fsencode(subject) + b"/" + ODD))
    odd.write_text("odd\n")
    with (subject / "sparse").open("wb") as sparse:
        sparse.seek(3 << 20)
        sparse.write(b"data")
        sparse.truncate(6 << 20)
    os.link(subject / "docs" / "page.txt", subject / "hard")
    (subject / "empty").mkdir()
    album.back_up()
    (subject / "docs").rename(subject / "pages")
    (subject / "index.html").write_text("<h1>changed</h1>\n")
    (subject / "empty").rmdir()
    (subject / "new").mkdir(mode=0o700)
    (subject / "new" / "file").write_text("new\n")
    album.back_up()
    (subject / "hard").unlink()
    (subject / "link").unlink()
    (subject / "link").write_text("a file now")
    (subject / "new").chmod(0o711)
    shutil.copystat(subject / "index.html", subject / "pages")
    same_time = (subject / "index.html").stat().st_mtime_ns
    (subject / "index.html").write_text("<h1>CHANGED</h1>\n")
    os.utime(subject / "index.html", ns=(same_time, same_time))
    album.back_up()
    return album


def test_each_level_lists_what_there_was(album: Album) -> None:
    """Names, types, sizes and all other attributes, by an independent look at the subject at that time."""
    for backup_id, subject in zip(album.ids, album.subjects, strict=True):
        listed = album.run("ls", backup_id, "-R", "-0")
        lines = album.workshop.lines("ls", backup_id, "--recursive")

        assert sorted(listed.stdout.split(b"\0")[:-1]) == sorted(path for path in subject if path != b".")
        assert len(lines) == len(subject) - 1
        plain = {line["path"]: line for line in lines}
        for path in (b"index.html", b"sparse"):
            facts, line = subject[path], plain[path.decode()]
            assert line["mode"] == f"{facts.mode:04o}"
            assert (line["uid"], line["gid"], line["mtime_ns"], line["size"]) == (
                facts.uid,
                facts.gid,
                facts.mtime_ns,
                facts.size,
            )


def test_each_file_of_each_level_is_printed_as_it_was(album: Album) -> None:
    """Odd names, hard links and holes included; `cat` of an older set gives the older content."""
    assert album.run("cat", album.ids[1], "./pages/page.txt").stdout == b"a page\n" * 2000
    contents = [album.run("cat", backup_id, "index.html").stdout for backup_id in album.ids]
    assert contents == [b"<h1>hello</h1>\n", b"<h1>changed</h1>\n", b"<h1>CHANGED</h1>\n"]
    assert album.run("cat", album.ids[0], "hard").stdout == b"a page\n" * 2000
    assert album.run("cat", album.ids[2], os.fsdecode(ODD)).stdout == b"odd\n"
    sparse = album.run("cat", album.ids[2], "/sparse").stdout
    assert hashlib.sha256(sparse).digest() == hashlib.sha256((album.workshop.subject / "sparse").read_bytes()).digest()


def test_a_directory_is_listed_alone(album: Album) -> None:
    """However it is written; a file is listed itself."""
    for typed in ("new", "./new/", "/new"):
        assert album.run("ls", album.ids[1], typed).stdout == b"file\n"
    assert album.run("ls", album.ids[1], "new/file").stdout == b"new/file\n"
    assert album.run("ls", album.ids[0], "empty").stdout == b""


def test_the_long_list_is_like_that_of_ls(album: Album) -> None:
    """Mode, owner, size, time, and what a link says."""
    lines = album.run("ls", album.ids[0], "--long").stdout.decode("utf-8", "surrogateescape")

    assert "-rw-r--r--" in lines
    link = next(line for line in lines.splitlines() if " link -> " in line)
    assert link.split()[:4] == ["lrwxrwxrwx", str(os.getuid()), str(os.getgid()), "0"]
    assert link.endswith(" link -> docs/page.txt")


def test_on_a_terminal_names_are_quoted_so_that_a_shell_takes_them_back(album: Album) -> None:
    """And so that no name says anything to the terminal."""
    leader, follower = pty.openpty()
    done = album.run("ls", album.ids[0], stdout=follower)
    os.close(follower)
    shown = b"".join(_until_end(leader)).replace(b"\r\n", b"\n")

    assert done.returncode == 0
    back = subprocess.run(["bash", "-c", b"printf '%s\\0' " + shown.replace(b"\n", b" ")], capture_output=True)
    assert sorted(back.stdout.split(b"\0")[:-1]) == sorted(p for p in album.subjects[0] if p != b"." and b"/" not in p)


def _until_end(leader: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(leader, 1 << 16):
            yield chunk
    except OSError:
        pass  # how Linux ends a pseudo terminal
    finally:
        os.close(leader)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ls", "nothing"), ("'nothing' is not in set", "`holdfast ls ")),
        (("ls", "docs/../index.html"), ("can be in no set", "relative to the subject")),
        (("cat", "docs"), ("'docs' is a directory", "`holdfast ls ")),
        (("cat", "link"), ("'link' is a symlink", "it points to 'docs/page.txt': `holdfast cat ")),
    ],
)
def test_what_cannot_be_shown_is_one_clear_error(
    album: Album, arguments: tuple[str, str], words: tuple[str, str]
) -> None:
    """With what may help; nothing on standard output."""
    command, path = arguments

    done = album.workshop.run(command, album.ids[0], path)

    assert (done.returncode, done.stdout) == (1, "")
    error, hint = done.stderr.splitlines()
    assert words[0] in error
    assert words[1] in hint


def test_what_changed_is_told(album: Album) -> None:
    """Added, removed, renamed, changed in what; exit code 1. A directory is not changed by what is in it."""
    lines = album.workshop.lines("diff", album.ids[0], album.ids[1], expect=1)

    assert {(line["change"], line["path"], *line.get("what", ())) for line in lines} == {
        ("removed", "docs"),
        ("removed", "empty"),
        ("changed", "index.html", "size", "mtime"),
        ("added", "new"),
        ("added", "new/file"),
        ("added", "pages"),
        ("renamed", "pages/page.txt"),
    }
    renamed = next(line for line in lines if line["change"] == "renamed")
    assert renamed["older"]["path"] == "docs/page.txt"
    changed = next(line for line in lines if line["path"] == "index.html")
    assert (changed["older"]["size"], changed["newer"]["size"]) == (15, 17)


def test_a_change_that_hides_is_found_by_content(album: Album) -> None:
    """Same size, same time: only the bytes tell. In words for a person."""
    by_time = album.workshop.run("diff", album.ids[1], album.ids[2])
    by_content = album.workshop.run("diff", album.ids[1], album.ids[2], "--content")

    told = ["removed  hard", "changed  link  (type symlink -> file)", "changed  new  (mode 0700 -> 0711)"]
    pages = "changed  pages  (mode 0755 -> 0644)"
    assert by_time.stdout.splitlines() == [*told, pages, "3 changed, 1 removed"]
    hidden = "changed  index.html  (content)"
    assert by_content.stdout.splitlines() == [told[0], hidden, *told[1:], pages, "4 changed, 1 removed"]
    assert (by_time.returncode, by_content.returncode) == (1, 1)


def test_sets_with_the_same_in_them_have_no_difference(album: Album, tmp_path: Path) -> None:
    """Also those of another plan and store; an error of the comparison is not a difference."""
    other = Workshop(tmp_path)
    shutil.rmtree(other.subject)
    subprocess.run(["cp", "-a", album.workshop.subject, other.subject], check=True)
    backup_id = other.backup()
    config = album.workshop.top / "both.yaml"
    text = album.workshop.config.read_text()
    text = text.replace("stores:\n", f"stores:\n  other: {{kind: local, path: {other.store}}}\n")
    config.write_text(text.replace("handler: tar\n", "handler: tar\n    store: main\n"))
    both = ["--config", str(config)]

    same = album.run(*both, "diff", album.ids[2], backup_id, "--content")
    unknown = album.run(*both, "diff", album.ids[2], "none")

    assert (same.returncode, same.stdout) == (0, b"no difference\n"), same.stderr
    assert unknown.returncode == 2


def test_what_could_not_be_read_is_named(tmp_path: Path) -> None:
    """In its own words in each command."""
    workshop = Workshop(tmp_path)
    (workshop.subject / "secret").write_text("secret")
    (workshop.subject / "secret").chmod(0)
    album = Album(workshop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.e2e.test_cli_browse.photograph", lambda top: {})
        album.back_up(prefix=UNPRIVILEGED, expect=3)

    short, long = workshop.run("ls", "web"), workshop.run("ls", "web", "-l")
    content = workshop.run("cat", "web", "secret")

    assert short.stdout.split() == ["docs", "index.html", "link"]
    assert short.stderr == "not in the set: 'secret' (unreadable)\n"
    assert "secret  [not in the set: unreadable]" in long.stdout
    assert {"path": "secret", "type": "unknown", "size": 0, "missing": "unreadable"} in workshop.lines("ls", "web")
    assert content.returncode == 1
    assert "was there when set" in content.stderr


def test_what_is_as_an_older_set_has_it_is_told(tmp_path: Path) -> None:
    """With the reason, beside what is asked for; it is no error."""
    workshop = Workshop(tmp_path)
    album = Album(workshop)
    album.back_up()
    (workshop.subject / "index.html").write_text("<h1>newer</h1>\n")
    (workshop.subject / "index.html").chmod(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.e2e.test_cli_browse.photograph", lambda top: {})
        album.back_up(prefix=UNPRIVILEGED, expect=3)
    words = f"is as set {album.ids[0]} has it (unreadable since)"

    long = workshop.run("ls", "web", "-l")
    content = workshop.run("cat", "web", "index.html")
    restored = workshop.run("restore", "web", str(tmp_path / "back"), "--path", "index.html")

    assert f"index.html  [as set {album.ids[0]} has it: unreadable since]" in long.stdout
    (listed,) = (line for line in workshop.lines("ls", "web") if line["path"] == "index.html")
    assert (listed["held_by"], listed["outdated"]) == (album.ids[0], "unreadable")
    assert (content.returncode, restored.returncode) == (0, 0)
    assert content.stdout == (tmp_path / "back" / "index.html").read_text() != "<h1>newer</h1>\n"
    assert f"'index.html' {words}\n" in content.stderr
    assert f"'index.html' {words}\n" in restored.stderr


@pytest.mark.parametrize("arguments", [("ls", "-R"), ("cat", "sparse")])
def test_a_reader_that_goes_away_is_no_error(album: Album, arguments: tuple[str, str]) -> None:
    """`holdfast cat ... | head -c 1`."""
    reader, writer = os.pipe()
    os.close(reader)

    done = album.run(arguments[0], album.ids[2], arguments[1], stdout=writer)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_damage_is_told_and_nothing_damaged_is_printed(album: Album, tmp_path: Path) -> None:
    """Exit code 6."""
    workshop = Workshop(tmp_path)
    (workshop.subject / "long").write_bytes(os.urandom(1 << 20))
    backup_id = workshop.backup()
    (data,) = (workshop.store / "web" / backup_id).glob("data.tar*")
    data.chmod(0o600)
    with data.open("r+b") as stream:
        stream.seek(500_000)
        stream.write(b"damaged")

    done = workshop.run("cat", "web", "long")

    assert (done.returncode, done.stdout) == (6, "")
    assert "error: " in done.stderr
