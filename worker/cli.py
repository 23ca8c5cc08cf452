"""The program `holdfast`: arguments in, exit code out."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    code = _run()
    # From here on the interpreter takes itself apart: a second Ctrl-C must not turn a good end into a bad one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


def _run() -> int:
    try:
        # Here, so that an early Ctrl-C finds nothing to complain about: loading takes most of a short command's time.
        from worker.commands.program import run_program

        return run_program()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    main()
