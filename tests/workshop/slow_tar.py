"""A GNU tar that waits at a gate before it archives anything."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.workshop.workers import wait_for

_SCRIPT = """#!/bin/sh
# Whoever waits here for a worker that has died meanwhile archives nothing.
case " $* " in
*" --create "*)
    echo "$PPID" >> "{place}/begun"
    while [ ! -e "{place}/open" ]; do
        kill -0 "$PPID" 2>/dev/null || exit 1
        sleep 0.05
    done
    ;;
esac
exec {tar} "$@"
"""


class SlowTar:
    """First on the PATH of every worker that is started after it; behind the gate is the real tar."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = shutil.which("tar")
        assert real is not None
        self._place = place
        place.mkdir()
        script = place / "tar"
        script.write_text(_SCRIPT.format(place=place, tar=real))
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    def begun(self) -> list[int]:
        """The process ids of the workers that began to archive, in that order."""
        try:
            return [int(line) for line in (self._place / "begun").read_text().split()]
        except FileNotFoundError:
            return []

    def wait_begun(self, count: int = 1) -> int:
        """Wait until it was begun so often; the process id of the worker that did so last."""
        wait_for(lambda: len(self.begun()) >= count, what=f"{count} times begun")
        return self.begun()[-1]

    def open(self) -> None:
        """Let everybody through, from now on."""
        (self._place / "open").touch()
