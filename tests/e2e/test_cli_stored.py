"""`holdfast list`, `show`, `restore` and `verify`: what is stored, and back again."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.workshop import Workshop, wait_for
from tests.workshop.histories import made
from tests.workshop.stocked import stock
from worker.stores.local import LocalStore


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A full set and an increment, for tests that only read."""
    workshop = Workshop(tmp_path_factory.mktemp("chain"))
    workshop.backup("--reason", "the \x1b[31mfirst", "--label", "run=1")
    (workshop.subject / "index.html").write_text("<h1>hello again</h1>\n")
    (workshop.subject / "docs" / "page.txt").unlink()
    (workshop.subject / "new").write_text("added\n")
    workshop.backup()
    return workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """A place of its own for each test that damages something."""
    return Workshop(tmp_path)


def test_the_list_shows_what_builds_on_what(chain: Workshop) -> None:
    """The increment is drawn below its parent."""
    done = chain.run("list")

    first, second = chain.lines("list")
    head, full, increment = done.stdout.splitlines()
    assert head.split() == ["plan", "set", "level", "when", "files", "size", "outcome", "store"]
    assert full.split()[:3] == ["web", first["backup_id"], "0"]
    assert increment.split()[:4] == ["web", "└", second["backup_id"], "1"]
    assert second["parent"] == first["backup_id"]


def test_an_empty_store_says_so(workshop: Workshop) -> None:
    """Nothing on standard output, nothing wrong."""
    done = workshop.run("list", "web")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no backups yet\n")


def test_a_store_that_is_missing_is_not_an_empty_one(workshop: Workshop) -> None:
    """An unmounted disk must not look like no backups."""
    workshop.store.rmdir()

    done = workshop.run("list")

    assert done.returncode == 7
    assert str(workshop.store) in done.stderr


def test_a_damaged_manifest_is_listed_as_damaged(workshop: Workshop) -> None:
    """The others are listed all the same; the exit code is 6."""
    good, bad = workshop.backup(), workshop.backup("--level", "full")
    manifest = workshop.store / "web" / bad / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{")

    done = workshop.run("list")
    lines = workshop.lines("list", expect=6)

    assert done.returncode == 6
    assert {(line["backup_id"], line["outcome"]) for line in lines} == {(good, "succeeded"), (bad, "damaged")}
    assert "damaged" in done.stdout
    assert f"error: manifest.json of set web/{bad}" in done.stderr


def test_a_set_is_shown_with_its_chain(chain: Workshop) -> None:
    """A plan means its newest set."""
    full, increment = chain.lines("list")

    done = chain.run("show", "web")
    (line,) = chain.lines("show", increment["backup_id"])

    assert done.returncode == 0
    assert f"{increment['backup_id']}  succeeded" in done.stdout
    assert full["backup_id"] in done.stdout
    assert "RESTORE.md" in done.stdout
    assert line["chain"] == [full["backup_id"], increment["backup_id"]]
    assert Path(line["path"], "manifest.json").is_file()


def test_nothing_a_message_says_reaches_the_terminal_raw(chain: Workshop) -> None:
    """A reason with an escape sequence is shown, not obeyed."""
    full = chain.lines("list")[0]["backup_id"]

    done = chain.run("show", full)

    assert "the \\x1b[31mfirst" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_start_of_an_id_is_enough(chain: Workshop) -> None:
    """Where it fits one set alone; otherwise those that fit are named."""
    full = chain.lines("list")[0]["backup_id"]

    one = chain.run("show", full[:-3])
    several = chain.run("show", full[:4])

    assert one.returncode == 0
    assert several.returncode == 2
    assert "hint: say which: " in several.stderr


def test_a_chain_comes_back_as_it_was(chain: Workshop, tmp_path: Path) -> None:
    """Changed, deleted and added files included."""
    target = tmp_path / "back"

    done = chain.run("restore", "web", str(target))

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("restored: ")
    assert "2 sets (levels 0 to 1)" in done.stdout
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", str(chain.subject), str(target)], capture_output=True, text=True
    )
    assert (compared.returncode, compared.stdout) == (0, "")


