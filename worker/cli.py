"""The program `holdfast`: arguments in, exit code out."""

from __future__ import annotations

import gc
import os
import signal
import sys

INTERRUPTED = 130

_START_THRESHOLD = 20_000
"""New objects between two garbage collections: with Python's own number, 700, the start makes hundreds."""


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    code = _run()
    # From here on the interpreter takes itself apart: a second Ctrl-C must not turn a good end into a bad one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What the process gives back as a whole need not be searched for cycles first, which takes a tenth of a second.
    gc.freeze()
    sys.exit(code)


def _run() -> int:
    early: list[int] = []
    # Not an exception while modules are loaded: some of them swallow it, others complain at length.
    signal.signal(signal.SIGINT, lambda number, _: early.append(number))
    # Otherwise pydantic looks through the metadata of all that is installed for plugins: a twentieth of the start.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    # Modules come, and none goes. What works later makes few cycles: memory stays as it is (`benchmarks memory`).
    gc.set_threshold(_START_THRESHOLD, *gc.get_threshold()[1:])
    from worker.commands.program import run_program

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_program() if not early else INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    main()
