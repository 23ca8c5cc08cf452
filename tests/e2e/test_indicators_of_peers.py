"""Indicators that ask for a plan of the handler `stage`: the handler alone says whose data is safe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.workshop.indicating import touch
from tests.workshop.pool import collected
from tests.workshop.staged import local_peer
from tests.workshop.workers import Hire, wait_for


def test_a_peer_that_is_not_in_the_set_is_not_told_that_it_is(hire: Hire, tmp_path: Path) -> None:
    """A run that may do without it is a success; its indicator stays, as does what it says."""
    good, empty = collected(tmp_path / "collect" / "good", "a"), tmp_path / "collect" / "empty"
    empty.mkdir()
    peers = {"good": local_peer(good), "empty": local_peer(empty, ignore_failures="all")}
    (good / "cback.collect").unlink()
    pool = {
        "directories": [f"{tmp_path}/collect/*"],
        "plan": "web",
        "scan_seconds": 1,
        "on_success": {"write": "cback.stage", "indicator": "delete"},
    }
    worker = hire(
        tmp_path / "n1",
        tmp_path,
        tmp_path / "store",
        plans={"web": {"handler": "stage", "options": {"peers": peers}}},
        indicators={"pool": pool},
    )
    worker.start()
    touch(empty)

    touch(good)

    wait_for((good / "cback.stage").exists)
    wait_for(lambda: not (good / "cback.collect").exists())
    wait_for(lambda: json.loads(worker.run("status", "--json").stdout)["unfinished"] == 0)
    assert worker.stop() == 0
    (made,) = worker.sets()
    assert made.name in (good / "cback.stage").read_text()
    assert not (empty / "cback.stage").exists()
    assert (empty / "cback.collect").exists()


def test_peers_that_signal_together_are_staged_once(hire: Hire, tmp_path: Path) -> None:
    """The first request stages both; the other one succeeds without a set, and what is done stays done."""
    places = {name: collected(tmp_path / "collect" / name, "file") for name in ("a", "b")}
    options = {"peers": {name: local_peer(place) for name, place in places.items()}}
    worker = hire(
        tmp_path / "n1",
        tmp_path,
        tmp_path / "store",
        plans={"web": {"handler": "stage", "options": {**options, "done_indicator": str(tmp_path / "done")}}},
        indicators={"pool": {"directories": [f"{tmp_path}/collect/*"], "plan": "web", "scan_seconds": 1}},
    )

    worker.start()

    wait_for(lambda: worker.outcomes() == ["succeeded", "succeeded"], what="both requests have an outcome")
    assert worker.stop() == 0
    (made,) = worker.sets()
    ends = [event["data"] for event in worker.events() if event["data"]["outcome"] == "succeeded"]
    first, second = sorted(ends, key=_warnings)
    assert (first["backup_id"], _warnings(first)) == (made.name, 0)
    assert (second.get("backup_id"), _warnings(second)) == (None, 1)
    assert (tmp_path / "done").read_text() == f"web/{made.name}\n"


def _warnings(outcome: dict[str, Any]) -> int:
    return len(outcome.get("warnings") or ())
