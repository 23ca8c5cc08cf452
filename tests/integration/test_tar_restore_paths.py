"""Single members of the last level of a chain, wherever in it their content is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from handlers.errors import IntegrityError, PermanentError
from handlers.tools.codecs import Codec
from handlers.tools.tar.restore import compare, restore_chain, restore_paths
from tests.workshop.comparer import below, differences, photograph
from tests.workshop.tar_sets import Chain, Quiet, fill, stored_set


@pytest.fixture
def subject(tmp_path: Path) -> Path:
    """An empty directory to back up."""
    place = tmp_path / "subject"
    place.mkdir()
    return place


def test_single_members_come_with_the_directories_above_them(chain: Chain, subject: Path, target: Path) -> None:
    """And with nothing else; a hard link whose other name was not asked for is a file of its own."""
    fill(subject)
    (subject / "d").chmod(0o750)
    chain.back_up()

    done = restore_paths(chain.sets, target, [b"./d/sub/hard", b"notes..txt", b"read only/"], Quiet())

    wanted = photograph(subject)
    found = photograph(target)
    assert set(found) == {b".", b"d", b"d/sub", b"d/sub/hard", b"notes..txt", b"read only", b"read only/f"}
    for path in found.keys() - {b"."}:
        assert differences({path: wanted[path]}, {path: found[path]}, without=frozenset({"shares"})) == []
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

    assert differences(below(photograph(subject), b"deep"), below(photograph(target), b"deep")) == []


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
    chain = Chain(subject, tmp_path / "scratch")
    chain.names = ["./etc/zone", "./opt/conf", "./srv/www"]
    chain.back_up()
    (subject / "srv/www/j").write_text("new")
    chain.back_up()

    restore_chain(chain.sets, target, Quiet())
    single = tmp_path / "single"
    single.mkdir()
    restore_paths(chain.sets, single, [b"srv", b"opt/conf", b"etc"], Quiet())

    wanted = {b"etc/zone", b"opt/conf", b"srv/www", b"srv/www/i", b"srv/www/j", b"etc", b"opt", b"srv", b"."}
    assert set(photograph(target)) == wanted
    assert set(photograph(single)) == wanted
    assert list(compare(chain.sets, target, Quiet())) == []
    (target / "opt/conf").unlink()
    assert [found.path for found in compare(chain.sets, target, Quiet())] == ["opt/conf"]


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
