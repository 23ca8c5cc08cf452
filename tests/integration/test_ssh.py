"""Commands on a peer, by a real ssh server."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from handlers.errors import Cancelled, PermanentError, TemporaryError
from handlers.tools.remote.connection import shared
from handlers.tools.remote.shell import has_program, run_remote
from tests.services.far_sshd import far_sshd
from tests.services.server import free_port, wait_until
from tests.services.sshd import Sshd, new_key
from tests.workshop.another_user import NOBODY, needs_another_user, open_directory
from tests.workshop.peers import HOSTILE_NAMES, keys_of_nobody, programs


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A server that a test may ill-treat."""
    server = Sshd(tmp_path / "own")
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_every_word_of_a_command_arrives_as_it_is(sshd: Sshd) -> None:
    """No word is read by the peer's shell, whatever is in it."""
    answer = run_remote(sshd.ssh(), ["printf", "%s\\0", *HOSTILE_NAMES, ""])

    assert answer.stdout.split(b"\0") == [*HOSTILE_NAMES, b"", b""]


def test_exit_code_and_input_pass_through(sshd: Sshd) -> None:
    """The command gets what it is given and its exit code is the answer's."""
    answer = run_remote(sshd.ssh(), ["sh", "-c", "cat; echo no >&2; exit 7"], input=b"x" * 300_000)

    assert (answer.code, len(answer.stdout), answer.stderr) == (7, 300_000, "no")


def test_missing_program_is_exit_code_127(sshd: Sshd) -> None:
    """The peer's shell says that there is no such program."""
    assert run_remote(sshd.ssh(), ["no-such-program"]).code == 127
    assert not has_program(sshd.ssh(), "no-such-program")
    assert has_program(sshd.ssh(), "cat")


def test_unknown_host_key_is_a_matter_for_a_person(sshd: Sshd, tmp_path: Path) -> None:
    """Nothing is run on a host that is not in the known hosts; the hint says how it gets there."""
    known_hosts = tmp_path / "known_hosts"
    known_hosts.touch()

    with pytest.raises(PermanentError, match=r"is not in .*\nhint: ssh-keyscan -p"):
        run_remote(sshd.ssh(known_hosts=known_hosts), ["true"])
    assert known_hosts.read_text() == ""


def test_missing_known_hosts_file_is_named_with_a_hint(sshd: Sshd, tmp_path: Path) -> None:
    """The file is looked for before ssh is run."""
    with pytest.raises(PermanentError, match=r"known hosts .*nowhere: No such file[^\n]*\nhint: ssh-keyscan"):
        run_remote(sshd.ssh(known_hosts=tmp_path / "nowhere"), ["true"])


def test_new_host_key_is_taken_only_when_asked(sshd: Sshd, tmp_path: Path) -> None:
    """The first connection writes the key down, the second one compares."""
    ssh = sshd.ssh(known_hosts=tmp_path / "new", accept_new=True)

    assert run_remote(ssh, ["true"]).code == 0
    assert str(sshd.port) in (tmp_path / "new").read_text()


@pytest.mark.parametrize("accept_new", [False, True])
def test_changed_host_key_is_never_taken(sshd: Sshd, tmp_path: Path, accept_new: bool) -> None:
    """Another key than the known one is an alarm, whether new hosts are taken or not."""
    other = new_key(tmp_path / "other").with_suffix(".pub").read_text().split()[:2]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{sshd.port} {' '.join(other)}\n")

    with pytest.raises(PermanentError, match=r"does not have the host key(.|\n)*ssh-keygen -R"):
        run_remote(sshd.ssh(known_hosts=tmp_path / "known", accept_new=accept_new), ["true"])


def test_key_that_is_not_let_in_is_a_matter_for_a_person(sshd: Sshd, tmp_path: Path) -> None:
    """No password is asked for, no other key is tried."""
    with pytest.raises(PermanentError, match=r"does not let us in: .*Permission denied(.|\n)*authorized_keys"):
        run_remote(sshd.ssh(identity_file=new_key(tmp_path / "stranger")), ["true"])


def test_refused_connection_is_tried_later(sshd: Sshd) -> None:
    """Nobody listens: perhaps the machine is about to start."""
    with pytest.raises(TemporaryError, match="Connection refused"):
        run_remote(sshd.ssh(port=free_port()), ["true"])


def test_unknown_name_is_tried_later(sshd: Sshd) -> None:
    """The name service may be away."""
    with pytest.raises(TemporaryError, match=r"no-such-host\.invalid"):
        run_remote(sshd.ssh(host="no-such-host.invalid"), ["true"])


def test_server_that_never_speaks_is_given_up(sshd: Sshd) -> None:
    """A listening port alone is not an ssh server."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        ssh = sshd.ssh(port=mute.getsockname()[1], connect_timeout=timedelta(seconds=1))
        with pytest.raises(TemporaryError, match="no connection with"):
            run_remote(ssh, ["true"])


def test_cut_connection_is_tried_later(own_sshd: Sshd, tmp_path: Path) -> None:
    """The server's side dies in the middle of a command."""

    def cut_once_it_runs() -> None:
        if (tmp_path / "runs").exists():
            own_sshd.cut()

    with pytest.raises(TemporaryError, match="no connection with"):
        run_remote(
            own_sshd.ssh(),
            ["sh", "-c", 'touch "$1"; exec sleep 60', "sh", str(tmp_path / "runs")],
            checkpoint=cut_once_it_runs,
        )


