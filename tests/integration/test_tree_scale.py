"""A tree with very many names in one directory is listed and checked in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workshop.places import erase, fast_place

FILES = 100_000
MOST_BYTES = 60 << 20

LIST_AND_CHECK = """
import sys
from pathlib import Path
from tests.workshop.listed_trees import ListedTree

listed = ListedTree(Path(sys.argv[1]))
sizes = listed.check()
# Not getrusage: that begins with the peak of the process that started this one.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(*sizes, int(peak) << 10)
"""


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Path]:
    """Some files with very many names each: sizes of files do not matter here, only names do."""
    place = fast_place() or tmp_path
    root = place / "tree"
    root.mkdir()
    top = os.open(root, os.O_RDONLY)
    for number in range(FILES):
        if number % 1000 == 0:
            (root / f"file {number}").write_text("x" * 100)
        else:
            os.link(f"file {number - number % 1000}", f"file {number}", src_dir_fd=top, dst_dir_fd=top)
    os.close(top)
    yield root
    erase(place)


@pytest.mark.slow
def test_memory_stays_small_whatever_the_number_of_names(crowded: Path) -> None:
    """The interpreter and what it imports take half of it."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_AND_CHECK, crowded], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )

    assert done.returncode == 0, done.stderr
    files, size_bytes, memory = map(int, done.stdout.split())
    assert (files, size_bytes) == (FILES, 100 * 100)
    assert memory < MOST_BYTES
