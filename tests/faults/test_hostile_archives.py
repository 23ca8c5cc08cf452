"""Archives that somebody has made to get out of the directory they are restored into."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from handlers.errors import HoldfastError, IntegrityError, PermanentError
from handlers.tools.confine import abi_version, confined
from handlers.tools.tar.compare import compare
from handlers.tools.tar.extract import extract
from handlers.tools.tar.restore import restore_chain, restore_paths
from tests.workshop.tar_sets import Chain, Quiet, StoredSet, archive_of, directory, member, stored_set, tree_of

LANDLOCK = pytest.mark.skipif(not abi_version(), reason="the kernel has no Landlock")


@dataclass(frozen=True)
class Place:
    """A target, and what is beside it and must stay as it is."""

    root: Path

    @property
    def target(self) -> Path:
        """Where archives are restored."""
        return self.root / "target"

    @property
    def outside(self) -> Path:
        """Beside the target."""
        return self.root / "outside"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A target with a neighbour worth protecting."""
    found = Place(tmp_path)
    found.target.mkdir()
    (found.outside / "d").mkdir(parents=True)
    (found.outside / "precious").write_text("precious")
    (found.outside / "d/deep").write_text("deep")
    return found


Archives = Callable[[bytes], Sequence[bytes]]
"""The levels of a chain, given the outside as an absolute name."""

TOP = directory(b"./", b"Dd\0Yf\0Yl\0\0")
FILE = member(b"./f", content=b"harmless")


def two_levels(first: bytes, second: bytes) -> Sequence[bytes]:
    """A link of the first level, and what goes through it in the second."""
    return [archive_of(first), archive_of(second)]


def link_to(outside: bytes) -> bytes:
    """A level 0 with a symbolic link to the outside, which is legitimate in itself."""
    return directory(b"./", b"Yf\0Yl\0\0") + FILE + member(b"./l", b"2", link=outside)


