"""How a peer may be reached, and how not; no connection is made."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import PermanentError
from handlers.tools.remote.names import is_below
from handlers.tools.remote.rsync import Rules, Source, rsync_argv
from handlers.tools.remote.ssh import Ssh
from tests.workshop.another_user import NOBODY, needs_another_user, nobody, open_directory

KNOWN_HOSTS = Path("/etc/holdfast/known hosts")


def ssh(**changes: Any) -> Ssh:
    return Ssh(**{"host": "web01", "known_hosts": KNOWN_HOSTS, **changes})


@pytest.mark.parametrize(
    "host",
    ["web01", "web-01.example.com", "127.0.0.1", "::1", "fe80::1%eth0", "2001:db8::2", "my_service", "a" * 63],
)
def test_hosts_that_can_be_meant_are_taken(host: str) -> None:
    """Names, IPv4, IPv6; names with underscores are found in practice."""
    assert ssh(host=host).argv(["true"])[-2] == host.encode()


@pytest.mark.parametrize(
    "host",
    [
        *("", "-oProxyCommand=sh", "-e sh", "a b", "user@host", "host:22", "[::1]", "host/x", "a..b", ".a", "a.", "a-"),
        *("ho\nst", "host\0", "a" * 64, "a." * 127 + "aa", "fe80::1%-x", "fe80::1%$(sh)", "ssh://host", "ümlaut", "%h"),
    ],
)
def test_hosts_that_a_program_would_read_otherwise_are_refused(host: str) -> None:
    """A host never becomes an option, a user, a port, a path."""
    with pytest.raises(PermanentError, match="not a host"):
        ssh(host=host)


@pytest.mark.parametrize("user", ["", "-l", "a b", "a@b", "a:b", "a/b", "$(id)", "a\n"])
def test_users_that_a_program_would_read_otherwise_are_refused(user: str) -> None:
    """On either side."""
    with pytest.raises(PermanentError, match="not a user's name"):
        ssh(user=user)
    with pytest.raises(PermanentError, match="not a user's name"):
        ssh(local_user=user)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_have_a_range(port: int) -> None:
    """As TCP has it."""
    with pytest.raises(PermanentError, match="not a port"):
        ssh(port=port)


@pytest.mark.parametrize("path", ["relative", "/a\nb", '/a"b', "/a%hb", "/a${HOME}", "/a\\b", "~/x", "/a'b"])
def test_paths_that_ssh_would_read_otherwise_are_refused(path: str) -> None:
    """Ssh splits and expands the values of its options."""
    for option in ("known_hosts", "identity_file", "config_file"):
        with pytest.raises(PermanentError, match="not a path that ssh takes"):
            ssh(**{option: Path(path)})


@pytest.mark.parametrize(
    "name",
    [
        *("ProxyCommand", "proxyjump", "StrictHostKeyChecking", "UserKnownHostsFile", "LocalCommand", "ForwardAgent"),
        *("PermitLocalCommand", "KnownHostsCommand", "Include", "Match", "IdentityFile", "SendEnv", "", "Cipher s"),
    ],
)
def test_options_that_could_undo_something_are_refused(name: str) -> None:
    """The message says which ones can be set, and where the others belong."""
    with pytest.raises(PermanentError, match=r"cannot be set here\nhint: these can: AddressFamily, .*configuration"):
        ssh(options={name: "x"})


def test_options_that_undo_nothing_are_passed_on() -> None:
    """In any spelling; after what is pinned, which counts."""
    words = ssh(options={"ciphers": "aes256-gcm@openssh.com"}).options_argv()

    assert words[-2:] == ["-o", "ciphers=aes256-gcm@openssh.com"]
    with pytest.raises(PermanentError, match="cannot be its value"):
        ssh(options={"Ciphers": "a\nProxyCommand=sh"})


def test_what_ssh_could_decide_for_itself_is_pinned() -> None:
    """Each of these once was a hole in somebody's backups."""
    words = set(ssh(port=2222).options_argv())

    assert {
        *("BatchMode=yes", "StrictHostKeyChecking=yes", f'UserKnownHostsFile="{KNOWN_HOSTS}"', "Port=2222"),
        *("GlobalKnownHostsFile=/dev/null", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes"),
        *("PermitLocalCommand=no", "IdentitiesOnly=yes", "PasswordAuthentication=no", "ControlMaster=no"),
        *("KbdInteractiveAuthentication=no", "ServerAliveCountMax=3", "ServerAliveInterval=20", "ControlPath=none"),
    } <= words
    assert "StrictHostKeyChecking=accept-new" in ssh(accept_new=True).options_argv()


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=0).filter(lambda word: b"\0" not in word), min_size=1))
def test_a_shell_reads_the_words_that_were_meant(words: list[bytes]) -> None:
    """Whatever is in them, in whatever encoding."""
    command = ssh().argv(words)[-1]

    assert [os.fsencode(word) for word in shlex.split(os.fsdecode(command))] == words


def test_rsync_gets_each_word_of_ssh_in_quotes() -> None:
    """It splits the command by itself: at blanks, not at those in quotes."""
    argv = rsync_argv(Source(directory=b"/srv/a*[b]\\", ssh=ssh(host="::1")), Rules(), has_names=False)

    assert b"'-o' 'UserKnownHostsFile=\"/etc/holdfast/known hosts\"'" in argv[argv.index(b"-e") + 1]
    assert argv[-3:] == [b"--", rb"[::1]:/srv/a\*\[b]\\/", b"."]


def key(place: Path, mode: int) -> Path:
    path = place / "key"
    path.touch()
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o700 | 0o010])
def test_key_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Before ssh is run, with what to do."""
    (tmp_path / "known").touch()

    with pytest.raises(PermanentError, match=r"is open to others: mode 0\d{3}\nhint: chmod 0600"):
        ssh(known_hosts=tmp_path / "known", identity_file=key(tmp_path, mode)).check()


def test_key_that_is_closed_to_others_is_taken(tmp_path: Path) -> None:
    """Also where the name is a link, as in a Kubernetes secret."""
    (tmp_path / "known").touch()
    (tmp_path / "link").symlink_to(key(tmp_path, 0o400))

    ssh(known_hosts=tmp_path / "known", identity_file=tmp_path / "link").check()


def test_key_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """A directory, nothing at all."""
    with pytest.raises(PermanentError, match="not a regular file"):
        ssh(identity_file=tmp_path).check()
    with pytest.raises(PermanentError, match="No such file"):
        ssh(identity_file=tmp_path / "gone").check()


@needs_another_user
def test_key_of_root_may_be_open_to_the_group_of_the_worker() -> None:
    """What a Kubernetes secret looks like to a worker that is not root."""
    with open_directory() as place:
        (place / "known").touch()
        path = key(place, 0o440)
        os.chown(path, 0, NOBODY)
        with nobody():
            os.setegid(NOBODY)
            ssh(known_hosts=place / "known", identity_file=path).check()


@needs_another_user
def test_only_root_becomes_another_user(tmp_path: Path) -> None:
    """The message says as whom the worker runs."""
    (tmp_path / "known").touch()

    with nobody(), pytest.raises(PermanentError, match=f"as user root: the worker runs as user {NOBODY}"):
        ssh(known_hosts=tmp_path / "known", local_user="root").check()


@pytest.mark.parametrize("path", [b"", b".", b"..", b"/x", b"a//b", b"a/", b"a/../b", b"./a", b"a\0b", b"a" * 256])
def test_paths_that_lead_elsewhere_are_not_below(path: bytes) -> None:
    """Or that have another spelling."""
    assert not is_below(path)
    assert is_below(b"a/..b/\xff\n")
