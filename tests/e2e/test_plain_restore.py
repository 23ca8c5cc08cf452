"""A chain comes back by its own RESTORE.md, on a machine that never saw Holdfast."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workshop.workers import Hire

PROGRAMS = ("sh", "sha256sum", "tar", "zstd", "gzip", "bzip2", "xz", "cat", "mkdir", "head", "tail", "sed", "grep")


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with the plain tools, and nothing else."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        found = shutil.which(name)
        assert found is not None, f"{name} is missing"
        (programs / name).symlink_to(found)
    return str(programs)


def commands(guide: Path) -> list[str]:
    """The shell blocks of the page, in order."""
    return re.findall(r"```sh\n(.*?)```", guide.read_text(), re.DOTALL)


def content(root: Path) -> dict[str, bytes | None]:
    """Names and contents below a directory."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("codec", ["zstd", "gzip", "bzip2", "xz", "none"])
def test_chain_comes_back_by_its_own_page(hire: Hire, tmp_path: Path, bare_path: str, codec: str) -> None:
    """Two levels with a deletion, a rename and a new file; then one single file."""
    subject = tmp_path / "subject"
    (subject / "docs").mkdir(parents=True)
    for name in ("kept", "deleted", "docs/old name"):
        (subject / name).write_text(f"content of {name}\n" * 100)
    worker = hire(tmp_path / "n1", subject, tmp_path / "store", options={"codec": codec})
    assert worker.run("backup", "web").returncode == 0
    (subject / "deleted").unlink()
    (subject / "docs" / "old name").rename(subject / "docs" / "new name")
    (subject / "docs" / "fresh").write_text("fresh\n")
    assert worker.run("backup", "web").returncode == 0
    newest = max(worker.sets(), key=lambda made: (made / "manifest.json").stat().st_mtime_ns)
    check, everything, listing, single = commands(newest / "RESTORE.md")

    def shell(script: str, **variables: str) -> str:
        done = subprocess.run(
            [f"{bare_path}/sh", "-ec", script],
            cwd=newest,
            env={"PATH": bare_path, **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    shell(check)
    shell(everything, TARGET=str(tmp_path / "restored"))
    shell(listing)
    shell(single, TARGET=str(tmp_path / "one"), NAME="./kept")

    assert content(tmp_path / "restored") == content(subject)
    assert content(tmp_path / "one") == {"kept": (subject / "kept").read_bytes()}
