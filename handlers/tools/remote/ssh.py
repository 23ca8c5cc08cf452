"""How a peer is reached by OpenSSH: who, where, which keys; everything that ssh could decide for itself is pinned."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from handlers.errors import PermanentError
from handlers.tools.account import Account, account
from handlers.tools.remote.names import bracketed, checked_host, checked_user

MAY_BE_SET = (
    "AddressFamily",
    "BindAddress",
    "BindInterface",
    "CASignatureAlgorithms",
    "CertificateFile",
    "Ciphers",
    "Compression",
    "ConnectionAttempts",
    "HostKeyAlgorithms",
    "HostKeyAlias",
    "IPQoS",
    "KexAlgorithms",
    "MACs",
    "PubkeyAcceptedAlgorithms",
    "PubkeyAcceptedKeyTypes",
    "RekeyLimit",
    "RequiredRSASize",
    "TCPKeepAlive",
)
"""The options that cannot undo what is pinned. All others are refused, whatever they do."""

_PINNED = (
    ("BatchMode", "yes"),
    ("CheckHostIP", "no"),
    ("ClearAllForwardings", "yes"),
    ("ControlMaster", "no"),
    ("ForwardAgent", "no"),
    ("ForwardX11", "no"),
    ("GlobalKnownHostsFile", "/dev/null"),
    ("HostbasedAuthentication", "no"),
    ("IdentitiesOnly", "yes"),
    ("IdentityAgent", "none"),
    ("KbdInteractiveAuthentication", "no"),
    ("LogLevel", "INFO"),
    ("NoHostAuthenticationForLocalhost", "no"),
    ("PasswordAuthentication", "no"),
    ("PermitLocalCommand", "no"),
    ("PreferredAuthentications", "publickey"),
    ("RemoteCommand", "none"),
    ("RequestTTY", "no"),
    ("Tunnel", "no"),
    ("UpdateHostKeys", "no"),
    ("VerifyHostKeyDNS", "no"),
)

_ALIVE_COUNT = 3
_SSH_PORT = 22
# In an option's value ssh splits at blanks and expands %, ~ and ${}; a path of these alone means itself.
_PLAIN_PATH = re.compile(r"/[^\x00-\x1f\x7f\"'\\%$~]*")
_OPTION_VALUE = re.compile(r"[^\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    """One peer. Raises PermanentError when made with a host, user, port or option that cannot be meant."""

    host: str
    """A name as RFC 1123 has it, an IPv4 or an IPv6 address without brackets."""
    known_hosts: Path
    user: str | None = None
    """None for the name of the user who runs ssh."""
    port: int = _SSH_PORT
    identity_file: Path | None = None
    config_file: Path | None = None
    """An ssh_config to read; what is pinned here stands above it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Further options of ssh_config, of those in MAY_BE_SET."""
    connect_timeout: timedelta = timedelta(seconds=20)
    """For the connection and all until the host's key is checked."""
    silence: timedelta = timedelta(seconds=60)
    """After how long without any sign of life a connection counts as cut."""
    accept_new: bool = False
    """Whether the key of a host that is not known yet is taken and written down."""
    local_user: str | None = None
    """Who runs ssh and what uses it; to be set only where the worker is root."""
    program: str = "ssh"
    control_path: Path | None = None
    """The socket of a connection that is open already; without it each command makes one of its own."""

    def __post_init__(self) -> None:
        checked_host(self.host)
        for user in (self.user, self.local_user):
            if user is not None:
                checked_user(user)
        if not 1 <= self.port <= 65535:
            raise PermanentError(f"not a port: {self.port}", hint="1 to 65535")
        for path in (self.known_hosts, self.identity_file, self.config_file, self.control_path):
            if path is not None and not _PLAIN_PATH.fullmatch(str(path)):
                raise PermanentError(
                    f"not a path that ssh takes as it stands: {str(path)!r}",
                    hint="absolute, without quotes, backslash, percent, dollar, tilde, control characters",
                )
        for name, value in self.options.items():
            _check_option(name, value)

    @property
    def address(self) -> str:
        """The host as it stands before a colon and a path."""
        return bracketed(self.host)

    @property
    def account(self) -> Account | None:
        """Whom the programs are run as; None for ourselves. Raises PermanentError where that cannot be."""
        return None if self.local_user is None else account(self.local_user)

    def argv(self, command: Sequence[str | bytes]) -> list[bytes]:
        """The local command that runs `command` on the peer, each word quoted for the shell there."""
        words = [word if isinstance(word, bytes) else os.fsencode(word) for word in command]
        # A colon and brackets mean nothing here; after `--` and the host nothing is an option any more.
        return [*self.remote_shell(), os.fsencode(self.host), b" ".join(_quoted(word) for word in words)]

    def remote_shell(self) -> list[bytes]:
        """The local command to which a host and one argument with a command are added."""
        return [os.fsencode(word) for word in (self.program, *self.options_argv(), "--")]

    def options_argv(self) -> list[str]:
        """`-F` and all `-o` options, as ssh, scp and sftp understand them alike."""
        # The first value that ssh meets is the one that counts: what is pinned comes first.
        words = ["-F", "none" if self.config_file is None else str(self.config_file)]
        for name, value in (*_PINNED, *self._chosen(), *self.options.items()):
            words += ["-o", f"{name}={value}"]
        return words

    def _chosen(self) -> list[tuple[str, str]]:
        alive = max(1, round(self.silence.total_seconds() / _ALIVE_COUNT))
        chosen = [
            ("Port", str(self.port)),
            ("StrictHostKeyChecking", "accept-new" if self.accept_new else "yes"),
            ("UserKnownHostsFile", f'"{self.known_hosts}"'),
            ("ConnectTimeout", str(max(1, round(self.connect_timeout.total_seconds())))),
            ("ServerAliveInterval", str(alive)),
            ("ServerAliveCountMax", str(_ALIVE_COUNT)),
            ("ControlPath", "none" if self.control_path is None else f'"{self.control_path}"'),
        ]
        if self.config_file is not None:
            chosen += [("IgnoreUnknown", "KnownHostsCommand"), ("KnownHostsCommand", "none")]
        if self.user is not None:
            chosen.append(("User", self.user))
        if self.identity_file is not None:
            chosen.append(("IdentityFile", f'"{self.identity_file}"'))
        return chosen

    def check(self) -> None:
        """Raises PermanentError where files are missing or open to others, or `local_user` cannot be. Reads only."""
        who = self.account
        uid = os.geteuid() if who is None else who.uid
        if self.identity_file is not None:
            _check_identity(self.identity_file, uid)
        if self.config_file is not None and not self.config_file.is_file():
            raise PermanentError(f"ssh configuration {self.config_file} is not there")
        if self.accept_new and self.known_hosts.parent.is_dir() and not self.known_hosts.exists():
            return
        try:
            if not stat.S_ISREG(self.known_hosts.stat().st_mode):
                raise PermanentError(f"known hosts {self.known_hosts}: not a regular file")
        except OSError as error:
            raise PermanentError(f"known hosts {self.known_hosts}: {error.strerror}", hint=how_to_know(self)) from error