CHAINS: dict[str, Archives] = {
    "dots": lambda out: [archive_of(TOP, member(b"../outside/new", content=b"x"))],
    "dots over a file": lambda out: [archive_of(TOP, member(b"./d/../../outside/precious", content=b"x"))],
    "an absolute name": lambda out: [archive_of(TOP, member(out + b"/new", content=b"x"))],
    "a path record": lambda out: [archive_of(TOP, member(b"./f", content=b"x", pax=[(b"path", out + b"/new")]))],
    "a global path record": lambda out: [
        archive_of(TOP, member(b"g", b"g", b"25 path=../outside/newer\n"), member(b"./f", content=b"x"))
    ],
    "a sparse name": lambda out: [
        archive_of(
            TOP,
            member(
                b"./f",
                content=b"1\n0\n1\n".ljust(512, b"\0") + b"x",
                pax=[
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.name", b"../outside/new"),
                    (b"GNU.sparse.realsize", b"1"),
                ],
                size=513,
            ),
        )
    ],
    "a GNU long name": lambda out: [
        archive_of(TOP, member(b"././@LongLink", b"L", b"../outside/new\0"), member(b"./f", content=b"x"))
    ],
    "a file through a link": lambda out: [
        archive_of(TOP, member(b"./l", b"2", link=out), member(b"./l/new", content=b"x"))
    ],
    "a file through a relative link": lambda out: [
        archive_of(TOP, member(b"./l", b"2", link=b"../outside"), member(b"./l/precious", content=b"x"))
    ],
    "a directory through a link": lambda out: [
        archive_of(TOP, member(b"./l", b"2", link=out), directory(b"./l/d/", b"\0"))
    ],
    "a link through a link": lambda out: [
        archive_of(TOP, member(b"./l", b"2", link=out), member(b"./l/new", b"2", link=b"x"))
    ],
    "a link instead of a directory": lambda out: [
        archive_of(TOP, directory(b"./d/"), member(b"./d", b"2", link=out), member(b"./d/new", content=b"x"))
    ],
    "a hard link to the outside": lambda out: [
        archive_of(TOP, member(b"./h", b"1", link=out + b"/precious"), member(b"./h", content=b"x"))
    ],
    "a hard link through a link": lambda out: [
        archive_of(TOP, member(b"./l", b"2", link=out), member(b"./h", b"1", link=b"./l/precious"))
    ],
    "a hard link to a link, and through it": lambda out: [
        archive_of(
            TOP, member(b"./l", b"2", link=out), member(b"./h", b"1", link=b"./l"), member(b"./h/new", content=b"x")
        )
    ],
    "a later level through a link": lambda out: two_levels(
        link_to(out), directory(b"./", b"Nf\0Nl\0\0") + member(b"./l/new", content=b"x")
    ),
    "a later level with a directory in place of a link": lambda out: two_levels(
        link_to(out), directory(b"./", b"Nf\0Nl\0\0") + directory(b"./l/", b"\0")
    ),
    "a later level that deletes through a link": lambda out: two_levels(
        link_to(out), directory(b"./", b"Nf\0Nl\0\0") + directory(b"./l/d/", b"\0")
    ),
    "a later level without a top directory": lambda out: two_levels(
        link_to(out), directory(b"./l/d/", b"\0") + member(b"./l/d/deep", content=b"x")
    ),
    "a rename from above": lambda out: two_levels(
        link_to(out), directory(b"./", b"Da\0Nf\0R../outside/d\0Ta\0\0") + directory(b"./a/", b"\0")
    ),
    "a rename to above": lambda out: two_levels(
        directory(b"./", b"Dd\0\0") + directory(b"./d/"), directory(b"./", b"R./d\0T../outside/new\0\0")
    ),
    "a rename from an absolute name": lambda out: two_levels(
        link_to(out), directory(b"./", b"Da\0R" + out + b"/d\0Ta\0\0") + directory(b"./a/")
    ),
    "a rename to an absolute name": lambda out: two_levels(
        directory(b"./", b"Dd\0\0") + directory(b"./d/"), directory(b"./", b"R./d\0T" + out + b"/new\0\0")
    ),
    "a rename from within a link": lambda out: two_levels(
        link_to(out), directory(b"./", b"Da\0Nl\0R./l/d\0T./a\0\0") + directory(b"./a/")
    ),
    "a rename into a link": lambda out: two_levels(
        directory(b"./", b"Dd\0Yl\0\0") + directory(b"./d/") + member(b"./l", b"2", link=out),
        directory(b"./", b"Nl\0R./d\0T./l/new\0\0"),
    ),
    "a rename of a link": lambda out: two_levels(
        link_to(out), directory(b"./", b"Da\0R./l\0T./a\0\0") + directory(b"./a/", b"\0")
    ),
    "a temporary name elsewhere": lambda out: two_levels(
        link_to(out), directory(b"./", b"Nl\0X" + out + b"\0R./f\0T\0R\0T./a\0\0")
    ),
    "a rename in a later directory": lambda out: two_levels(
        link_to(out), directory(b"./", b"Da\0\0") + directory(b"./a/", b"R./l/d\0T./a/d\0\0")
    ),
    "a list of names that leads out": lambda out: two_levels(
        link_to(out), directory(b"./", b"N../outside\0Dl/d\0\0") + directory(b"./l/d/")
    ),
    "holes that hide a member": lambda out: [
        archive_of(
            TOP,
            member(
                b"./f",
                content=b"1\n0\n512\n".ljust(512, b"\0"),
                pax=[
                    (b"GNU.sparse.major", b"1"),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.name", b"./f"),
                    (b"GNU.sparse.realsize", b"512"),
                ],
            ),
            member(b"./g", content=member(b"../outside/new", content=b"x")),
        )
    ],
}

SNAPSHOT = b"GNU tar-1.34-2\n1\x001\x00" + b"0\x001\x001\x001\x001\x00./d\x00\x00\x00"


def chain_of(archives: Sequence[bytes]) -> list[StoredSet]:
    """Sets of these archives, with listings that show every path that is asked for."""
    return [stored_set(level, archive, b"", SNAPSHOT) for level, archive in enumerate(archives)]


def outside_of(place: Place) -> Any:
    """All that is not below the target, to be compared; the target itself counts."""
    return tree_of(place.outside), sorted(found.name for found in place.root.iterdir())


HARMLESS = {"a rename into a link"}
"""The link gives way to a real directory."""


@pytest.mark.parametrize("name", CHAINS)
def test_no_chain_leads_outside(place: Place, name: str) -> None:
    """Refused with a reason unless it is harmless, and the outside is as it was."""
    chain = chain_of(CHAINS[name](os.fsencode(place.outside)))
    before = outside_of(place)

    with nullcontext() if name in HARMLESS else pytest.raises((IntegrityError, PermanentError)):
        restore_chain(chain, place.target, Quiet())

    assert outside_of(place) == before
    assert not (place.target / "l").is_symlink() or name not in HARMLESS


@LANDLOCK
@pytest.mark.parametrize("name", CHAINS)
def test_the_second_wall_holds_without_the_first(place: Place, name: str) -> None:
    """GNU tar itself, given the archives as they are, cannot make, write or delete anything elsewhere."""
    before = names_and_content(place)

    for archive in CHAINS[name](os.fsencode(place.outside)):
        with suppress(HoldfastError):
            extract([archive], place.target, Quiet(), incremental=True)

    assert names_and_content(place) == before


