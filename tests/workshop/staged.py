"""Peers for plans of the handler `stage`; looks at its sets with plain tools alone."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from tests.services.sshd import Sshd

Peer = dict[str, Any]
"""One peer, as a configuration has it."""


def local_peer(directory: Path, **more: Any) -> Peer:
    """A directory of this machine."""
    return {"kind": "local", "collect_directory": str(directory), **more}


def remote_peer(directory: Path, sshd: Sshd, **more: Any) -> Peer:
    """The same directory on another machine, as it were."""
    return {
        "kind": "remote",
        "host": sshd.host,
        "port": sshd.port,
        "known_hosts": str(sshd.known_hosts),
        "identity_file": str(sshd.key),
        "collect_directory": str(directory),
        **more,
    }


def checked(made: Path) -> set[str]:
    """The names that `sha256sum -c` finds to be what the set's list says; fails the test where one is not."""
    done = subprocess.run(
        "zstd -dc peers.sha256.zst | sha256sum -c", shell=True, cwd=made, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "improperly formatted" not in done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert all(line.endswith(": OK") for line in lines)
    return {line.removesuffix(": OK") for line in lines}


def staged(made: Path, peer: str) -> dict[str, Path]:
    """Each file of a peer by its name there, by a walk of our own; the set's list says the same."""
    top = made / "peers" / peer
    found = {str(path.relative_to(top)): path for path in top.rglob("*") if path.is_symlink() or not path.is_dir()}
    files = {f"peers/{peer}/{name}" for name, path in found.items() if not path.is_symlink()}
    assert {name for name in checked(made) if name.startswith(f"peers/{peer}/")} == files
    return found
