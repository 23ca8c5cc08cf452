"""The stage of the demonstration: directories, a configuration, a worker in a process of its own."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from handlers.errors import PermanentError
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

    def __init__(self, top: Path) -> None:
        self.top = top
        self.subject = top / "subject"
        self.config = top / "holdfast.yaml"
        self.log = top / "worker.log"
        self._worker: subprocess.Popen[bytes] | None = None

    def build(self) -> None:
        """Make the directories and the configuration."""
        (self.top / "backups").mkdir()
        text = _CONFIG.format(top=json.dumps(str(self.top))[1:-1], plan=PLAN)
        self.config.write_text(text)

    def start_worker(self) -> int:
        """`holdfast run`, ready to take requests; says its process id."""
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C at the terminal is for us, and we tell the worker.
            self._worker = subprocess.Popen(
                [*_program(), "--config", str(self.config), "--log-format", "text", "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while "worker_started" not in self.log.read_text(errors="replace"):
            if self._worker.poll() is not None or time.monotonic() > deadline:
                raise PermanentError("the worker did not start", hint=self.log.read_text(errors="replace")[-2000:])
            time.sleep(0.02)
        return self._worker.pid

    def stop_worker(self) -> int:
        """SIGTERM, then its exit code; safe to repeat."""
        if self._worker is None:
            return 0
        worker, self._worker = self._worker, None
        worker.send_signal(signal.SIGTERM)
        try:
            return worker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            worker.kill()
            return worker.wait()

    def command(self, *arguments: str) -> str:
        """What `holdfast` with these arguments says on standard output; raises PermanentError where it fails."""
        done = subprocess.run(
            [*_program(), "--config", str(self.config), *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            told = done.stderr.strip() or done.stdout.strip()
            raise PermanentError(f"holdfast {arguments[0]} ended with exit code {done.returncode}", hint=told)
        return done.stdout

    def answer(self, *arguments: str) -> dict[str, Any]:
        """The one line of JSON that a command answers with."""
        answer: dict[str, Any] = json.loads(self.command(*arguments, "--json"))
        return answer


@contextmanager
def stage(keep: Path | None) -> Iterator[Stage]:
    """A stage that is cleared away in the end, whatever happens; left standing where it is to be kept."""
    if keep is None:
        top = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    else:
        top = keep.absolute()
        _claim(top)
    built = Stage(top)
    try:
        yield built
    finally:
        # Ctrl-C must not leave half a clean-up behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        built.stop_worker()
        if keep is None:
            shutil.rmtree(top, ignore_errors=True)


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
