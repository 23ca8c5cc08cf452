"""What goes wrong with CedarBackup3 (each was reproduced with 3.7.4 and 3.12.0) goes right here: one peer or several.

Faults that have their test elsewhere are listed with it in `docs/migrating/cedar-backup3.md`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.workshop import Workshop
from tests.services.sshd import Sshd
from tests.workshop.another_user import NOBODY, needs_another_user, open_directory
from tests.workshop.staged import Peer, local_peer, remote_peer, staged


class Pool(Workshop):
    """Collect directories of this machine, a plan `pool` that stages them."""

    @property
    def done(self) -> Path:
        """What says that a whole run is done: the master's indicator."""
        return self.top / "pool.done"

    def collect(self, peer: str, files: Mapping[str, str]) -> Path:
        """A peer has collected these files, and signals; its collect directory."""
        directory = self.top / "collect" / peer
        for name, content in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(content)
        directory.mkdir(parents=True, exist_ok=True)
        signal(directory)
        return directory

    def stage(self, *peers: str, retention: object = None, **more: object) -> None:
        """Configure the plan with directories below `collect`; `more` goes for each of them."""
        self.plan({name: local_peer(self.top / "collect" / name, **more) for name in peers}, retention=retention)

    def plan(self, peers: Mapping[str, Peer], *, retention: object = None, **options: object) -> None:
        """Configure the plan."""
        plan = {
            "handler": "stage",
            "retention": retention or {},
            "options": {"peers": peers, "done_indicator": str(self.done), **options},
        }
        self.configure(f"  pool: {orjson.dumps(plan).decode()}\n")

    def outcome(self, expect: int = 0) -> dict[str, Any]:
        """Run the plan; its outcome."""
        return self.lines("backup", "pool", expect=expect)[-1]

    def newest(self) -> Path:
        """The newest set."""
        return max(self.sets(), key=lambda path: (path / "manifest.json").stat().st_mtime_ns)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A place of its own for each test."""
    return Pool(tmp_path)


def signal(directory: Path) -> None:
    """As CedarBackup3 does at the end of `collect`; a moment later than whatever was there before."""
    indicator = directory / "cback.collect"
    indicator.write_bytes(b"")
    later = max(path.stat(follow_symlinks=False).st_mtime_ns for path in directory.iterdir()) + 1_000_000
    os.utime(indicator, ns=(later, later))


def contents(files: Mapping[str, Path]) -> dict[str, str]:
    """By name, what is in each."""
    return {name: path.read_text() for name, path in files.items()}


def problems(outcome: Mapping[str, Any]) -> set[str]:
    """The names that an outcome tells."""
    return {problem["path"] for problem in outcome["problems"]}


def test_a_run_in_which_no_peer_is_ready_is_no_success(pool: Pool) -> None:
    """Cedar wrote its own `cback.stage`, said that all went well and ended with 0; an empty day was stored."""
    pool.stage("web01", "web02")
    for name in ("web01", "web02"):
        (pool.collect(name, {"dump.sql": "data"}) / "cback.collect").unlink()

    outcome = pool.outcome(expect=1)

    assert outcome["outcome"] == "failed"
    assert "web01" in outcome["error"]
    assert pool.sets() == []
    assert not pool.done.exists()
    assert list(pool.top.glob("collect/*/cback.stage")) == []


def test_a_run_without_one_required_peer_is_told_apart_from_a_whole_one(pool: Pool) -> None:
    """Cedar marked the day as staged whoever was missing. What a ready peer has is staged, and it is told."""
    pool.stage("web01", "web02")
    ready, late = (pool.collect(name, {"dump.sql": name}) for name in ("web01", "web02"))
    (late / "cback.collect").unlink()

    outcome = pool.outcome(expect=3)

    assert outcome["outcome"] == "partial"
    assert contents(staged(pool.newest(), "web01")) == {"dump.sql": "web01"}
    assert (ready / "cback.stage").exists()
    assert not (late / "cback.stage").exists()
    assert not pool.done.exists()

    signal(late)
    signal(ready)
    assert pool.outcome()["outcome"] == "succeeded"
    assert contents(staged(pool.newest(), "web02")) == {"dump.sql": "web02"}
    assert pool.done.read_text().split() == [f"pool/{pool.newest().name}"]


def test_a_directory_with_nothing_but_an_indicator_is_a_failure(pool: Pool) -> None:
    """Cedar staged "1 file", the indicator itself, and called it a success."""
    pool.stage("web01")
    directory = pool.collect("web01", {})

    outcome = pool.outcome(expect=1)

    assert "web01" in outcome["error"]
    assert pool.sets() == []
    assert not (directory / "cback.stage").exists()


def test_directories_are_staged_and_whatever_is_no_file_is_named(pool: Pool) -> None:
    """Cedar left a peer half staged at the first directory or link it met, and marked the day as staged."""
    pool.stage("web01", "web02")
    directory = pool.collect("web01", {"a": "1", "below/b": "2", "z": "3"})
    (directory / "dangling").symlink_to("nowhere")
    os.mkfifo(directory / "fifo")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(directory):
        listener.bind("socket")  # its path may be 107 bytes long, not more
    pool.collect("web02", {"c": "4"})

    outcome = pool.outcome(expect=3)

    assert contents(staged(pool.newest(), "web01")) == {"a": "1", "below/b": "2", "z": "3"}
    assert contents(staged(pool.newest(), "web02")) == {"c": "4"}
    assert problems(outcome) == {f"peers/web01/{name}" for name in ("dangling", "fifo", "socket")}
    assert not pool.done.exists()


def test_each_run_stages_what_is_there_then_and_nothing_twice(pool: Pool) -> None:
    """Cedar staged the same again on the same day, kept what was gone at the peer, and copied its own indicators."""
    pool.stage("web01")
    directory = pool.collect("web01", {"gone.sql": "monday", "stays.sql": "monday"})
    pool.outcome()
    assert contents(staged(pool.newest(), "web01")) == {"gone.sql": "monday", "stays.sql": "monday"}
    assert (directory / "cback.stage").exists()

    nothing_new = pool.outcome()
    assert "nothing new" in nothing_new["warnings"][0]
    assert len(pool.sets()) == 1

    (directory / "gone.sql").unlink()
    (directory / "stays.sql").write_text("tuesday")
    signal(directory)
    pool.outcome()

    assert len(pool.sets()) == 2
    assert contents(staged(pool.newest(), "web01")) == {"stays.sql": "tuesday"}


def test_names_that_differ_in_a_slash_stay_apart(pool: Pool) -> None:
    """Cedar made `opt-a-b.tar` of both: the last one won."""
    for name, content in {"opt/a/b": "slash", "opt/a-b": "dash"}.items():
        (pool.subject / name).mkdir(parents=True)
        (pool.subject / name / "file").write_text(content)
    plan = {"handler": "tar", "options": {"root": str(pool.subject), "include": ["opt/a/b", "opt/a-b"]}}
    pool.configure(f"  collect: {orjson.dumps(plan).decode()}\n")
    pool.lines("backup", "collect")
    target = pool.top / "restored"

    assert pool.run("restore", "collect", str(target)).returncode == 0
    assert (target / "opt/a/b/file").read_text() == "slash"
    assert (target / "opt/a-b/file").read_text() == "dash"


def test_expiry_goes_by_the_age_of_a_set_whatever_is_in_it(pool: Pool) -> None:
    """Cedar removed young links and young empty directories, never dangling links, and kept what somebody had read."""
    pool.stage("web01", links="keep", retention={"within_days": 7})
    directory = pool.collect("web01", {"dump.sql": "data"})
    (directory / "link").symlink_to("dump.sql")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "empty").mkdir()
    for _ in range(2):
        pool.outcome()
        signal(directory)
    before = everything(pool.store)

    assert pool.run("expire", "pool").returncode == 0
    assert everything(pool.store) == before

    older, newer = sorted(pool.sets(), key=lambda path: (path / "manifest.json").stat().st_mtime_ns)
    for path in older.rglob("*"):
        if path.is_file():
            path.read_bytes()
            os.utime(path, ns=(path.stat().st_mtime_ns + 10**12, path.stat().st_mtime_ns))
    pool.stage("web01", links="keep", retention={"latest": 1})
    assert pool.run("expire", "pool").returncode == 0
    assert pool.sets() == [newer]
    assert not older.exists()


def everything(top: Path) -> set[str]:
    """All names below a directory but those that come and go with a command."""
    return {str(path.relative_to(top)) for path in top.rglob("*") if ".holdfast" not in path.parts}


@needs_another_user
def test_ssh_runs_as_another_user_with_no_command_configured(pool: Pool, sshd: Sshd) -> None:
    """Cedar ran the program `None` as the local user where the copy command was left to its default."""
    with open_directory() as theirs:
        for file in (sshd.key, sshd.known_hosts):
            shutil.copy(file, theirs)
        os.chown(theirs / sshd.key.name, NOBODY, NOBODY)
        mine = {"identity_file": str(theirs / sshd.key.name), "known_hosts": str(theirs / sshd.known_hosts.name)}
        directory = pool.collect("web 01", {"dump.sql": "data", ".hidden": "too"})
        pool.plan({"web01": remote_peer(directory, sshd, user="root", local_user="nobody", **mine)})

        pool.outcome()

    assert contents(staged(pool.newest(), "web01")) == {"dump.sql": "data", ".hidden": "too"}
    assert (directory / "cback.stage").exists()


def test_an_action_is_words_and_a_failing_one_is_told(pool: Pool, sshd: Sshd) -> None:
    """Cedar put it between quotes into a shell's command line, and ended with 0 whatever became of it."""
    directory = pool.collect("web01", {})
    words = {"command": ["printf", "%s|", "it's", "$(touch pwned)", "; touch pwned", "{full}"]}
    pool.plan(
        {"web01": remote_peer(directory, sshd, managed=True)},
        managed_actions={"say": words, "break": {"command": ["sh", "-c", "echo no >&2; exit 9"]}},
    )

    no_name = pool.run("manage", "pool", "say'; touch pwned; '")
    not_allowed = pool.run("manage", "pool", "purge")
    (said,) = pool.lines("manage", "pool", "say", "--full")[-1]["actions"]
    (broken,) = pool.lines("manage", "pool", "break", expect=1)[-1]["actions"]

    assert (no_name.returncode, not_allowed.returncode) == (2, 4)
    assert (said["exit_code"], said["output"]) == (0, "it's|$(touch pwned)|; touch pwned|--full|")
    assert (broken["exit_code"], broken["output"].strip()) == (9, "no")
    assert not (Path.home() / "pwned").exists()
    assert not Path("pwned").exists()