def test_the_older_set_comes_back_too(chain: Workshop, tmp_path: Path) -> None:
    """A set is a state, whatever came after it."""
    full = chain.lines("list")[0]["backup_id"]

    (line,) = chain.lines("restore", full, str(tmp_path / "back"))

    assert (tmp_path / "back" / "index.html").read_text() == "<h1>hello</h1>\n"
    assert line["chain"] == [full]


def test_single_paths_come_back_alone(chain: Workshop, tmp_path: Path) -> None:
    """Only what was asked for."""
    target = tmp_path / "one"

    done = chain.run("restore", "web", str(target), "--path", "index.html")

    assert done.returncode == 0, done.stderr
    assert [path.name for path in target.rglob("*")] == ["index.html"]


def test_names_that_are_no_utf8_can_be_asked_for(workshop: Workshop, tmp_path: Path) -> None:
    """The shell's bytes are the index's bytes."""
    name = os.fsdecode(b"caf\xe9")
    (workshop.subject / name).write_text("latin\n")
    workshop.backup()

    done = workshop.run("restore", "web", str(tmp_path / "one"), "--path", name)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / name).read_text() == "latin\n"


def test_a_path_that_is_not_in_the_set_is_an_error(chain: Workshop, tmp_path: Path) -> None:
    """Named, and the target is as it was."""
    done = chain.run("restore", "web", str(tmp_path / "one"), "--path", "nonsense")

    assert done.returncode in {1, 2}
    assert "nonsense" in done.stderr
    assert not (tmp_path / "one").exists()


def test_a_target_that_is_not_empty_is_refused(chain: Workshop) -> None:
    """Nothing is ever overwritten."""
    done = chain.run("restore", "web", str(chain.subject))

    assert done.returncode == 2
    assert "is not empty" in done.stderr


def test_the_plan_of_a_restore_reads_nothing(chain: Workshop, tmp_path: Path) -> None:
    """The chain with its parts and sizes."""
    full, increment = (line["backup_id"] for line in chain.lines("list"))

    done = chain.run("restore", "web", str(tmp_path / "back"), "--plan")
    (line,) = chain.lines("restore", "web", str(tmp_path / "back"), "--plan")

    assert done.returncode == 0
    assert "nothing was restored" in done.stdout
    assert [link["backup_id"] for link in line["chain"]] == [full, increment]
    assert line["bytes_at_most"] == sum(part["bytes"] for link in line["chain"] for part in link["parts"])
    assert not (tmp_path / "back").exists()


def test_what_is_whole_verifies(chain: Workshop) -> None:
    """One set, deep, or all of them."""
    one = chain.run("verify", "web")
    deep = chain.run("verify", "web", "--deep")
    every = chain.lines("verify", "web", "--all")

    assert (one.returncode, deep.returncode) == (0, 0), one.stderr + deep.stderr
    assert "every checksum agrees" in one.stdout
    assert "restored on trial, no difference" in deep.stdout
    assert [line["verdict"] for line in every] == ["ok", "ok"]
    assert list((chain.top / "state" / "scratch").iterdir()) == []


def test_damage_is_found_and_the_rest_is_verified_all_the_same(workshop: Workshop) -> None:
    """One byte is enough; the worst verdict is the exit code."""
    bad, good = workshop.backup(), workshop.backup("--level", "full")
    (part,) = (workshop.store / "web" / bad).glob("data.tar*")
    part.chmod(0o600)
    with part.open("r+b") as stream:
        stream.seek(100)
        byte = stream.read(1)
        stream.seek(100)
        stream.write(bytes([byte[0] ^ 1]))

    done = workshop.run("verify", bad)
    lines = workshop.lines("verify", "web", "--all", expect=6)

    assert done.returncode == 6
    assert f"error: part {part.name} of set web/{bad}" in done.stderr
    assert {line["backup_id"]: line["verdict"] for line in lines} == {bad: "damaged", good: "ok"}


