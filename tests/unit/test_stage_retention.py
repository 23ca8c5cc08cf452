"""Old sets of a pool may hold what no newer one has."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from config.load import Loaded, load
from config.problems import ConfigError
from worker import plans


def loaded(place: Path, *peers: str, retention: dict[str, object]) -> Loaded:
    """A plan that stages these."""
    file = place / "holdfast.yaml"
    options = {"peers": {name: {"kind": "local", "collect_directory": f"/srv/{name}"} for name in peers}}
    document = {
        "stores": {"disk": {"kind": "local", "path": str(place)}},
        "plans": {"pool": {"handler": "stage", "options": options, "retention": retention}},
    }
    file.write_bytes(orjson.dumps(document))
    return load(file, environ={})


def test_a_plan_with_several_peers_can_have_no_retention(tmp_path: Path) -> None:
    """The last set of the one that is silent would go."""
    with pytest.raises(ConfigError, match=r"plans\.pool\.retention: cannot be kept by a plan with several peers"):
        plans.check(loaded(tmp_path, "a", "b", retention={"latest": 3}))


@pytest.mark.parametrize(("peers", "retention"), [(("a",), {"latest": 3}), (("a", "b"), {})])
def test_a_plan_with_one_peer_or_without_retention_is_fine(
    tmp_path: Path, peers: tuple[str, ...], retention: dict[str, object]
) -> None:
    """Its newest set has everything; nothing goes."""
    assert "pool" in plans.check(loaded(tmp_path, *peers, retention=retention))
