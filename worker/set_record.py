"""Writes up a set that was made: its manifest, and the manifests of the chain it ends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from handlers.contract import JSON, BackupId, Produced
from worker import manifest, policy
from worker.journal.protocol import Entry
from worker.levels import Choice
from worker.manifest import EMPTY, Counts, Manifest, PartRecord, ProblemRecord, TreeRecord
from worker.plan import Plan, Surroundings
from worker.stores.protocol import SetMissing, SetName


def write_up(
    entry: Entry, plan: Plan, around: Surroundings, choice: Choice, made: Produced, started: datetime
) -> Manifest:
    """The manifest of a set whose parts are written.

    Raises SubjectUnreadable where parts of the subject are missing, and the plan wants all of it or nothing.
    """
    last, last_digest = _last(plan, around)
    request = entry.request
    parts = tuple(PartRecord.of(part) for part in made.parts)
    trees = tuple(TreeRecord.of(tree) for tree in made.trees)
    stored = sum(part.bytes for part in parts) + sum(tree.bytes for tree in trees)
    return Manifest(
        backup_id=entry.backup_id,
        request_id=request.request_id,
        request_digest=request.content_digest,
        plan=plan.name,
        handler=plan.handler.name,
        subject=plan.handler.subject(plan.options),
        scope=plan.scope,
        level=choice.level,
        parent=choice.parent.backup_id if choice.parent else None,
        level_reason=choice.reason,
        restarts=choice.restarts,
        host=around.node,
        started=started,
        finished=around.clock(),
        outcome=policy.outcome_of(made, on_unreadable=plan.on_unreadable, on_changed=plan.on_changed),
        counts=Counts(files=made.files, bytes_in=made.bytes_in, bytes_out=stored),
        parts=parts,
        trees=trees,
        excluded=made.excluded,
        problems=tuple(ProblemRecord(kind=p.kind, path=p.path, detail=p.detail) for p in made.problems),
        problem_counts={kind.value: count for kind, count in made.problem_counts.items()},
        warnings=_warnings(made, last),
        tools=dict(made.tools),
        labels={**request.data.labels, **plan.labels},
        reason=request.data.reason,
        config_digest=around.config_digest,
        previous=last_digest,
    )


def chain_documents(new: Manifest, plan: Plan, around: Surroundings) -> list[Mapping[str, JSON]]:
    """The manifests of the chain that ends with this new one, as JSON, oldest first."""
    older: tuple[Manifest, ...] = ()
    if new.parent is not None:
        parent = SetName(plan=plan.name, backup_id=BackupId(new.parent))
        chain = around.catalog.chain(around.catalog.read(plan.store, parent))
        older = tuple(stored.manifest for stored in chain)
    return [item.model_dump(mode="json") for item in (*older, new)]


def _last(plan: Plan, around: Surroundings) -> tuple[Manifest | None, str | None]:
    """The plan's newest set with its manifest's digest; nothing where there is none."""
    for stored in reversed(around.catalog.sets(plan.store, plan.name)):
        try:
            return stored.manifest, manifest.digest(plan.store.read(stored.name, manifest.MANIFEST))
        except SetMissing:
            continue  # expired in this moment; the new set is none the worse
    return None, None


def _warnings(made: Produced, last: Manifest | None) -> tuple[str, ...]:
    # Each time, not only the first: retention knows by it that the set does not count.
    if not made.empty:
        return ()
    if last is None:
        return (f"{EMPTY}: is something not mounted?",)
    if last.has_nothing:
        return (f"{EMPTY}, as it was when set {last.backup_id} was made: is something not mounted?",)
    return (f"{EMPTY}; it was not when set {last.backup_id} was made: is something not mounted?",)
