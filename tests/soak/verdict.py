"""Compares what is there in the end with what was asked, by plain tools and the models alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.soak.asking import Asked, Kind
from tests.soak.subject import Subject
from tests.workshop import checker

GOOD = {"succeeded", "partial"}
ENDS = {*GOOD, "failed"}
CONFLICT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where everything is."""

    store: Path
    places: Sequence[Path]
    """One for each worker."""
    subjects: Mapping[str, Subject]
    scratch: Path


def outcomes(scene: Scene) -> checker.Outcomes:
    """What all workers told, from their spools."""
    return checker.outcomes([event for place in scene.places for event in checker.events(place / "state" / "spool")])


def of_requests(asked: Mapping[str, Asked], scene: Scene) -> Iterator[str]:
    """What is wrong with the outcomes."""
    told = outcomes(scene)
    for request in asked.values():
        found = told.get(request.request_id, {})
        ends = [data for data in found.values() if data["outcome"] in ENDS]
        words = sorted(data["outcome"] for data in found.values())
        match request.kind:
            case Kind.INVALID:
                if request.accepted and (not found or set(words) != {"refused"}):
                    yield f"{request.request_id}: not simply refused: {words}"
                continue
            case Kind.VERIFY:
                # A verify leaves no trace in the store: two workers who get it both do it, and both say so.
                most = len(scene.places)
            case Kind.BACKUP:
                most = 1
        if len(ends) > most or (request.accepted and not ends):
            yield f"{request.request_id}: {len(ends)} outcomes: {words}"
        told_apart = any(data.get("exit_code") == CONFLICT for data in found.values())
        if request.kind is Kind.BACKUP and len(request.accepted) > 1 and not told_apart:
            yield f"{request.request_id}: nobody was told that another request has this id: {words}"
        for data in ends:
            if data["outcome"] == "failed":
                yield f"{request.request_id}: failed: {data.get('error')}"
    for request_id, found in told.items():
        if request_id not in asked:
            yield f"{request_id}: nobody asked for it: {found}"


def of_sets(asked: Mapping[str, Asked], scene: Scene) -> Iterator[str]:
    """What is wrong with the sets: each belongs to one request, and each success has one."""
    told = outcomes(scene)
    made = Counter[str]()
    for name, place in checker.committed(scene.store).items():
        manifest = checker.manifest(place)
        request = asked.get(manifest["request_id"])
        if request is None or request.kind is not Kind.BACKUP:
            yield f"{name}: nobody asked for it"
            continue
        made[request.request_id] += 1
        if manifest["reason"] not in {body["reason"] for body in request.bodies}:
            yield f"{name}: made for a reason that nobody gave: {manifest['reason']}"
    for request_id, request in asked.items():
        good = any(data["outcome"] in GOOD for data in told.get(request_id, {}).values())
        if request.kind is Kind.BACKUP and made[request_id] != good:
            yield f"{request_id}: {made[request_id]} sets, success told: {good}"


def of_contents(scene: Scene, judged: Counter[str]) -> Iterator[str]:
    """What is wrong with what the sets restore to, as far as the subject stood still while they were made."""
    sets = checker.committed(scene.store)
    for name, place in sets.items():
        chain = [place]
        while (parent := checker.manifest(chain[-1])["parent"]) is not None:
            chain.append(place.parent / parent)
        subject = scene.subjects[place.parent.name]
        frozen = [_tree_of(checker.manifest(level), subject) for level in chain]
        expected = frozen[0]
        if expected is None or None in frozen:
            judged["restored while the subject changed"] += 1
            checker.restored(place, scene.scratch / place.name)
            continue
        judged[f"compared, level {len(chain) - 1}"] += 1
        if checker.manifest(place)["outcome"] != "succeeded":
            yield f"{name}: partial, although nothing changed"
        differences = checker.differences(expected, checker.restored(place, scene.scratch / place.name))
        if differences:
            yield f"{name} restores to something else: {'; '.join(differences[:5])}"


def of_dead_letters(asked: Mapping[str, Asked], letters: Sequence[bytes]) -> Iterator[str]:
    """What is wrong with what was put aside: only what is invalid, or shares its id with another request, may be."""
    for letter in letters:
        request = asked[json.loads(letter)["id"]]
        if request.kind is not Kind.INVALID and len(request.bodies) == 1:
            yield f"{request.request_id}: a good request is among the dead letters"


def of_leftovers(scene: Scene, deliveries: Sequence[str]) -> Iterator[str]:
    """What should be gone."""
    for delivery in deliveries:
        yield f"not settled: {delivery}"
    for place in scene.places:
        state = place / "state"
        for path in checker.leftovers(scene.store, state):
            yield f"left over: {path}"
        for request_id, request in checker.journal(state).items():
            if request.state != "announced":
                yield f"{request_id}: still {request.state} in the journal of {place.name}"
        if unsent := checker.unsent(state):
            yield f"{place.name}: {unsent} events were never sent"
        for process in checker.processes(place):
            yield f"still running: {process}"


def _tree_of(manifest: Mapping[str, Any], subject: Subject) -> checker.Tree | None:
    begun, ended = (datetime.fromisoformat(manifest[name]).timestamp() for name in ("started", "finished"))
    return subject.between(begun, ended)
