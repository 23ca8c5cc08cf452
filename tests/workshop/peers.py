"""What peers look like in the tests: their directories, their programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from handlers.tools.remote.ssh import Ssh
from tests.services.server import program
from tests.services.sshd import Sshd
from tests.workshop.another_user import NOBODY
from tests.workshop.odd_names import NAMES

HOSTILE_NAMES = (
    *NAMES,
    b".hidden",
    b"-e sh",
    b"--delete",
    b";rm -rf .",
    b"`touch pwned`",
    b"ends\n",
    b"\\#012",
    b"it's",
    b"host:path",
    b"sub/deep/file",
)
"""Names of files, relative to a directory, that some program would take for something else."""

HOSTILE_DIRECTORY = 'it\'s a "dir" [x]*?\\y $(touch pwned);#'


def fill(directory: Path, names: tuple[bytes, ...] = HOSTILE_NAMES) -> dict[bytes, bytes]:
    """Make files of these names, with their own names as content; what was written, by name."""
    for name in names:
        path = directory / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + name)
    return {name: b"content of " + name for name in names}


def files_below(directory: Path) -> dict[bytes, bytes]:
    """The content of all regular files, by name."""
    return {
        os.fsencode(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def programs(place: Path, *names: str) -> Path:
    """A directory with these programs of the system alone."""
    place.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (place / name).symlink_to(found)
    return place


def busybox(place: Path, *without: str) -> Path:
    """A directory with all programs of busybox, but for those `without`."""
    place.mkdir()
    path = program("busybox")
    for name in subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name not in without:
            (place / name).symlink_to(path)
    return place


def keys_of_nobody(sshd: Sshd, place: Path) -> Ssh:
    """How the user nobody reaches the server, with files in this directory; for root."""
    for file in (sshd.key, sshd.known_hosts):
        copy = Path(shutil.copy(file, place))
        os.chown(copy, NOBODY, NOBODY)
        copy.chmod(0o600)
    return sshd.ssh(identity_file=place / sshd.key.name, known_hosts=place / "known_hosts", local_user="nobody")
