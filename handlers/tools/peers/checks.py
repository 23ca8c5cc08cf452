"""What would keep peers from being staged right now, as far as it can be seen from here without asking them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from handlers.errors import HoldfastError
from handlers.tools.peers.entering import entered
from handlers.tools.peers.options import SSH_PORT, LocalPeer, RemotePeer, StageOptions, owner_of
from handlers.tools.process import run
from handlers.tools.remote.ssh import Ssh, how_to_know


def problems(options: StageOptions) -> Sequence[str]:
    """A sentence each. Reads only, connects to nobody."""
    return tuple(_problems(options))


def _problems(options: StageOptions) -> Iterator[str]:
    if options.owner is not None:
        if os.geteuid() != 0:
            yield f"owner {options.owner} cannot be given: only root can give files away"
        try:
            owner_of(options.owner)
        except HoldfastError as error:
            yield error.message
    done = options.done_indicator
    if done is not None and not _may_write(done.parent):
        yield f"done_indicator {done} cannot be written: {done.parent} is not there, or not writable"
    for name, peer in options.peers.items():
        for problem in _of_local(peer) if isinstance(peer, LocalPeer) else _of_remote(name, peer):
            yield f"peer {name}: {problem}"


def _of_local(peer: LocalPeer) -> Iterator[str]:
    try:
        directory = entered(peer.collect_directory)
        try:
            os.scandir(directory).close()
        finally:
            os.close(directory)
    except HoldfastError as error:
        yield str(error)
        return
    except OSError as error:
        yield f"collect directory {peer.collect_directory}: {error.strerror}"
        return
    if peer.stage_indicator is not None and not _may_write(peer.collect_directory):
        yield f"{peer.stage_indicator} cannot be written: {peer.collect_directory} is not writable"
    if peer.indicator_owner is not None:
        try:
            owner_of(peer.indicator_owner)
        except HoldfastError as error:
            yield error.message


def _of_remote(name: str, peer: RemotePeer) -> Iterator[str]:
    try:
        ssh = peer.ssh(name)
        ssh.check()
        if not peer.accept_new_host_key and peer.ssh_config is None and not _is_known(ssh):
            yield f"{peer.known_hosts} has no key of {ssh.host}\nhint: {how_to_know(ssh)}"
    except HoldfastError as error:
        yield str(error)


def _may_write(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _is_known(ssh: Ssh) -> bool:
    """Whether ssh would find a key of the host; names in the file may be hashed."""
    host = next((value for key, value in ssh.options.items() if key.lower() == "hostkeyalias"), None)
    if host is None:
        host = ssh.host if ssh.port == SSH_PORT else f"[{ssh.host}]:{ssh.port}"
    return run(["ssh-keygen", "-F", host, "-f", str(ssh.known_hosts)]).code == 0
