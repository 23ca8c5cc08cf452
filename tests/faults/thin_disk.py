"""A disk that takes what is written, and loses it later: more is promised than there is."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.small_disk import small_disk


@contextmanager
def thin_disk(folder: Path, *, mebibytes: int, promised_mebibytes: int) -> Iterator[Path]:
    """An ext4 mounted in the folder, in a sparse file that cannot grow as large as it says.

    Skips the test where that is not allowed; with CI=true root must be able to.
    """
    with small_disk(folder / "real", kibibytes=mebibytes << 10) as real:
        image, at = real / "image", folder / "thin"
        at.mkdir()
        with image.open("wb") as file:
            file.truncate(promised_mebibytes << 20)
        made = _done("mkfs.ext4", "-q", "-O", "^has_journal", str(image))
        mounted = made and _done("mount", "-o", "loop", str(image), str(at))
        if not mounted:
            reason = "cannot mount a file system that is in a file"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        try:
            yield at
        finally:
            subprocess.run(["umount", str(at)], check=True)


def _done(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
