"""AutoArchive itself, in an environment of its own, as a rival for the benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Run, measured

VERSION = "2.1.1"
PYTHONS = ("python3.12", "python3.13")
"""It does not run on older ones."""
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "holdfast-bench" / f"autoarchive-{VERSION}"
ITS_TAR = "tar --create --file=out.tar.gz --gzip --listed-incremental=aa.snar --directory=tree ."
"""What it runs for a level 0, for machines where it cannot be had."""


def program() -> Path | None:
    """The command `aa`, installed on first use; None where there is no Python or no PyPI for it."""
    found = HOME / "bin" / "aa"
    if found.exists():
        return found
    for python in pythons():
        made = subprocess.run([python, "-m", "venv", "--clear", str(HOME)], check=False, capture_output=True)
        pip = [str(HOME / "bin/pip"), "install", "--quiet", f"autoarchive=={VERSION}"]
        if made.returncode == 0 and subprocess.run(pip, check=False, capture_output=True).returncode == 0:
            return found
    shutil.rmtree(HOME, ignore_errors=True)
    return None


def pythons() -> Iterator[str]:
    """Those on PATH, and those that pyenv keeps."""
    yield from filter(None, map(shutil.which, PYTHONS))
    for name in PYTHONS:
        yield from map(str, Path.home().glob(f".pyenv/versions/{name.removeprefix('python')}.*/bin/{name}"))


def level0(place: Path) -> tuple[str, Callable[[], Run]]:
    """Its name, with a function that makes a level 0 of `tree` with gzip and brings it to the disk."""
    aa = program()
    if aa is None:
        print("AutoArchive cannot be installed here (it wants Python 3.12 and PyPI): its tar command instead")
        script = f"rm -f aa.snar && {ITS_TAR} && sync out.tar.gz"
        return "the tar command of AutoArchive", lambda: measured(["sh", "-ec", script], cwd=place)
    home = place / "aa"
    out = home / "out"
    spec = home / "tree.aa"
    script = f'rm -rf .config .local out && mkdir out && HOME=$PWD "{aa}" -i -a targz -d out tree.aa && sync out/*'

    def run() -> Run:
        out.mkdir(parents=True, exist_ok=True)
        spec.write_text(f"[Content]\npath={place / 'tree'}\ninclude-files=*\nexclude-files=\n")
        made = measured(["sh", "-ec", script], cwd=home)
        if not any(out.glob("*.tar.gz")):
            raise SystemExit(f"AutoArchive made nothing in {out}")
        return made

    return f"AutoArchive {VERSION}", run
