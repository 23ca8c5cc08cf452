"""Brings back a chain in every way there is, and tells where one does not give what the other gives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path

from handlers.contents import Contents, Entry, EntryType
from handlers.contract import SetReader
from handlers.errors import PermanentError
from handlers.tar_level import TarHandler
from tests.workshop.comparer import Photograph, below, differences, photograph
from tests.workshop.tar_sets import Quiet

_LETTERS = {
    EntryType.FILE: "-",
    EntryType.DIRECTORY: "d",
    EntryType.SYMLINK: "l",
    EntryType.FIFO: "p",
    EntryType.BLOCK_DEVICE: "b",
    EntryType.CHARACTER_DEVICE: "c",
}


def restored(chain: Sequence[SetReader], target: Path, *paths: bytes) -> Photograph:
    """What the handler brings back, of everything or of these paths."""
    target.mkdir()
    TarHandler().restore(chain, target, paths, Quiet())
    return photograph(target)


def disagreements(chain: Sequence[SetReader], place: Path, paths: Iterable[bytes]) -> Iterator[str]:
    """Where the whole chain gives something else than its contents, all its paths at once, or these paths alone.

    Of those that the whole chain does not have nothing may come back.
    """
    whole = restored(chain, place / "whole")
    contents = TarHandler().contents(chain, lambda: None)
    yield from _of_contents(contents, whole, place / "whole")
    # Directories above the plan's names are in no set: they are made as it comes.
    made = {entry.path for entry in contents.walk(b".") if entry.missing is None and entry.mode is None}
    inside = {path: facts for path, facts in whole.items() if path != b"."}
    if inside:
        together = restored(chain, place / "together", *inside)
        yield from (
            f"together: {one}"
            for one in differences(inside, {**together, b".": whole[b"."]})
            if one.path not in made | {b"."}
        )
    for number, path in enumerate(paths):
        if path in whole:
            yield from _of_path(chain, place / f"path {number}", path, whole, made)
            continue
        with suppress(PermanentError):
            yield f"{path!r} came back although it is gone: {sorted(restored(chain, place / f'gone {number}', path))}"
        entry = contents.look(path)
        if entry is not None and entry[0].missing is None:
            yield f"{path!r} is shown although it is gone"


def _of_path(
    chain: Sequence[SetReader], target: Path, path: bytes, whole: Photograph, made: Set[bytes]
) -> Iterator[str]:
    alone = restored(chain, target, path)
    found = differences(below(whole, path), below(alone, path))
    yield from (f"alone {path!r}: {one}" for one in found if one.path not in made)
    above = {path[:end] for end in range(len(path)) if path[end : end + 1] == b"/"}
    if extra := alone.keys() - {b"."} - above - below(whole, path).keys():
        yield f"alone {path!r} brings {sorted(extra)}"
    for upper in above - made:
        yield from (
            f"above {path!r}: {one}"
            for one in differences({upper: whole[upper]}, {upper: alone[upper]}, without=frozenset({"shares"}))
        )


def _of_contents(contents: Contents, whole: Photograph, tree: Path) -> Iterator[str]:
    walked = {entry.path: entry for entry in contents.walk(b".")}
    held = {path for path, entry in walked.items() if entry.missing is None}
    if held != whole.keys() - {b"."}:
        yield f"contents lack {sorted(whole.keys() - {b'.'} - held)}, and have besides {sorted(held - whole.keys())}"
    inside: dict[bytes, list[bytes]] = {}
    for path in walked:
        inside.setdefault(path.rpartition(b"/")[0] or b".", []).append(path)
    for path in sorted(held & whole.keys()):
        entry = walked[path]
        yield from _of_entry(contents, entry, whole, tree)
        found = contents.look(path)
        if found is None or found[0] != entry:
            yield f"look and walk do not agree on {path!r}: {found and found[0]}, {entry}"
        elif (names := [each.path for each in found[1]]) != sorted(inside.get(path, [])):
            yield f"look has {names} in {path!r}, not {sorted(inside.get(path, []))}"
        elif entry.type is EntryType.DIRECTORY:
            below_it = [each for each in walked.values() if each.path.startswith(path + b"/")]
            if list(contents.walk(path)) != below_it:
                yield f"walk of {path!r} is not that part of the whole walk"
    for path in walked.keys() - held:
        found = contents.look(path)
        if found is None or found[0] != walked[path]:
            yield f"look and walk do not agree on {path!r}, which no set has"


def _of_entry(contents: Contents, entry: Entry, whole: Photograph, tree: Path) -> Iterator[str]:
    facts = whole[entry.path]
    if entry.mode is None:
        return
    shown = (_LETTERS[entry.type], entry.mode, entry.uid, entry.gid, entry.target, entry.device, entry.size)
    there = (facts.type, facts.mode, facts.uid, facts.gid, facts.target, facts.device, facts.size or 0)
    if shown != there:
        yield f"{entry.path!r} is shown as {shown}, and is {there}"
    if abs(entry.mtime_ns or 0) != abs(facts.mtime_ns):  # GNU tar's listing has no sign close to 1970
        yield f"{entry.path!r} is shown with time {entry.mtime_ns}, and has {facts.mtime_ns}"
    if facts.type == "-" and b"".join(contents.read(entry)) != (tree / os.fsdecode(entry.path)).read_bytes():
        yield f"{entry.path!r} is shown with another content"
