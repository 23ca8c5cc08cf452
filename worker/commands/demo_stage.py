"""The stage of the demonstration: directories, a configuration, a worker in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from handlers.errors import PermanentError
from handlers.tools.process import Program, run
from worker.commands.session import Usage

PLAN: Final = "library"
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 20.0

_CONFIG: Final = """\
node: demo
state_dir: {top}/state
drain_seconds: 10
progress_seconds: 1
spool: {{scan_seconds: 1}}
stores:
  backups: {{kind: local, path: {top}/backups}}
plans:
  {plan}:
    handler: tar
    verify: checksums
    labels: {{story: demo}}
    options: {{root: {top}/subject}}
"""


class Stage:
    """Everything below one directory."""

    def __init__(self, top: Path, cleanup: ExitStack) -> None:
        """What is started is ended by `cleanup`."""
        self.top = top
        self.subject = top / "subject"
        self.config = top / "holdfast.yaml"
        self.log = top / "worker.log"
        self._cleanup = cleanup
        self._worker: Program | None = None
        self._ready = threading.Event()
        self._deadline: float | None = None

    def build(self) -> None:
        """Make the directories and the configuration."""
        (self.top / "backups").mkdir()
        self.config.write_text(_CONFIG.format(top=json.dumps(str(self.top))[1:-1], plan=PLAN))

    def start_worker(self) -> int:
        """`holdfast run`, ready to take requests; says its process id."""
        self._deadline = time.monotonic() + START_SECONDS
        log = self._cleanup.enter_context(self.log.open("wb"))

        def on_line(line: bytes) -> None:
            log.write(line + b"\n")
            log.flush()
            if b"worker_started" in line:
                self._ready.set()

        argv = [*_program(), "--config", str(self.config), "--log-format", "text", "run"]
        self._worker = worker = self._cleanup.enter_context(
            Program(argv, on_error_line=on_line, checkpoint=self._in_time)
        )
        while not self._ready.wait(0.05):
            worker.checkpoint()
        self._deadline = None
        return worker.pid

    def stop_worker(self) -> int:
        """SIGTERM, then its exit code."""
        assert self._worker is not None
        self._deadline = time.monotonic() + STOP_SECONDS
        os.kill(self._worker.pid, signal.SIGTERM)
        return self._worker.wait().code

    def command(self, *arguments: str) -> str:
        """What `holdfast` with these arguments says on standard output; raises PermanentError where it fails."""
        done = run([*_program(), "--config", str(self.config), *arguments], environment={"LC_ALL": "C.UTF-8"})
        if done.code != 0:
            told = done.stderr.strip() or done.stdout.decode(errors="replace").strip()
            raise PermanentError(f"holdfast {arguments[0]} ended with exit code {done.code}", hint=told)
        return done.stdout.decode(errors="replace")

    def answer(self, *arguments: str) -> dict[str, Any]:
        """The one line of JSON that a command answers with."""
        answer: dict[str, Any] = json.loads(self.command(*arguments, "--json"))
        return answer

    def _in_time(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            told = self.log.read_text(errors="replace")[-2000:]
            raise PermanentError("the worker did not start, or did not end, in time", hint=told)


@contextmanager
def stage(keep: Path | None) -> Iterator[Stage]:
    """A stage that is cleared away in the end, whatever happens; left standing where it is to be kept."""
    with ExitStack() as cleanup:
        if keep is None:
            top = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
            cleanup.callback(shutil.rmtree, top, ignore_errors=True)
        else:
            top = keep.absolute()
            _claim(top)
        built = Stage(top, cleanup)
        try:
            yield built
        finally:
            # A second Ctrl-C must not leave half a clean-up behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _claim(top: Path) -> None:
    try:
        top.mkdir(exist_ok=True)
        if next(top.iterdir(), None) is not None:
            raise Usage(f"{top} is not empty", hint="--keep takes a new directory")
    except OSError as error:
        raise Usage(f"{top} cannot be used: {error.strerror}") from error


def _program() -> list[str]:
    # -P: no module of the current directory takes the place of ours.
    return [sys.executable, "-P", "-m", "worker.cli"]
