"""Keeps one connection to a peer open, for all commands that run there meanwhile.

Without it each command makes a connection of its own: some round trips, two signatures and a login each time.
"""

from __future__ import annotations

import os
import select
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from handlers.tools.process import Program
from handlers.tools.remote.shell import connection_trouble
from handlers.tools.remote.ssh import Ssh

_LOOK_SECONDS = 0.02
_PATIENCE = 3
"""How many times as long as for the connection alone we wait until we are logged in: ssh itself would wait for ever."""


@contextmanager
def shared(ssh: Ssh, *, checkpoint: Callable[[], None] | None = None) -> Iterator[Ssh]:
    """The same peer, by a connection that stays open inside the block; to be left by the thread that entered it.

    Should the connection break off, the next commands make one of their own each. Raises as `run_remote` does.
    """
    ssh.check()
    account = ssh.account
    # In the system's own directory for such things: the name of a socket may have about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="holdfast-") as place:
        if account is not None:
            os.chown(place, account.uid, account.gid)
        by_it = replace(ssh, control_path=Path(place).resolve() / "s")
        assert by_it.control_path is not None
        patience = _PATIENCE * ssh.connect_timeout
        argv = [b"ControlMaster=yes" if word == b"ControlMaster=no" else word for word in by_it.remote_shell()]
        with Program(
            [*argv[:-1], "-N", *argv[-1:], ssh.host], checkpoint=checkpoint, account=account, deadline=patience
        ) as master:
            _await(by_it, by_it.control_path, master)
            yield by_it


def _await(ssh: Ssh, socket: Path, master: Program) -> None:
    """Return as soon as others can use the connection."""
    gone = os.pidfd_open(master.pid)
    try:
        while not socket.exists():
            if _has_ended(gone):
                raise connection_trouble(ssh, master.wait().stderr)
            master.checkpoint()
            time.sleep(_LOOK_SECONDS)
    finally:
        os.close(gone)


def _has_ended(descriptor: int) -> bool:
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    return bool(ready.poll(0))
