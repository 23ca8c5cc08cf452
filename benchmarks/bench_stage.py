"""Staging one peer, local and over ssh on loopback, against `rsync -a`, `scp -r` and CedarBackup3's own peers.

Goals: not slower than rsync, faster than CedarBackup3. All bring their copy to the disk; only ours is compared with the
peer by SHA-256, read back, and listed. The collect directory is flat: CedarBackup3 stages nothing below it.
"""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import orjson

from benchmarks import cedar
from benchmarks.harness import MIB, Run, backup, forget, measured, paired, workplace
from tests.services.sshd import Sshd

FILES = 50_000
FILE_BYTES = 1_000
LARGE_BYTES = 2048 * MIB
ROUNDS = 3
SYNC = "sync -f out"


def main() -> None:
    """Print the ratios."""
    for name, make in {f"{FILES} files": many_files, "one file of 2 GiB": one_file}.items():
        with workplace() as place:
            collect = place / "collect"
            collect.mkdir()
            make(collect)
            local(name, place, collect)
            over_ssh(name, place, collect)


def local(name: str, place: Path, collect: Path) -> None:
    """A peer on this machine."""
    rivals = {
        "rsync -a": ["sh", "-ec", f'rsync -a "$0/" out && {SYNC}', str(collect)],
        "cp -a": ["sh", "-ec", f'cp -a "$0/." out && {SYNC}', str(collect)],
        **with_cedar("LocalPeer", cedar.LOCAL, str(collect)),
    }
    compare(name, place, collect, {"kind": "local", "collect_directory": str(collect)}, rivals)


def over_ssh(name: str, place: Path, collect: Path) -> None:
    """The same peer, by a real server on loopback."""
    server = Sshd(place / "sshd")
    server.start()
    try:
        user = getpass.getuser()
        source = f"{user}@{server.host}:{collect}"
        by_ssh = f"-F {known(server)}"
        copy = f"/usr/bin/scp -B -q {by_ssh}"
        rivals = {
            "rsync -a": ["sh", "-ec", f'rsync -a -e "ssh {by_ssh}" "$0/" out && {SYNC}', source],
            "scp -r": ["sh", "-ec", f'{copy} -r "$0/." out && {SYNC}', source],
            **with_cedar("RemotePeer", cedar.REMOTE, server.host, user, copy, str(place), str(collect)),
        }
        peer = {
            "kind": "remote",
            "host": server.host,
            "port": server.port,
            "user": user,
            "known_hosts": str(server.known_hosts),
            "identity_file": str(server.key),
            "collect_directory": str(collect),
        }
        compare(f"{name}, over ssh", place, collect, peer, rivals)
    finally:
        server.stop()


def compare(name: str, place: Path, collect: Path, peer: Mapping[str, object], rivals: Mapping[str, list[str]]) -> None:
    """`holdfast backup` of a plan with this peer against the others, each into an empty directory."""

    def ours(verify: str) -> Run:
        forget(place)
        (collect / "cback.stage").unlink(missing_ok=True)
        made = backup(configured(place, peer, verify))
        forget(place)
        return made

    def theirs(argv: list[str]) -> Run:
        (collect / "cback.stage").unlink(missing_ok=True)
        (place / "out").mkdir()
        made = measured(argv, cwd=place)
        shutil.rmtree(place / "out")
        return made

    others = {rival: partial(theirs, argv) for rival, argv in rivals.items()}
    paired(name, partial(ours, "checksums"), {"verify: none": partial(ours, "none"), **others}, rounds=ROUNDS)


def configured(place: Path, peer: Mapping[str, object], verify: str) -> Path:
    """A configuration with a plan of this one peer."""
    file = place / "config.yaml"
    settings = {
        "node": "bench",
        "state_dir": str(place / "state"),
        "spool": {"enabled": False},
        "stores": {"disk": {"kind": "local", "path": str(place / "store")}},
        "plans": {"tree": {"handler": "stage", "verify": verify, "options": {"peers": {"bench": peer}}}},
        "log": {"level": "warning"},
    }
    file.write_bytes(orjson.dumps(settings))  # JSON is YAML
    return file


def known(server: Sshd) -> Path:
    """A file that tells ssh where the server is, and that it is the one."""
    file = server.home / "ssh_config"
    lines = {
        "Port": server.port,
        "IdentityFile": server.key,
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": server.known_hosts,
        "BatchMode": "yes",
    }
    file.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
    return file


def with_cedar(peer: str, script: str, *arguments: str) -> dict[str, list[str]]:
    """CedarBackup3's peer, where it can be had."""
    python = cedar.python()
    if python is None:
        return {}
    run = f'"$0" -c "$@" "$PWD/out" && {SYNC}'
    return {f"{peer} of CedarBackup3 {cedar.VERSION}": ["sh", "-ec", run, str(python), script, *arguments]}


def many_files(collect: Path) -> None:
    """What a peer of many small files has collected."""
    content = os.urandom(FILE_BYTES)
    for number in range(FILES):
        (collect / f"file-{number:05}.dat").write_bytes(content)
    (collect / "cback.collect").touch()


def one_file(collect: Path) -> None:
    """What a peer with one large dump has collected."""
    with (collect / "dump.sql").open("wb") as file:
        for _ in range(LARGE_BYTES // MIB):
            file.write(os.urandom(MIB))
    (collect / "cback.collect").touch()


if __name__ == "__main__":
    main()
