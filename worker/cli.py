"""The program `holdfast`: arguments in, exit code out."""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    code = _run()
    # From here on the interpreter takes itself apart: a second Ctrl-C must not turn a good end into a bad one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _run() -> int:
    early: list[int] = []
    # Not an exception while modules are loaded: some of them swallow it, others complain at length.
    signal.signal(signal.SIGINT, lambda number, _: early.append(number))
    from worker.commands.program import run_program

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_program() if not early else INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    main()
