"""`holdfast demo`: a complete round on real files, from the first request to the last comparison."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from worker.commands import console, session

KeepOption = Annotated[
    Path | None, typer.Option("--keep", metavar="DIR", help="Do it in this new directory, and leave it for a look.")
]


def demo(keep: KeepOption = None) -> int:
    """Back up real files, change them, back up again, verify, restore, compare; all in a temporary directory."""
    import shlex

    from worker.commands.demo_stage import stage
    from worker.commands.demo_story import Story, since

    session.log_for_a_person()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    with stage(keep) as built:
        Story(built).tell()
        console.out(f"\n{console.paint('All of it held.', 'good')} ({since(began)})")
        if keep is not None:
            console.out(f"Left for you in {built.top}: try  holdfast -c {shlex.quote(str(built.config))} list")
    return 0
