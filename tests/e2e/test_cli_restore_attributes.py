"""`holdfast restore` onto a file system that cannot hold all that was stored."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.workshop.workers import Hire


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Path]:
    """A file system without extended attributes."""
    place = tmp_path / "bare"
    place.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", place], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_lost_attributes_are_a_warning_and_an_exit_code(hire: Hire, tmp_path: Path, bare: Path) -> None:
    """The files are there; nobody is told that all is well."""
    subject = tmp_path / "subject"
    subject.mkdir()
    (subject / "f").write_text("content")
    os.setxattr(subject / "f", "user.key", b"value")
    worker = hire(tmp_path / "n1", subject, tmp_path / "store")
    assert worker.run("backup", "web").returncode == 0

    for_scripts = worker.run("restore", "web", str(bare / "one"), "--json")
    for_people = worker.run("restore", "web", str(bare / "two"))
    elsewhere = worker.run("restore", "web", str(tmp_path / "three"), "--json")

    assert (for_scripts.returncode, for_people.returncode, elsewhere.returncode) == (3, 3, 0)
    assert (bare / "one/f").read_text() == "content"
    answer = orjson.loads(for_scripts.stdout)
    assert answer["exit_code"] == 3
    assert "'user.key'" in answer["warnings"][0]
    assert b"warning: 1 extended attributes could not be set" in for_people.stderr
    assert orjson.loads(elsewhere.stdout)["warnings"] == []