def test_a_missing_parent_is_told(workshop: Workshop, tmp_path: Path) -> None:
    """List, show and restore say which set is missing."""
    full = workshop.backup()
    workshop.backup()
    (workshop.store / "web" / full).rename(workshop.top / "lost")

    listed, shown = workshop.run("list"), workshop.run("show", "web")
    restored = workshop.run("restore", "web", str(tmp_path / "back"))

    assert "1, parent missing" in listed.stdout
    assert (shown.returncode, restored.returncode) == (6, 6)
    assert full in restored.stderr
    assert not (tmp_path / "back").exists()


def test_a_list_that_nobody_reads_is_quiet(chain: Workshop) -> None:
    """`holdfast list | head -1` with a head that is quicker."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(chain.command("list"), stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_killed_trial_restore_left_is_removed_by_the_next_worker(workshop: Workshop) -> None:
    """What another one is restoring just then is left alone."""
    (workshop.subject / "block").write_bytes(os.urandom(64 << 20))
    workshop.backup()
    scratch = workshop.top / "state" / "scratch"

    def trials() -> list[Path]:
        return [path for path in scratch.glob(".verify-*") if (path / "restored" / "block").exists()]

    killed = workshop.start("verify", "web", "--deep")
    wait_for(lambda: trials() or killed.poll() is not None)
    killed.kill()
    killed.wait(20)
    (dead,) = trials()
    living = workshop.start("verify", "web", "--deep")
    wait_for(lambda: len(trials()) == 2 or living.poll() is not None)
    os.kill(living.pid, signal.SIGSTOP)

    workshop.start_worker()

    wait_for(lambda: not dead.exists())
    assert len(trials()) == 1
    os.kill(living.pid, signal.SIGCONT)
    assert living.wait(60) == 0
    assert list(scratch.glob(".verify-*")) == []
    workshop.close()


def test_a_store_that_is_away_hides_no_other(workshop: Workshop) -> None:
    """What the others have is listed; the exit code and the error tell of the one that nobody can look at."""
    made = workshop.backup()
    away = workshop.top / "away"
    text = workshop.config.read_text().replace("\nplans:", f"\n  far: {{kind: local, path: {away}}}\nplans:")
    workshop.config.write_text(text.replace("    handler: tar", "    handler: tar\n    store: main"))

    done = workshop.run("list")
    orphans = workshop.run("list", "--orphans")

    assert done.returncode == 7
    assert made in done.stdout
    assert str(away) in done.stderr
    assert [each["backup_id"] for each in workshop.lines("list", expect=7)] == [made]
    assert orphans.returncode == 7
    assert str(away) in orphans.stderr
    assert "no orphans" not in orphans.stderr


def test_a_set_is_shown_although_its_parent_is_damaged(workshop: Workshop) -> None:
    """What its own manifest says can be read all the same."""
    workshop.backup()
    level_1 = workshop.backup()
    parent = next(path for path in workshop.sets() if path.name != level_1)
    (parent / "manifest.json").chmod(0o600)
    (parent / "manifest.json").write_text("{")

    done = workshop.run("show", level_1)

    assert done.returncode == 6
    assert "after level 0" in done.stdout
    assert parent.name in done.stderr


def test_a_long_history_is_listed_and_so_is_what_builds_on_itself(workshop: Workshop) -> None:
    """Drawing the chains takes no longer for each set the more there are."""
    store = LocalStore("main", workshop.store)
    stock(store, *(made(f"c{n}", n % 100, f"c{n - 1}" if n % 100 else None) for n in range(1000)))
    stock(store, made("x1", 1, "x2"), made("x2", 1, "x1"))

    done = workshop.run("list", "web")

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1 + 1000 + 2
    assert " x1 " in done.stdout
