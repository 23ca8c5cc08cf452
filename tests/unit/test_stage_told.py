"""What a set tells of a peer that is not in it as it should be."""

from __future__ import annotations

import pytest

from handlers.contract import ProblemKind
from handlers.tools.peers.staging import Result
from handlers.tools.peers.verdicts import PeerRecord, Verdict


@pytest.mark.parametrize(
    ("verdict", "required", "found", "told"),
    [
        (Verdict.INCOMPLETE, True, ProblemKind.CHANGED, {"f": ProblemKind.CHANGED, "": ProblemKind.OTHER}),
        (Verdict.INCOMPLETE, True, ProblemKind.UNREADABLE, {"f": ProblemKind.UNREADABLE}),
        (Verdict.INCOMPLETE, False, ProblemKind.CHANGED, {"f": ProblemKind.IGNORED}),
        (Verdict.STAGED, True, ProblemKind.SOCKET, {"f": ProblemKind.SOCKET}),
        (Verdict.NOT_READY, True, None, {"": ProblemKind.OTHER}),
        (Verdict.NOTHING_NEW, True, None, {}),
    ],
)
def test_a_required_peer_that_is_not_whole_is_a_loss(
    verdict: Verdict, required: bool, found: ProblemKind | None, told: dict[str, ProblemKind]
) -> None:
    """Once: where none of its files says so, the peer itself does; one that has nothing new is none."""
    record = PeerRecord(name="a", kind="local", verdict=verdict, required=required, reason="why")
    problems = {} if found is None else {b"f": (found, "detail")}

    seen = {problem.path: problem.kind for problem in Result(record=record, problems=problems).told()}

    assert seen == {f"peers/a/{name}".rstrip("/"): kind for name, kind in told.items()}
