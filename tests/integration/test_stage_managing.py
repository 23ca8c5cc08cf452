"""Managed peers do what the configuration allows, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handlers.abilities import Managed
from handlers.errors import Cancelled, PermanentError
from tests.services.server import free_port
from tests.services.sshd import Sshd
from tests.workshop.pool import Pool
from tests.workshop.staged import local_peer, remote_peer

pytestmark = pytest.mark.service("sshd")


def managed(place: Path, sshd: Sshd, command: list[str], *, full: bool = False, **more: Any) -> dict[str, Managed]:
    """What becomes of an action on a local peer, on a remote one, on one that is not there; one is not managed."""
    peers = {
        "here": local_peer(place, managed=True),
        "there": remote_peer(place, sshd, managed=True),
        "gone": remote_peer(place, sshd, managed=True, port=free_port()),
        "other": local_peer(place),
    }
    pool = Pool(place, peers, managed_actions={"act": {"command": command, **more}})
    assert pool.handler.actions(pool.options) == ("act",)
    done = pool.handler.manage(pool.options, "act", full=full, control=pool.control)
    assert [each.peer for each in done] == ["here", "there", "gone"]
    return {each.peer: each for each in done}


@pytest.mark.parametrize(("full", "said"), [(True, "--full;x y\n"), (False, "x y\n")])
def test_every_managed_peer_acts_and_its_output_comes_back(tmp_path: Path, sshd: Sshd, full: bool, said: str) -> None:
    """Words stay words: no shell, here or there, takes them apart. One that is not there keeps nobody from it."""
    done = managed(tmp_path, sshd, ["printf", "%s;%s\\n" if full else "%s\\n", "{full}", "x y"], full=full)

    for peer in ("here", "there"):
        assert done[peer] == Managed(peer=peer, exit_code=0, output=said)
    assert done["gone"].exit_code is None
    assert "no connection" in (done["gone"].error or "")


def test_nothing_in_a_command_is_for_a_shell(tmp_path: Path, sshd: Sshd) -> None:
    """Cedar's fault: the action was pasted into a command line."""
    hostile = "$(touch pwned); `id` && 'x' \\ | *"

    done = managed(tmp_path, sshd, ["printf", "%s", hostile])

    assert done["here"].output == hostile
    assert done["there"].output == hostile


def test_an_exit_code_is_told_with_the_end_of_the_output(tmp_path: Path, sshd: Sshd) -> None:
    """Cedar's fault: what failed was logged, and the run was a success."""
    done = managed(tmp_path, sshd, ["sh", "-c", "seq 100000; echo why >&2; exit 3"])

    for peer in ("here", "there"):
        assert done[peer].exit_code == 3
        assert done[peer].error == "sh ended with exit code 3"
        assert done[peer].output.endswith("100000\nwhy\n")
        assert done[peer].output.startswith("[...]")
        assert len(done[peer].output) < 9000


def test_an_action_has_a_deadline(tmp_path: Path, sshd: Sshd) -> None:
    """Whoever hangs is given up."""
    done = managed(tmp_path, sshd, ["sleep", "60"], deadline_seconds=2)

    for peer in ("here", "there"):
        assert done[peer].exit_code is None
        assert "took longer than" in (done[peer].error or "")


def test_what_is_not_in_the_list_is_never_run(tmp_path: Path) -> None:
    """The name of an action comes in a message."""
    pool = Pool(tmp_path, {"a": local_peer(tmp_path, managed=True)}, managed_actions={"act": {"command": ["true"]}})

    with pytest.raises(PermanentError, match="'touch x' is not allowed"):
        pool.handler.manage(pool.options, "touch x", full=False, control=pool.control)


def test_managing_can_be_stopped(tmp_path: Path) -> None:
    """A worker that drains does not wait for a peer."""

    class Stopping:
        def checkpoint(self) -> None:
            raise Cancelled("asked to stop")

    pool = Pool(
        tmp_path, {"a": local_peer(tmp_path, managed=True)}, managed_actions={"act": {"command": ["sleep", "60"]}}
    )
    control: Any = Stopping()

    with pytest.raises(Cancelled):
        pool.handler.manage(pool.options, "act", full=False, control=control)
