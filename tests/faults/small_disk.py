"""A file system of a few MiB, for tests that fill it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(at: Path, *, kibibytes: int) -> Iterator[Path]:
    """A tmpfs mounted there. Skips the test where that is not allowed; with CI=true root must be able to."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    at.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(at)], capture_output=True, text=True
    )
    if mount.returncode != 0:
        reason = f"cannot mount a tmpfs: {mount.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def remount(at: Path, options: str) -> None:
    """Change how it is mounted, for instance `ro`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(at)], check=True)


def fill(folder: Path) -> Path:
    """Take every byte that is left; the ballast to be removed again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return ballast
