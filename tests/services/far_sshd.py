"""An ssh server behind a cable that can be cut: in a network namespace of its own, for root on Linux."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.services.sshd import Sshd

_HERE, _THERE = "198.18.{}.1", "198.18.{}.2"
"""Of the network that is set aside for tests of network devices. Source: RFC 2544."""


@dataclass(frozen=True, slots=True)
class Cable:
    """What the server is connected with."""

    name: str

    def cut(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        assert _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        """It is as it was."""
        assert _ip("link", "set", self.name, "up")


@contextmanager
def far_sshd(home: Path) -> Iterator[tuple[Sshd, Cable]]:
    """The server and its cable; skips the test where there can be none."""
    name = f"hf{uuid.uuid4().hex[:8]}"
    number = int(name[2:4], 16)
    with ExitStack() as undo:
        if os.geteuid() != 0 or not _ip("netns", "add", name):
            pytest.skip("no network namespace of our own")
        undo.callback(_ip, "netns", "del", name)
        if not _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name):
            pytest.skip("no cable of our own")
        undo.callback(_ip, "link", "del", name)
        assert _ip("addr", "add", f"{_HERE.format(number)}/30", "dev", name)
        assert _ip("link", "set", name, "up")
        assert _ip("-n", name, "addr", "add", f"{_THERE.format(number)}/30", "dev", "eth0")
        assert _ip("-n", name, "link", "set", "eth0", "up")
        server = Sshd(home, host=_THERE.format(number), prefix=("ip", "netns", "exec", name))
        undo.callback(server.stop)
        server.start()

        yield server, Cable(name)


def _ip(*words: str) -> bool:
    try:
        return subprocess.run(["ip", *words], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
