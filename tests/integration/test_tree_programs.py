"""What the listing of a tree is worth without Holdfast: to sha256sum, mtree, bsdtar and cp."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from handlers.tools.trees.guide import guide
from tests.services.server import program
from tests.workshop.comparer import differences, photograph
from tests.workshop.listed_trees import ListedTree
from tests.workshop.odd_attributes import make_devices, make_modes, make_times
from tests.workshop.odd_contents import make_links, make_symlinks
from tests.workshop.odd_names import NAMES, make_names
from tests.workshop.places import Unheld

NAME = "peers"
MANIFEST = {"backup_id": "set-1", "plan": "pool", "host": "here", "finished": "today", "subject": "peers"}


@pytest.fixture
def listed(tmp_path: Path) -> ListedTree:
    """A set's directory with a tree of odd files, and its parts."""
    root = tmp_path / "set" / NAME
    for name, make in (("names", make_names), ("links", make_links), ("modes", make_modes), ("times", make_times)):
        (root / name).mkdir(parents=True)
        try:
            make(root / name)
        except Unheld:
            continue
    (root / "symlinks").mkdir()
    make_symlinks(root / "symlinks")
    os.mkfifo(root / "pipe")
    if os.geteuid() == 0:
        (root / "devices").mkdir()
        make_devices(root / "devices")
    found = ListedTree(root, name=NAME)
    for name, part in found.parts.items():
        (root.parent / name).write_bytes(part.content)
    (root.parent / "SHA256SUMS").write_bytes(run(root.parent, "sha256sum", *found.parts).stdout)
    return found


def run(directory: Path, *argv: str | Path, given: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; it must end with this code."""
    done = subprocess.run(argv, cwd=directory, input=given, capture_output=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == code, done.stderr + done.stdout
    return done


def test_sha256sum_writes_the_same_lines_and_checks_them(listed: ListedTree) -> None:
    """Names with backslashes and the ends of lines included."""
    files = [b"%b/%b" % (NAME.encode(), path) for path, item in listed.items().items() if item.type == "file"]

    written = run(listed.root.parent, "xargs", "-0", "sha256sum", given=b"\0".join(files)).stdout

    assert listed.sums == written
    assert run(listed.root.parent, "sha256sum", "-c", "--quiet", "-", given=listed.sums).stdout == b""
    (listed.root / "names" / "-rf").write_bytes(b"other")
    found = run(listed.root.parent, "sha256sum", "-c", "--quiet", "-", given=listed.sums, code=1)
    assert found.stdout == b"peers/names/-rf: FAILED\n"


def test_mtree_finds_the_tree_as_listed_and_every_change(listed: ListedTree) -> None:
    """NetBSD's program reads every name, type, owner, mode, time, link and SHA-256."""
    mtree = program("mtree", package="mtree-netbsd")
    assert run(listed.root, mtree, "-p", ".", given=listed.mtree).stdout == b""
    name = b"new\nline"
    place = listed.root / "names" / os.fsdecode(name)
    about = place.stat()

    place.write_bytes(b"NEW\nLINE")
    os.utime(place, ns=(0, about.st_mtime_ns))
    (listed.root / "links/kept").chmod(0o600)
    (listed.root / "symlinks/turns").unlink()
    (listed.root / "symlinks/turns").symlink_to("new")
    (listed.root / "pipe").unlink()
    told = run(listed.root, mtree, "-p", ".", given=listed.mtree, code=2).stdout

    for words in (b"sha256 (0x", b"permissions (0644, 0600)", b"link ref (new, old)", b"missing: ./pipe"):
        assert words in told
    assert told.count(b"sha256 (0x") == 1


def test_bsdtar_shows_every_name(listed: ListedTree) -> None:
    """Libarchive reads the listing as an archive without content."""
    bsdtar = program("bsdtar", package="libarchive-tools")

    shown = run(listed.root.parent, bsdtar, "-tf", "-", given=listed.mtree).stdout
    long = run(listed.root.parent, bsdtar, "-tvf", "-", given=listed.mtree).stdout

    assert len(shown.splitlines()) == len(long.splitlines()) == listed.listed.files + 1
    assert b"./names/back\\\\slash\\\\n\n" in shown
    assert b"./symlinks/absolute -> /etc/passwd\n" in long


def blocks(page: str) -> list[str]:
    """The shell blocks of a page."""
    return re.findall(r"```sh\n(.*?)```", page, re.DOTALL)


def test_the_page_checks_and_restores_the_tree(listed: ListedTree, tmp_path: Path) -> None:
    """Its commands run as they stand: all of it, and one file with a name like an option."""
    check, whole, single = blocks(guide(MANIFEST, NAME))
    for target, script in (("whole", check + whole), ("single", check + single)):
        environment = {"PATH": os.environ["PATH"], "TARGET": str(tmp_path / target), "NAME": "names/-rf"}
        done = subprocess.run(
            ["sh", "-eu", "-c", script], cwd=listed.root.parent, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")

    assert differences(photograph(listed.root), photograph(tmp_path / "whole")) == []
    assert (tmp_path / "single/names/-rf").read_bytes() == b"-rf"
    assert b"-rf" in NAMES

    (listed.root / "names/-rf").write_bytes(b"other")
    done = subprocess.run(
        ["sh", "-u", "-c", check + whole],
        cwd=listed.root.parent,
        env={"PATH": os.environ["PATH"], "TARGET": str(tmp_path / "damaged")},
        capture_output=True,
    )
    assert done.returncode != 0
    assert not (tmp_path / "damaged").exists()