def how_to_know(ssh: Ssh) -> str:
    """The hint for a host whose key we do not know."""
    port = "" if ssh.port == _SSH_PORT else f"-p {ssh.port} "
    return (
        f"ssh-keyscan {port}{ssh.host} >> {shlex.quote(str(ssh.known_hosts))}, then compare what "
        f"ssh-keygen -lf shows of it with what ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub shows on {ssh.host}"
    )


def known_as(ssh: Ssh) -> str:
    """How the host stands in a known_hosts file."""
    return ssh.host if ssh.port == _SSH_PORT else f"[{ssh.host}]:{ssh.port}"


def _quoted(word: bytes) -> bytes:
    # shlex knows text only; surrogateescape carries every byte through, and quotes it.
    return os.fsencode(shlex.quote(os.fsdecode(word)))


def _check_option(name: str, value: str) -> None:
    if name.lower() not in {known.lower() for known in MAY_BE_SET}:
        raise PermanentError(
            f"ssh option {name} cannot be set here",
            hint=f"these can: {', '.join(MAY_BE_SET)}; what else a host needs (ProxyJump, ProxyCommand) belongs "
            "into a configuration file for ssh",
        )
    if not _OPTION_VALUE.fullmatch(value):
        raise PermanentError(f"ssh option {name}: {value!r} cannot be its value")


def _check_identity(path: Path, uid: int) -> None:
    """As strict as ssh is, and a little stricter, before ssh says less clearly what is wrong."""
    try:
        found = path.stat()
    except OSError as error:
        raise PermanentError(f"identity file {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise PermanentError(f"identity file {path}: not a regular file")
    if found.st_uid not in {uid, 0}:
        raise PermanentError(f"identity file {path} belongs to user {found.st_uid}", hint=f"chown {uid} {path}")
    # Read by group: what a Kubernetes secret looks like, root's own file that the worker reads as one of its group.
    allowed = stat.S_IRWXU | (stat.S_IRGRP if found.st_uid != uid else 0)
    if stat.S_IMODE(found.st_mode) & ~allowed:
        raise PermanentError(
            f"identity file {path} is open to others: mode {stat.S_IMODE(found.st_mode):04o}", hint=f"chmod 0600 {path}"
        )
    if uid == os.geteuid() and not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermanentError(f"identity file {path} cannot be read by user {uid}")
