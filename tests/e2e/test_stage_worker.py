"""A pool of peers, from the command line and by a running worker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.services.sshd import Sshd
from tests.workshop.pool import collected
from tests.workshop.staged import local_peer, remote_peer, staged
from tests.workshop.workers import HOLDFAST, Hire, Worker, wait_for

Make = Callable[..., Worker]


@pytest.fixture
def make(hire: Hire, tmp_path: Path) -> Make:
    """A worker whose plan `web` stages these peers."""

    def worker(peers: dict[str, Any], *, retry: dict[str, Any] | None = None, **options: Any) -> Worker:
        plan = {"handler": "stage", "options": {"peers": peers, **options}}
        more = {"retry": retry} if retry else {}
        return hire(tmp_path / "n1", tmp_path, tmp_path / "store", plans={"web": plan}, **more)

    return worker


@pytest.mark.service("sshd")
def test_a_pool_is_staged_told_looked_into_verified_and_restored(tmp_path: Path, sshd: Sshd, make: Make) -> None:
    """With the command line alone."""
    here, there = collected(tmp_path / "here", "a", "sub/b"), collected(tmp_path / "there", "c")
    worker = make({"here": local_peer(here), "there": remote_peer(there, sshd)}, done_indicator=str(tmp_path / "done"))

    rehearsed = worker.run("backup", "web", "--dry-run")
    done = worker.run("backup", "web", "--json")

    assert b'"ready":true,"files":3,"bytes":28' in rehearsed.stdout
    assert done.returncode == 0, done.stderr
    (made,) = worker.sets()
    assert set(staged(made, "here")) == {"a", "sub/b"}
    assert set(staged(made, "there")) == {"c"}
    line = f"web/{made.name}\n"
    assert all((place / "cback.stage").read_text().startswith(line) for place in (here, there))
    assert (tmp_path / "done").read_text() == line
    assert worker.run("verify", made.name, "--deep").returncode == 0
    assert worker.run("cat", made.name, "here/sub/b").stdout == b"content of sub/b"
    assert worker.run("restore", made.name, str(tmp_path / "back"), "--path", "there/c").returncode == 0
    assert (tmp_path / "back" / "there" / "c").read_text() == "content of c"
    again = worker.run("backup", "web", "--json")
    assert (again.returncode, len(worker.sets())) == (0, 1)
    assert b"no new set was made: here: nothing new: " in again.stdout
    assert (tmp_path / "done").read_text() == line


def test_the_page_in_the_set_restores_it(tmp_path: Path, make: Make) -> None:
    """The shell blocks of RESTORE.md run as they stand."""
    worker = make({"here": local_peer(collected(tmp_path / "here", "a", "sub/b"))})
    assert worker.run("backup", "web").returncode == 0
    (made,) = worker.sets()
    page = (made / "RESTORE.md").read_text()
    blocks = [block.split("```")[0] for block in page.split("```sh\n")[1:]]

    for block in blocks[:2]:
        environment = {**os.environ, "TARGET": str(tmp_path / "back")}
        subprocess.run(["sh", "-ec", block], cwd=made, check=True, capture_output=True, env=environment)

    assert (tmp_path / "back" / "here" / "sub" / "b").read_text() == "content of sub/b"


@pytest.mark.service("sshd")
def test_an_unreachable_peer_is_tried_again_before_the_set_is_partial(tmp_path: Path, make: Make) -> None:
    """It comes back between two attempts; what the others gave is there, and nobody is told too early."""
    server = Sshd(tmp_path / "own")
    server.start()
    server.stop()
    here, there = collected(tmp_path / "here", "a"), collected(tmp_path / "there", "c")
    peers = {"here": local_peer(here), "there": remote_peer(there, server)}
    worker = make(peers, retry={"attempts": 50, "first_delay_seconds": 0.2, "max_delay_seconds": 1})
    worker.start()
    worker.ask("r1")
    wait_for(lambda: b"peers may come back" in worker.log.read_bytes(), what="the first attempt fails")
    assert not (here / "cback.stage").exists()

    server.start()
    try:
        outcome = worker.wait_outcome("r1")
    finally:
        server.stop()

    assert outcome["outcome"] == "succeeded"
    (made,) = worker.sets()
    assert set(staged(made, "there")) == {"c"}
    assert json.loads((made / "peers.json").read_text())["peers"][0]["kept"] == 1
    wait_for((here / "cback.stage").exists, what="the peer is told")
    assert worker.stop() == 0
    assert worker.leftovers() == []


def test_a_peer_that_stays_away_makes_the_set_partial_at_last(tmp_path: Path, sshd: Sshd, make: Make) -> None:
    """The peers that were staged are told; the run is not done."""
    here = collected(tmp_path / "here", "a")
    peers = {"here": local_peer(here), "there": remote_peer(tmp_path, sshd, port=1)}
    worker = make(peers, done_indicator=str(tmp_path / "done"))
    worker.start()
    worker.ask("r1")

    outcome = worker.wait_outcome("r1")

    assert (outcome["outcome"], outcome["exit_code"]) == ("partial", 3)
    assert (here / "cback.stage").exists()
    assert not (tmp_path / "done").exists()
    assert worker.stop() == 0


def test_a_worker_that_is_killed_goes_on_with_what_it_has_fetched(tmp_path: Path, make: Make) -> None:
    """One set, one outcome; the peer is told once it is there."""
    here = collected(tmp_path / "here", *(f"file-{number}" for number in range(200)))
    with (here / "zz-large").open("wb") as file:
        file.truncate(1 << 30)
    worker = make({"here": local_peer(here)})
    worker.start()
    worker.ask("r1")
    drafts = worker.store / ".holdfast" / "drafts"
    wait_for(lambda: any(drafts.glob("*/peers/here/zz-large")), what="the large file is being copied")
    worker.kill()
    assert not (here / "cback.stage").exists()

    worker.start()
    outcome = worker.wait_outcome("r1")

    assert outcome["outcome"] == "succeeded"
    (made,) = worker.sets()
    assert len(staged(made, "here")) == 201
    assert json.loads((made / "peers.json").read_text())["peers"][0]["kept"] > 0
    assert (here / "cback.stage").read_text().startswith(f"web/{made.name}\n")
    assert worker.stop() == 0
    assert worker.leftovers() == []


def test_managed_peers_act_from_the_command_line(tmp_path: Path, make: Make) -> None:
    """The exit code tells whether all of them did."""
    actions = {"good": {"command": ["echo", "{full}"]}, "bad": {"command": ["false"]}}
    worker = make({"here": local_peer(tmp_path, managed=True)}, managed_actions=actions)

    good, bad, unknown = (worker.run("manage", "web", action, "--full") for action in ("good", "bad", "other"))

    assert (good.returncode, bad.returncode, unknown.returncode) == (0, 1, 4)
    assert b"--full" in good.stdout


def test_everything_wrong_with_a_pool_is_told_at_once(tmp_path: Path) -> None:
    """`holdfast config check` names the places."""
    config = tmp_path / "config.yaml"
    peers = {
        "a": {"kind": "local", "collect_directory": "srv", "links": "follow"},
        "b": {"kind": "remote", "collect_directory": "/srv", "host": "-oProxyCommand=x"},
        "c": {"kind": "ftp", "collect_directory": "/srv"},
    }
    plan = {"handler": "stage", "options": {"peers": peers, "parallel": 0}}
    store = {"kind": "local", "path": str(tmp_path)}
    config.write_text(json.dumps({"state_dir": str(tmp_path), "stores": {"d": store}, "plans": {"web": plan}}))

    done = subprocess.run([HOLDFAST, "--config", config, "config", "check"], capture_output=True, text=True)

    assert done.returncode == 2
    for place in ("a.collect_directory", "a.links", "b.known_hosts", "peers.c", "options.parallel"):
        assert place in done.stderr + done.stdout, done.stderr
