"""An OpenSSH server for tests: own host key, own directory, loopback only, one port."""

from __future__ import annotations

import getpass
import os
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from handlers.tools.remote.ssh import Ssh
from tests.services.server import free_port, listens, program, stop_process, wait_until


def new_key(path: Path) -> Path:
    """A key pair without a passphrase; its private half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return path


@dataclass
class Sshd:
    """One server, for the present user; `start` returns when it takes connections, `stop` leaves no process behind."""

    home: Path
    settings: tuple[str, ...] = ()
    """Further lines of its configuration."""
    subsystem: str | None = "sftp internal-sftp"
    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    """What runs the server, for instance in another network namespace."""
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> Path:
        """The private key that it lets in."""
        return self.home / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The file that knows its host key."""
        return self.home / "known_hosts"

    @property
    def pid(self) -> int:
        """Of the process that listens."""
        assert self._process is not None
        return self._process.pid

    def ssh(self, **changes: Any) -> Ssh:
        """How it is reached."""
        usual: Mapping[str, Any] = {
            "host": self.host,
            "port": self.port,
            "user": getpass.getuser(),
            "identity_file": self.key,
            "known_hosts": self.known_hosts,
            "connect_timeout": timedelta(seconds=10),
        }
        return Ssh(**{**usual, **changes})

    def forced(self, command: str) -> Path:
        """A further key: whoever comes with it runs this command, whatever he asks for in SSH_ORIGINAL_COMMAND."""
        key = new_key(self.home / uuid.uuid4().hex)
        quoted = command.replace('"', '\\"')
        with (self.home / "authorized_keys").open("a") as keys:
            keys.write(f'command="{quoted}" {key.with_suffix(".pub").read_text()}')
        return key

    def limited(self, programs: Path) -> Path:
        """A further key, for commands that find only what is in this directory."""
        return self.forced(f'PATH={programs}; export PATH; eval "$SSH_ORIGINAL_COMMAND"')

    def start(self) -> None:
        """Start the server; keys are made the first time."""
        sshd = program("sshd", "/usr/sbin/sshd")
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.key.exists():
            host_key = new_key(self.home / "host_key")
            (self.home / "authorized_keys").write_bytes(new_key(self.key).with_suffix(".pub").read_bytes())
            kind, public = host_key.with_suffix(".pub").read_text().split()[:2]
            self.known_hosts.write_text(f"[{self.host}]:{self.port} {kind} {public}\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks itself in before a login
        (self.home / "sshd_config").write_text("\n".join((*self._settings(), *self.settings, "")))
        with (self.home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*self.prefix, sshd, "-D", "-e", "-f", self.home / "sshd_config"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(
            lambda: self._has_ended() or (listens(self.port) if self.host == "127.0.0.1" else self._says_it_listens()),
            what=f"sshd listens; see {self.home / 'output'}",
        )
        assert not self._has_ended(), (self.home / "output").read_text()

    def stop(self) -> None:
        """Stop the server and all sessions; safe to repeat."""
        if self._process is not None:
            self.cut()
            stop_process(self._process)
            self._process = None

    def sessions(self) -> list[int]:
        """The processes that serve connections, and what they started."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def cut(self) -> None:
        """End all sessions without a word to anybody."""
        for pid in self.sessions():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _says_it_listens(self) -> bool:
        return "Server listening" in (self.home / "output").read_text(errors="replace")

    def _settings(self) -> tuple[str, ...]:
        return (
            f"ListenAddress {self.host if ':' not in self.host else f'[{self.host}]'}",
            f"Port {self.port}",
            f'HostKey "{self.home}/host_key"',
            f'AuthorizedKeysFile "{self.home}/authorized_keys"',
            "PidFile none",
            "UsePAM no",
            "StrictModes no",  # the tests' directories are open to others
            "PasswordAuthentication no",
            "PermitRootLogin yes",
            "MaxStartups 100",
            "LogLevel VERBOSE",
            "PrintMotd no",
            "" if self.subsystem is None else f"Subsystem {self.subsystem}",
        )
