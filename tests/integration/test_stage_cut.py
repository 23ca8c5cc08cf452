"""The cable to a peer is cut in the middle of its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handlers.errors import TemporaryError
from handlers.tools.peers.verdicts import Verdict
from tests.services.far_sshd import far_sshd
from tests.workshop.pool import Interfering, Pool, collected, options_of
from tests.workshop.staged import remote_peer, staged


@pytest.mark.slow
@pytest.mark.service("sshd")
def test_a_cut_cable_is_noticed_and_the_next_attempt_goes_on(tmp_path: Path) -> None:
    """Nobody tells us that a link is down; what had come by then is not fetched again."""
    with far_sshd(tmp_path / "far") as (server, cable):
        directory = collected(tmp_path / "a", *(f"{number:03}" for number in range(50)))
        (directory / "zzz-large").write_bytes(os.urandom(24 << 20))
        peer = {**remote_peer(directory, server), "silence_seconds": 3}
        pool = Pool(tmp_path, {"a": {**peer, "bandwidth_bytes_per_second": 2 << 20}})
        pool.control = Interfering(1 << 20, cable.cut)
        with pytest.raises(TemporaryError, match="1 of 1 peers may come back: a: "):
            pool.stage(last_try=False)
        cable.mend()
        pool.options = options_of({"a": peer})

        made = pool.stage()

        assert made.record("a").verdict is Verdict.STAGED
        assert made.record("a").kept == 50
        assert len(staged(made.directory, "a")) == 51
