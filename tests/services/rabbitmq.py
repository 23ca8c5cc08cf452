"""A RabbitMQ node for tests: own data, own cookie, own port mapper, loopback only."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.server import free_port, listens, program, stop_process, wait_until

_SCRIPTS = "/usr/lib/rabbitmq/bin"
"""Debian's wrappers in /usr/sbin change the user and write to /var; the scripts themselves do neither."""

_LEADERS_WRITTEN_SECONDS = 6
"""Ra 2.0 (RabbitMQ 3.10.8) writes down every 5 s who was elected. A quorum queue of a single node that is killed before
has no leader ever after, until somebody calls `ra:trigger_election`; killed later it has one within a second."""


@dataclass
class RabbitMQ:
    """One node; `start` returns when it takes connections, `stop` leaves no process behind."""

    home: Path
    acknowledgement_seconds: float | None = None
    """After how long it gives up waiting for an acknowledgement; by default RabbitMQ's own half hour."""
    port: int = field(default_factory=free_port)
    _epmd_port: int = field(default_factory=free_port)
    _distribution_port: int = field(default_factory=free_port)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where a client connects to."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def processes(self) -> tuple[int, ...]:
        """The process ids of the running server and its port mapper."""
        return tuple(process.pid for process in self._processes)

    def start(self) -> None:
        """Start the node, with what it stored before."""
        server = program(f"{_SCRIPTS}/rabbitmq-server", "rabbitmq-server")
        epmd = program("epmd")
        self.home.mkdir(parents=True, exist_ok=True)
        files = {
            "enabled_plugins": "[].",
            "env.conf": "",
            "rabbitmq.conf": self._configuration(),
            # It looks once in a tick, which is a minute by default.
            "advanced.config": "[{rabbit, [{channel_tick_interval, 250}]}].",
        }
        for name, content in files.items():
            (self.home / name).write_text(content)
        self._launch(epmd, "-port", str(self._epmd_port), "-address", "127.0.0.1")
        wait_until(lambda: listens(self._epmd_port), what="the port mapper listens")
        self._launch(server)
        wait_until(self._answers, what=f"RabbitMQ listens; see {self.home / 'output'}", seconds=60)

    def stop(self) -> None:
        """Stop the node in an orderly way, its port mapper last."""
        while self._processes:
            stop_process(self._processes.pop())

    def kill(self, *, kind: str = "quorum") -> None:
        """Stop the node without a word to anybody; with quorum queues that matter, it takes some seconds."""
        if kind == "quorum":
            until = time.monotonic() + _LEADERS_WRITTEN_SECONDS
            wait_until(lambda: time.monotonic() > until, what="what quorum queues know of their leaders is written")
        while self._processes:
            process = self._processes.pop()
            os.killpg(process.pid, 9)
            process.wait(20)
        wait_until(lambda: not listens(self.port), what="the node is gone")

    def control(self, *arguments: str) -> str:
        """Run rabbitmqctl on the node; what it printed."""
        command = [str(program(f"{_SCRIPTS}/rabbitmqctl", "rabbitmqctl")), "-q", "-n", self._node, *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"rabbitmqctl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def _answers(self) -> bool:
        dead = [process.args for process in self._processes if process.poll() is not None]
        assert not dead, f"{dead} ended: {(self.home / 'output').read_text()}"
        return listens(self.port)

    @property
    def _node(self) -> str:
        return f"holdfast-{self.port}@localhost"

    def _configuration(self) -> str:
        timeout = self.acknowledgement_seconds
        # The watermark is for the whole machine, which is not ours: a busy neighbour must not block publishers.
        return (
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n"
            "vm_memory_high_watermark.absolute = 2GB\n"
            "disk_free_limit.absolute = 1MB\n"
            + ("" if timeout is None else f"consumer_timeout = {int(timeout * 1_000)}\n")
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.home / "data"),
            "RABBITMQ_LOG_BASE": str(self.home / "log"),
            "RABBITMQ_PID_FILE": str(self.home / "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.home / "generated"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
        }

    def _launch(self, *command: Path | str) -> None:
        with (self.home / "output").open("ab") as output:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=self._environment(),
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )
