"""A Redis server for tests: own directory, loopback only, nothing forgotten when it is killed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.server import free_port, listens, program, stop_process, wait_until


@dataclass
class RedisServer:
    """One server; `start` returns when it takes connections, `stop` leaves no process behind."""

    home: Path
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def processes(self) -> tuple[int, ...]:
        """The process id of the running server."""
        return () if self._process is None else (self._process.pid,)

    def start(self) -> None:
        """Start the server, with what it stored before."""
        server = program("redis-server")
        self.home.mkdir(parents=True, exist_ok=True)
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self.port),
            "--dir": str(self.home),
            "--appendonly": "yes",
            # With `everysec` it puts writes off while an fsync is under way, and loses them when it is killed.
            "--appendfsync": "always",
            "--save": "",
        }
        with (self.home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [server, *(word for option in options.items() for word in option)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: listens(self.port), what=f"Redis listens; see {self.home / 'output'}")

    def stop(self) -> None:
        """Stop the server in an orderly way."""
        if self._process is not None:
            stop_process(self._process)
            self._process = None

    def kill(self, *, kind: str = "redis") -> None:
        """Stop the server without a word to anybody; whatever `kind` its queues are of."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait(20)
            self._process = None
