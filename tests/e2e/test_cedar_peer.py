"""A real CedarBackup3 collects and signals; Holdfast stages in its master's place, and it finds its `cback.stage`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.services.sshd import Sshd
from tests.workshop.cedar import CedarClient, refused_master
from tests.workshop.staged import Peer, local_peer, remote_peer, staged
from tests.workshop.workers import Hire, Worker, wait_for

PAGE = Path(__file__).parents[2] / "docs" / "migrating" / "cedar-backup3.md"


@pytest.fixture
def client(tmp_path: Path) -> CedarClient:
    """A machine with CedarBackup3, two directories to collect, and a blank in the path of its collect directory."""
    for name in ("etc", "srv/www data"):
        directory = tmp_path / "client" / name
        directory.mkdir(parents=True)
        (directory / "file").write_text(f"of {name}\n" * 100)
    return CedarClient(tmp_path / "cedar client", [tmp_path / "client/etc", tmp_path / "client/srv/www data"])


@pytest.fixture
def employ(hire: Hire, tmp_path: Path, client: CedarClient) -> Iterator[Callable[[Peer], Worker]]:
    """Makes a worker run that stages this peer whenever the client has collected."""
    workers: list[Worker] = []

    def make(peer: Peer, **options: Any) -> Worker:
        plan = {"handler": "stage", "options": {"peers": {"cedar": peer}, **options}}
        pool = {"directories": [str(client.collect_dir)], "plan": "pool", "on_success": {"write": None}}
        worker = hire(tmp_path / "n1", tmp_path, tmp_path / "store", plans={"pool": plan}, indicators={"pool": pool})
        worker.start()
        workers.append(worker)
        return worker

    yield make
    for worker in workers:
        worker.stop()


def outcomes(worker: Worker) -> list[str]:
    """How the backups ended."""
    told = [event["data"] for event in worker.events() if event["data"].get("operation") != "manage"]
    return [data["outcome"] for data in told if data["outcome"] not in {"started", "progress"}]


def next_set(worker: Worker, number: int) -> Path:
    """The set with this number, oldest first, once it succeeded."""
    wait_for(lambda: len(outcomes(worker)) >= number, what=f"outcome {number}", told=worker.log.read_text)
    assert outcomes(worker) == ["succeeded"] * number, worker.log.read_text()
    sets = sorted(worker.sets(), key=lambda path: (path / "manifest.json").stat().st_mtime_ns)
    assert len(sets) == number
    return sets[-1]


def sums(files: dict[str, Path]) -> dict[str, str]:
    """By name, what is in each."""
    return {name: sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def stage_what_it_collects(client: CedarClient, worker: Worker) -> None:
    """Twice, with a purge between; whatever the peer is to the worker."""
    client.act("collect", full=True)
    made = next_set(worker, 1)

    assert len(client.collected()) == 2
    assert sums(staged(made, "cedar")) == sums(client.collected())
    assert client.sees("cback.stage")
    assert (client.collect_dir / "cback.stage").read_text().startswith(f"pool/{made.name}\n")

    client.act("purge")
    assert not client.sees("cback.stage")
    (client.collects[0] / "new").write_text("since")
    client.act("collect")
    again = next_set(worker, 2)

    assert sums(staged(again, "cedar")) == sums(client.collected())
    assert client.sees("cback.stage")
    client.act("collect")
    assert sums(staged(next_set(worker, 3), "cedar")) == sums(client.collected())


def test_what_a_client_collects_is_staged_when_it_signals(
    client: CedarClient, employ: Callable[[Peer], Worker]
) -> None:
    """As a directory of this machine; the client collects, purges and collects again as it did for its old master."""
    stage_what_it_collects(client, employ(local_peer(client.collect_dir)))


def test_a_client_on_another_machine_is_staged_by_ssh(
    client: CedarClient, employ: Callable[[Peer], Worker], sshd: Sshd
) -> None:
    """By a real server on loopback; the blank in its collect directory is one."""
    stage_what_it_collects(client, employ(remote_peer(client.collect_dir, sshd)))


def test_a_managed_client_collects_when_it_is_told_to(
    client: CedarClient, employ: Callable[..., Worker], sshd: Sshd
) -> None:
    """`cback3 --full collect` runs there; what it wrote and how it ended is told, and what it collected is staged."""
    collect = {"command": [*client.command, "{full}", "collect"]}
    broken = {"command": [*client.command, "nonsense"]}
    worker = employ(
        remote_peer(client.collect_dir, sshd, managed=True), managed_actions={"collect": collect, "broken": broken}
    )

    done = worker.run("manage", "pool", "collect", "--full", "--json")

    assert done.returncode == 0, done.stderr
    (told,) = orjson.loads(done.stdout.splitlines()[-1])["actions"]
    assert (told["peer"], told["exit_code"]) == ("cedar", 0)
    assert sums(staged(next_set(worker, 1), "cedar")) == sums(client.collected())
    assert "--full" in client.log.read_text()

    failed = worker.run("manage", "pool", "broken", "--json")
    (told,) = orjson.loads(failed.stdout.splitlines()[-1])["actions"]
    assert (failed.returncode, told["exit_code"]) == (1, 4)
    assert "nonsense" in told["output"]


def test_the_page_shows_a_configuration_that_cedar_takes(tmp_path: Path) -> None:
    """What is to become a plan is no invention."""
    shown = re.search(r"```xml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    config = tmp_path / "cback3.conf"
    config.write_text(shown[1])

    assert refused_master(config) == ""
