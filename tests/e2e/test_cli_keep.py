"""`holdfast keep` and `release`, and what `list`, `show` and `verify` have to do with them."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.workshop import UNPRIVILEGED, Workshop, wait_for

TWO_STORES = """\
node: workshop
state_dir: {top}/state
stores:
  main: {{kind: local, path: {top}/store}}
  usb: {{kind: local, path: {top}/usb}}
plans:
  web: {{handler: tar, store: {store}, options: {{root: {top}/subject}}}}
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A full set and an increment of `web`, a set of `web.prod`; each test releases what it keeps."""
    workshop = Workshop(tmp_path_factory.mktemp("chain"))
    workshop.configure(f"  web.prod: {{handler: tar, options: {{root: {workshop.subject}}}}}\n")
    workshop.lines("backup", "web.prod")
    workshop.backup()
    workshop.backup()
    return workshop


@pytest.fixture
def workshop(tmp_path: Path, chain: Workshop) -> Workshop:
    """A place of its own, with a store like that of the chain, for tests that damage something."""
    made = Workshop(tmp_path)
    for backup_id in sets(chain):
        shutil.copytree(chain.store / "web" / backup_id, made.store / "web" / backup_id)
    return made


def sets(workshop: Workshop) -> list[str]:
    """The backup ids of plan `web`, oldest first."""
    return sorted(path.name for path in (workshop.store / "web").iterdir())


def notes(workshop: Workshop, kind: str) -> list[str]:
    """The notes of plan `web` that lie in the store."""
    return sorted(path.name for path in workshop.store.glob(f".holdfast/notes/web/{kind}/*") if path.name[0] != ".")


def test_a_kept_set_is_shown_as_kept_until_it_is_released(chain: Workshop) -> None:
    """By `list` and `show`, for people and for scripts; where nothing is kept there is no column for it."""
    _, increment = sets(chain)

    kept = chain.run("keep", increment, "--as", "before-upgrade", "--reason", "we \x1b[31mmay go back")
    listed, shown = chain.run("list", "web"), chain.run("show", increment)
    lines, (line,) = chain.lines("list", "web"), chain.lines("show", increment)
    released = chain.run("release", "before-upgrade")

    assert kept.returncode == 0, kept.stderr
    assert kept.stdout == f"kept: web/{increment} in main as before-upgrade, with the 1 set it builds on\n"
    head, first, second = listed.stdout.splitlines()
    assert head.endswith("  store  kept as")
    assert first.endswith("  main")
    assert second.endswith("  main   before-upgrade")
    assert [line["pins"] for line in lines] == [[], ["before-upgrade"]]
    assert "kept as" in shown.stdout
    assert "we \\x1b[31mmay go back" in shown.stdout
    (pin,) = line["pins"]
    assert (pin["pin"], pin["reason"]) == ("before-upgrade", "we \x1b[31mmay go back")
    assert pin["by"].endswith("@workshop")
    assert (released.returncode, released.stdout) == (0, "released: web/before-upgrade in main\n")
    assert "kept as" not in chain.run("list").stdout


def test_a_plan_means_its_newest_set(chain: Workshop) -> None:
    """And the answer for scripts says which sets are safe now."""
    full, increment = sets(chain)

    (line,) = chain.lines("keep", "web", "--as", "newest")
    (again,) = chain.lines("keep", increment, "--as", "newest", "--reason", "another")
    (released,) = chain.lines("release", "newest")

    assert (line["plan"], line["backup_id"], line["store"], line["pin"]) == ("web", increment, "main", "newest")
    assert line["chain"] == [full, increment]
    assert (line["already"], again["already"]) == (False, True)
    assert (again["reason"], again["kept"]) == (None, line["kept"])
    assert released == {"plan": "web", "pin": "newest", "store": "main"}


def test_a_name_keeps_one_set(chain: Workshop) -> None:
    """The conflict has the exit code 5, and names the other set and the way out."""
    full, increment = sets(chain)
    chain.lines("keep", full, "--as", "good")

    done = chain.run("keep", increment, "--as", "good")
    chain.lines("release", "good")

    assert (done.returncode, done.stdout) == (5, "")
    assert f"error: pin good of plan web keeps set {full}" in done.stderr
    assert "`holdfast release web/good`" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("keep", "web", "--as", "../x"), "'../x' is no name for a pin"),
        (("keep", "none", "--as", "good"), "no backup set 'none'"),
        (("keep", "web"), "missing option '--as'"),
        (("release", "none", "--plan", "web"), "there is no pin 'none' of plan web"),
        (("release", "../x"), "there is no pin 'x' of plan .."),
        (("release", "web/x", "--plan", "other"), "'web/x' is no pin of plan other"),
    ],
)
def test_what_cannot_be_meant_is_refused(chain: Workshop, arguments: tuple[str, ...], says: str) -> None:
    """With exit code 2, and nothing is changed."""
    done = chain.run(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {says}" in done.stderr
    assert notes(chain, "pins") == []


def test_a_name_that_two_plans_have_is_to_be_said_with_its_plan(chain: Workshop) -> None:
    """The candidates are named; `web` and `web.prod` do not touch each other."""
    for plan in ["web", "web.prod"]:
        chain.lines("keep", plan, "--as", "good")

    unclear = chain.run("release", "good")
    one = chain.run("release", "web/good")
    left = {line["plan"]: line["pins"] for line in chain.lines("list")}
    other = chain.run("release", "good", "--plan", "web.prod")

    assert unclear.returncode == 2
    assert "hint: say which: web/good, web.prod/good" in unclear.stderr
    assert one.stdout == "released: web/good in main\n"
    assert left == {"web": [], "web.prod": ["good"]}
    assert other.stdout == "released: web.prod/good in main\n"


def test_a_name_is_released_in_every_store(workshop: Workshop) -> None:
    """The plan has moved from one store to another, and is kept in both."""
    full, _ = sets(workshop)
    shutil.copytree(workshop.store / "web" / full, workshop.top / "usb" / "web" / full)
    for store in ["main", "usb"]:
        workshop.config.write_text(TWO_STORES.format(top=workshop.top, store=store))
        (line,) = workshop.lines("keep", f"web/{full}", "--as", "good")
        assert line["store"] == store

    released = workshop.lines("release", "good")

    assert [line["store"] for line in released] == ["main", "usb"]


def test_pins_and_verifications_need_no_journal(workshop: Workshop) -> None:
    """They are in the store."""
    workshop.lines("keep", "web", "--as", "good")
    workshop.lines("verify", "web")

    (line,) = workshop.lines("show", "web")

    assert not (workshop.top / "state").exists()
    assert [pin["pin"] for pin in line["pins"]] == ["good"]
    assert line["verified"]["depth"] == "checksums"


def test_a_damaged_pin_is_told_until_it_is_released(workshop: Workshop) -> None:
    """What is stored is listed and shown all the same; the exit code is 6."""
    workshop.lines("keep", "web", "--as", "good")
    (note,) = workshop.store.glob(".holdfast/notes/web/pins/good")
    note.chmod(0o600)
    note.write_text("{")

    listed, shown = workshop.run("list"), workshop.run("show", "web")
    released, after = workshop.run("release", "good"), workshop.run("list")

    assert (listed.returncode, shown.returncode) == (6, 6)
    assert all("web" in done.stdout for done in [listed, shown])
    for done in [listed, shown]:
        assert "error: pin good of plan web in store main is damaged" in done.stderr
    assert (released.returncode, after.returncode) == (0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_keep_waits_for_an_expiry_and_leaves_nothing_when_it_is_stopped(workshop: Workshop, number: int) -> None:
    """An expiry that was killed left its note; nobody knows whether the set stays."""
    full, _ = sets(workshop)
    expiring = workshop.store / ".holdfast" / "notes" / "web" / "expiring"
    expiring.mkdir(parents=True, exist_ok=True)
    (expiring / full).write_text("me\n")

    waiting = workshop.start("keep", "web", "--as", "good")
    wait_for(lambda: notes(workshop, "pins") or waiting.poll() is not None)
    waiting.send_signal(number)

    assert waiting.wait(20) == 130
    assert notes(workshop, "pins") == []


def test_verify_remembers_what_it_found(workshop: Workshop) -> None:
    """How deep and when; and forgets what proved wrong."""
    full, _ = sets(workshop)
    workshop.lines("verify", full, "--deep")
    (deep,) = workshop.lines("show", full)
    shown = workshop.run("show", full)
    (part,) = (workshop.store / "web" / full).glob("data.tar*")
    part.chmod(0o600)
    part.write_bytes(b"damaged")

    workshop.lines("verify", full, expect=6)
    (damaged,) = workshop.lines("show", full, expect=6)

    assert deep["verified"]["depth"] == "deep"
    assert re.search(r"^  verified +deep, 20\d\d-", shown.stdout, re.MULTILINE)
    assert damaged["verified"] is None
    assert notes(workshop, "verified") == []


def test_a_store_that_cannot_be_written_to_is_verified_all_the_same(workshop: Workshop) -> None:
    """With a warning: retention does not know of it."""
    workshop.store.chmod(0o500)

    done = workshop.run("verify", "web", prefix=UNPRIVILEGED)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok: web/")
    assert "WARNING: verified_not_noted" in done.stderr
