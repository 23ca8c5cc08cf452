"""Looks at what workers left behind, with coreutils, tar and sqlite3 alone.

Nothing here uses the product's code: a mistake there must not be repeated here.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMALL_FILES = {"manifest.json", "SHA256SUMS", "RESTORE.md"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One file of a tree, as far as a backup must bring it back."""

    mode: int
    owner: tuple[int, int]
    changed_ns: int
    """Of regular files and links; a directory's own is that of its last entry."""
    content: str
    """SHA-256, the target of a link, or nothing for a directory."""


Tree = Mapping[str, Node]


def tree(root: Path) -> Tree:
    """Everything below a directory, by relative path."""
    found: dict[str, Node] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            facts = path.lstat()
            if stat.S_ISLNK(facts.st_mode):
                content = str(path.readlink())
            elif stat.S_ISREG(facts.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                content = ""
            found[str(path.relative_to(root))] = Node(
                mode=facts.st_mode,
                owner=(facts.st_uid, facts.st_gid),
                changed_ns=0 if stat.S_ISDIR(facts.st_mode) else facts.st_mtime_ns,
                content=content,
            )
    return found


def differences(expected: Tree, found: Tree) -> list[str]:
    """What is not the same, in words; nothing where the trees are equal."""
    missing = [f"missing: {name}" for name in sorted(expected.keys() - found.keys())]
    strange = [f"should not be there: {name}" for name in sorted(found.keys() - expected.keys())]
    other = [
        f"{name}: {found[name]} instead of {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    return [*missing, *strange, *other]


def committed(store: Path) -> Mapping[str, Path]:
    """The sets, by `plan/backup_id`; fails where anything else can be seen, or a set is not whole."""
    found: dict[str, Path] = {}
    for plan in store.iterdir():
        if plan.name == ".holdfast":
            continue
        for place in plan.iterdir():
            assert (place / "manifest.json").is_file(), f"{place} is visible, and no set"
            parts = {part["name"] for part in manifest(place)["parts"]}
            trees = {tree["name"] for tree in manifest(place)["trees"]}
            assert {path.name for path in place.iterdir()} == parts | trees | SMALL_FILES
            _require_sums(place, parts)
            for name in trees:
                _run("sh", "-c", f"zstd -dc {name}.sha256.zst | sha256sum --check --quiet", cwd=place)
            found[f"{plan.name}/{place.name}"] = place
    return found


def manifest(place: Path) -> dict[str, Any]:
    """What the set says of itself."""
    document: dict[str, Any] = json.loads((place / "manifest.json").read_bytes())
    return document


def restored(place: Path, target: Path) -> Tree:
    """The tree of a set and all it builds on, brought back below an empty directory by tar; or by cp, of one peer."""
    if manifest(place)["trees"]:
        (peer,) = (place / "peers").iterdir()
        _run("cp", "--archive", str(peer), str(target))
        return tree(target)
    chain = [place]
    while (parent := manifest(chain[0])["parent"]) is not None:
        chain.insert(0, place.parent / parent)
    assert [manifest(level)["level"] for level in chain] == list(range(len(chain)))
    target.mkdir()
    for level in chain:
        (archive,) = level.glob("data.tar*")
        _run("tar", "--extract", "--listed-incremental=/dev/null", f"--file={archive}", f"--directory={target}")
    return tree(target)


def leftovers(store: Path, state: Path) -> list[Path]:
    """What lies about and belongs to no committed set: drafts, leases, scratch, what was on its way out."""
    hidden = store / ".holdfast"
    files = (path for path in hidden.rglob("*") if path.is_file() and not _has_its_place(path, store))
    own = [*hidden.glob("drafts/*"), *hidden.glob("expired/*"), *files]
    scratch = [*(state / "scratch").iterdir()] if (state / "scratch").exists() else []
    half_events = [path for path in (state / "spool" / "events").glob(".*") if path.is_file()]
    return [*own, *scratch, *half_events]


def _has_its_place(path: Path, store: Path) -> bool:
    """Whether this is a note about a set that is there, or the lock of a directory of notes."""
    if path.parents[2] != store / ".holdfast" / "notes":
        return False
    plan, kind, name = path.parts[-3:]
    return name == ".lock" or (kind == "verified" and (store / plan / name / "manifest.json").is_file())


def processes(place: Path) -> list[str]:
    """The processes that have to do with a directory: by arguments, working directory or environment."""
    needle = os.fsencode(place)
    found = []
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit() or int(directory.name) == os.getpid():
            continue
        try:
            arguments = (directory / "cmdline").read_bytes()
            words = arguments + (directory / "environ").read_bytes() + os.fsencode((directory / "cwd").readlink())
        except OSError:
            continue  # it is gone, or a zombie, or somebody else's
        if needle in words:
            found.append(f"{directory.name}: {arguments.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One line of a journal."""

    plan: str
    state: str
    attempt: int


def journal(state: Path) -> Mapping[str, Request]:
    """The requests that a worker knows, by id."""
    return {
        request_id: Request(plan=plan, state=moved, attempt=attempt)
        for request_id, plan, moved, attempt in _rows(state, "SELECT request_id, plan, state, attempt FROM requests")
    }


def unsent(state: Path) -> int:
    """Events that nobody took yet."""
    return int(_rows(state, "SELECT count(*) FROM outbox")[0][0])


def events(spool: Path) -> list[dict[str, Any]]:
    """The events in a spool, oldest first."""
    return [json.loads(path.read_bytes()) for path in sorted((spool / "events").glob("*.json"))]


Outcomes = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By request: the data of its outcomes, by the event's id."""


def outcomes(found: Sequence[Mapping[str, Any]]) -> Outcomes:
    """The events that end requests; fails where an id was used for two different events."""
    sorted_out: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for event in found:
        data = event["data"]
        if data["outcome"] in {"started", "progress"}:
            continue
        mine = sorted_out[data.get("request_id", "")]
        assert mine.get(event["id"], data) == data, f"two events have the id {event['id']}"
        mine[event["id"]] = data
    return sorted_out


def waiting(spool: Path) -> list[str]:
    """Requests in a spool that are not settled."""
    places = [*(spool / "tmp").glob("*"), *(spool / "new").glob("*"), *(spool / "cur").glob("*/[!.]*")]
    return [str(path.relative_to(spool)) for path in places]


def _rows(state: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(state / "journal.sqlite3", timeout=20)) as database:
        return database.execute(query).fetchall()


def _require_sums(place: Path, parts: set[str]) -> None:
    listed = {line.split(maxsplit=1)[1] for line in (place / "SHA256SUMS").read_text().splitlines()}
    assert listed == parts
    _run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=place)


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stderr}"
