"""Does something for several peers at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

from handlers.tools.peers.options import LocalPeer, RemotePeer

T = TypeVar("T")

_LOOK_SECONDS = 0.2


def for_each(
    peers: Mapping[str, LocalPeer | RemotePeer],
    one: Callable[[str, LocalPeer | RemotePeer], T],
    *,
    at_once: int,
    stop: threading.Event,
    checkpoint: Callable[[], None],
) -> dict[str, T]:
    """What `one` says of each, in the order of the peers; called in so many threads at once.

    `checkpoint` is called several times a second, in the caller's thread. Where it, or any call, raises, `stop` is set,
    by which the other calls are to come to an end, and that is raised. All threads have ended on return.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="peer") as pool:
        futures = {name: pool.submit(one, name, peer) for name, peer in peers.items()}
        try:
            left = set(futures.values())
            while left:
                done, left = wait(left, _LOOK_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                checkpoint()
        except BaseException:
            stop.set()
            for future in futures.values():
                future.cancel()
            raise
    return {name: future.result() for name, future in futures.items()}