def test_silent_connection_is_noticed(own_sshd: Sshd, tmp_path: Path) -> None:
    """A peer that says nothing any more, as after a cut cable, is given up long before the deadline."""
    held: list[int] = []

    def hold_once_it_runs() -> None:
        if (tmp_path / "runs").exists() and not held:
            held.extend(own_sshd.sessions())
            for pid in held:
                os.kill(pid, 19)

    ssh = own_sshd.ssh(silence=timedelta(seconds=3))
    with pytest.raises(TemporaryError, match=r"Timeout, server 127\.0\.0\.1 not responding"):
        run_remote(
            ssh,
            ["sh", "-c", 'touch "$1"; exec sleep 60', "sh", str(tmp_path / "runs")],
            checkpoint=hold_once_it_runs,
        )
    assert held


@pytest.mark.slow
def test_cut_cable_is_noticed(tmp_path: Path) -> None:
    """Nobody tells us that a link is down: only that nothing comes any more."""
    with far_sshd(tmp_path / "far") as (server, cable):

        def cut_once_it_runs() -> None:
            if (tmp_path / "runs").exists():
                cable.cut()

        with pytest.raises(TemporaryError, match="no connection with"):
            run_remote(
                server.ssh(silence=timedelta(seconds=3)),
                ["sh", "-c", 'touch "$1"; exec sleep 60', "sh", str(tmp_path / "runs")],
                checkpoint=cut_once_it_runs,
            )
        with pytest.raises(TemporaryError, match="no connection with"):
            run_remote(server.ssh(connect_timeout=timedelta(seconds=1)), ["true"])


def test_deadline_and_checkpoint_end_a_command(sshd: Sshd) -> None:
    """Whoever waits can stop waiting."""

    def stop() -> None:
        raise Cancelled("stop")

    with pytest.raises(TemporaryError, match="took longer"):
        run_remote(sshd.ssh(), ["sleep", "60"], deadline=timedelta(seconds=1))
    with pytest.raises(Cancelled):
        run_remote(sshd.ssh(), ["sleep", "60"], checkpoint=stop)


def test_endless_answer_is_cut(sshd: Sshd) -> None:
    """A peer cannot fill our memory."""
    with pytest.raises(TemporaryError, match="more than 1048576 bytes"):
        run_remote(sshd.ssh(), ["cat", "/dev/zero"])


def test_configuration_file_cannot_undo_what_is_pinned(sshd: Sshd, tmp_path: Path) -> None:
    """What the operator's own file says counts only where nothing is pinned."""
    config = tmp_path / "config"
    config.write_text(
        f"Host peer\n  HostName 127.0.0.1\n  HostKeyAlias [127.0.0.1]:{sshd.port}\n"
        "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  RemoteCommand echo wrong\n"
        "  ForwardAgent yes\n  RequestTTY force\n"
    )
    (tmp_path / "empty").touch()

    assert run_remote(sshd.ssh(host="peer", config_file=config), ["echo", "right"]).stdout == b"right\n"
    with pytest.raises(PermanentError, match="is not in"):
        run_remote(sshd.ssh(host="peer", config_file=config, known_hosts=tmp_path / "empty"), ["true"])


@needs_another_user
def test_another_user_runs_ssh(sshd: Sshd) -> None:
    """Root's worker uses the keys of a user with fewer rights, as that user."""
    seen: set[int] = set()

    def look() -> None:
        seen.update(child.uids().real for child in psutil.Process().children() if child.name() == "ssh")

    with open_directory() as place:
        ssh = keys_of_nobody(sshd, place)
        answer = run_remote(ssh, ["sleep", "1"], checkpoint=look)

    assert (answer.code, seen) == (0, {NOBODY})


@needs_another_user
def test_key_of_another_user_is_refused(sshd: Sshd) -> None:
    """Whoever owns a key could change it."""
    with open_directory() as place:
        ssh = keys_of_nobody(sshd, place)
        with pytest.raises(PermanentError, match=f"belongs to user {NOBODY}"):
            run_remote(replace(ssh, local_user=None), ["true"])


@needs_another_user
def test_user_of_this_machine_must_exist(sshd: Sshd) -> None:
    """A name that nobody has is told as such."""
    with pytest.raises(PermanentError, match="there is no user no-such-user on this machine"):
        run_remote(sshd.ssh(local_user="no-such-user"), ["true"])


def test_peer_with_few_programs_is_seen_through(sshd: Sshd, tmp_path: Path) -> None:
    """What the peer's shell does not find is not there, although this machine has it."""
    key = sshd.limited(programs(tmp_path / "few", "sh", "cat"))

    assert has_program(sshd.ssh(identity_file=key), "cat")
    assert not has_program(sshd.ssh(identity_file=key), "rsync")


def test_shared_connection_serves_many_commands(own_sshd: Sshd) -> None:
    """One login for all of them; afterwards none is left."""
    with shared(own_sshd.ssh()) as ssh:
        answers = [run_remote(ssh, ["echo", str(number)]).stdout for number in range(3)]

    assert answers == [b"0\n", b"1\n", b"2\n"]
    assert (own_sshd.home / "output").read_text().count("Accepted publickey") == 1
    wait_until(lambda: not own_sshd.sessions(), what="the connection is closed")


def test_commands_go_on_when_the_shared_connection_breaks(own_sshd: Sshd) -> None:
    """They make a connection of their own then."""
    with shared(own_sshd.ssh()) as ssh:
        own_sshd.cut()
        wait_until(lambda: not own_sshd.sessions(), what="the connection is cut")

        assert run_remote(ssh, ["echo", "again"]).stdout == b"again\n"


def test_shared_connection_tells_why_it_cannot_be(sshd: Sshd, tmp_path: Path) -> None:
    """The same words as for a single command."""
    (tmp_path / "empty").touch()
    with (
        pytest.raises(PermanentError, match="is not in"),
        shared(sshd.ssh(known_hosts=tmp_path / "empty")),
    ):
        pass
