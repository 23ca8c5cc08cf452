"""Has managed peers carry out what the configuration allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from handlers.abilities import Managed
from handlers.contract import Control
from handlers.errors import Cancelled, HoldfastError, PermanentError
from handlers.tools.peers.options import LocalPeer, ManagedAction, RemotePeer, StageOptions
from handlers.tools.peers.outcome import in_words
from handlers.tools.peers.parallel import for_each
from handlers.tools.process import PIPE, Program
from handlers.tools.remote.shell import stream_remote

MAX_OUTPUT_BYTES = 8 << 10
"""Of what a peer's command writes, the end."""

_FULL = "{full}"


def manage(options: StageOptions, action: str, *, full: bool, control: Control) -> Sequence[Managed]:
    """Have each managed peer do it, a few at a time; one that fails does not keep the others from it.

    Raises PermanentError for an action that is not configured, Cancelled.
    """
    allowed = options.managed_actions.get(action)
    if allowed is None:
        raise PermanentError(
            f"action {action!r} is not allowed", hint=f"managed_actions: {', '.join(options.managed_actions) or 'none'}"
        )
    argv = command(allowed, full=full)
    deadline = timedelta(seconds=allowed.deadline_seconds)
    stop = threading.Event()

    def checkpoint() -> None:
        if stop.is_set():
            raise Cancelled("asked to stop")

    def one(name: str, peer: LocalPeer | RemotePeer) -> Managed:
        output = Output()
        try:
            code = _run(name, peer, argv, output, deadline, checkpoint)
        except Cancelled:
            raise
        except HoldfastError as error:
            return Managed(peer=name, exit_code=None, output=output.text, error=in_words(error))
        problem = None if code == 0 else f"{argv[0]} ended with exit code {code}"
        return Managed(peer=name, exit_code=code, output=output.text, error=problem)

    managed = {name: peer for name, peer in options.peers.items() if peer.managed}
    done = for_each(managed, one, at_once=options.parallel, stop=stop, checkpoint=control.checkpoint)
    return list(done.values())


def _run(
    name: str,
    peer: LocalPeer | RemotePeer,
    argv: Sequence[str],
    output: Output,
    deadline: timedelta,
    checkpoint: Callable[[], None],
) -> int:
    """The exit code. Raises what the programs raise."""
    if isinstance(peer, RemotePeer):
        ended = stream_remote(peer.ssh(name), argv, output.take, deadline=deadline, checkpoint=checkpoint)
    else:
        with Program(argv, stdout=PIPE, deadline=deadline, checkpoint=checkpoint) as program:
            program.drain(program.stdout, output.take)
            ended = program.wait()
    output.errors = ended.stderr
    return ended.code


def command(action: ManagedAction, *, full: bool) -> Sequence[str]:
    """The words to run."""
    return [("--full" if word == _FULL else word) for word in action.command if word != _FULL or full]


class Output:
    """The end of what a command writes to standard output, then the last lines of its standard error.

    Not as they come: much of the one must not push out the other, which tells what went wrong.
    """

    def __init__(self) -> None:
        self.errors = ""
        self._said = bytearray()
        self._is_cut = False

    def take(self, piece: memoryview) -> None:
        """Standard output; in one thread."""
        self._said += piece
        if len(self._said) > MAX_OUTPUT_BYTES:
            self._is_cut = True
            del self._said[: len(self._said) - MAX_OUTPUT_BYTES]

    @property
    def text(self) -> str:
        """What is left of it."""
        said = bytes(self._said).decode("utf-8", "backslashreplace")
        errors = self.errors[-MAX_OUTPUT_BYTES:]
        return ("[...]" if self._is_cut else "") + said + (errors and f"{errors}\n")