def names_and_content(place: Place) -> Any:
    """Of the outside what Landlock protects: modes and times it does not."""
    tree, siblings = outside_of(place)
    return {path: (facts.type, facts.content, facts.target, facts.shares) for path, facts in tree.items()}, siblings


LISTED = b'block %d: %s  0/0  1 2026-11-21 03:29:00 "./%s"\n'


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ([directory(b"./d/"), member(b"./d/../../outside/new", content=b"x")], b"d"),
        ([directory(b"./d/"), member(b"./d/f", content=b"x", pax=[(b"path", b"../outside/new")])], b"d"),
        ([directory(b"./d/"), member(b"./d/f", b"1", link=b"../outside/precious")], b"d"),
        ([member(b"./d", b"2", link=b"../outside"), member(b"./d/f", content=b"x")], b"d"),
        ([member(b"./d", b"2", link=b"../outside"), member(b"./d/precious", content=b"x")], b"d/precious"),
    ],
)
@pytest.mark.parametrize("honest", [True, False])
def test_no_single_path_leads_outside(place: Place, members: list[bytes], path: bytes, honest: bool) -> None:
    """Whether the listing tells the name in the archive, or a harmless one."""
    first = members[0]
    names = [b"d", b"d/precious" if honest and path == b"d/precious" else b"d/f"]
    modes = [b"lrwxrwxrwx" if b"outside" in first else b"drwxr-xr-x", b"-rw-r--r--"]
    blocks = [0, len(first) // 512]
    index = b"".join(LISTED % line for line in zip(blocks, modes, names, strict=True))
    before = outside_of(place)

    with suppress(IntegrityError, PermanentError):
        restore_paths([stored_set(0, archive_of(*members), index)], place.target, [path], Quiet())

    assert outside_of(place) == before


def test_what_only_looks_dangerous_is_restored_exactly(place: Place) -> None:
    """Links to anywhere, dangling links, and names with dots are a part of honest trees."""
    subject = place.root / "subject"
    (subject / "d").mkdir(parents=True)
    (subject / "zone").symlink_to("/etc/localtime")
    (subject / "out").symlink_to(place.outside)
    (subject / "a").symlink_to("..")
    (subject / "d/up").symlink_to("../../..")
    (subject / "gone").symlink_to("/no/such/file")
    (subject / "loop").symlink_to("loop")
    os.link(subject / "out", subject / "d/out too", follow_symlinks=False)
    for name in ("notes..txt", "...", "..hidden", "d/..x"):
        (subject / name).write_text(name)
    chain = Chain(subject, place.root / "scratch")
    chain.back_up()
    (subject / "d/out too").unlink()
    (subject / "out").unlink()
    (subject / "out").mkdir()
    (subject / "out/f").write_text("a real directory now")
    chain.back_up()
    before = tree_of(place.outside)

    restore_chain(chain.sets, place.target, Quiet())

    assert tree_of(place.target) == tree_of(subject)
    assert list(compare(chain.sets, place.target, Quiet())) == []
    assert tree_of(place.outside) == before


@LANDLOCK
def test_a_confined_program_changes_files_in_its_directory_alone(place: Place) -> None:
    """Create, write, rename, link and delete: all of it inside, none of it outside."""
    script = """
        echo x > inside/new && mv inside/new inside/newer && ln inside/newer inside/newest && mkdir inside/d
        rm inside/newer && echo y > /dev/null && echo fine
        echo x > outside/new; echo x >> outside/precious; rm outside/precious; mv inside/newest outside/n
        mv outside/d inside/; mkdir outside/e; ln -s x outside/s; rmdir outside/d; mkfifo outside/p
        ln outside/precious inside/shared; truncate -s 0 outside/precious
    """
    (place.target / "x").mkdir()
    before = outside_of(place)
    script = script.replace("inside", os.fspath(place.target)).replace("outside", os.fspath(place.outside))

    done = subprocess.run(confined(["sh", "-c", script], place.target), capture_output=True, text=True)

    assert done.stdout == "fine\n"
    assert sorted(found.name for found in place.target.iterdir()) == ["d", "newest", "x"]
    assert outside_of(place) == before


@LANDLOCK
def test_a_program_that_cannot_be_confined_does_not_run(place: Place) -> None:
    """Its exit code and message say why."""
    done = subprocess.run(confined(["true"], place.root / "missing"), capture_output=True, text=True)

    assert done.returncode == 127
    assert "cannot run true confined to" in done.stderr


def test_a_confined_program_is_the_program_itself(place: Place) -> None:
    """Its exit code comes through, its arguments are not interpreted."""
    done = subprocess.run(
        confined([sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "-x", "a b"], place.target),
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (7, "['-x', 'a b']\n")
