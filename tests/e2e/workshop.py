"""A place to try the real program in: a subject, a store, a configuration, and `holdfast` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PROGRAM = str(Path(sys.executable).with_name("holdfast"))

# Root may read everything, and so would our child: these two rights are what makes root special.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"] if os.geteuid() == 0 else []

CONFIG = """\
node: workshop
state_dir: {top}/state
progress_seconds: 0.2
drain_seconds: 10
spool: {{scan_seconds: 1}}
retry: {{first_delay_seconds: 0.1}}
stores:
  main: {{kind: local, path: {top}/store}}
plans:
  web:
    handler: tar
    labels: {{team: shop}}
    options: {{root: {top}/subject}}
{extra}"""


class Workshop:
    """One directory with everything below it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.subject = top / "subject"
        self.store = top / "store"
        self.config = top / "holdfast.yaml"
        self.log = top / "worker.log"
        self._workers: list[subprocess.Popen[bytes]] = []
        self.store.mkdir()
        (self.subject / "docs").mkdir(parents=True)
        (self.subject / "index.html").write_text("<h1>hello</h1>\n")
        (self.subject / "docs" / "page.txt").write_text("a page\n" * 2000)
        (self.subject / "link").symlink_to("docs/page.txt")
        self.configure()

    def configure(self, extra: str = "") -> None:
        """Write the configuration, with more lines at its end (they go on below `plans`)."""
        self.config.write_text(CONFIG.format(top=self.top, extra=extra))

    def command(self, *arguments: str) -> list[str]:
        """The command line of the program."""
        return [PROGRAM, "--config", str(self.config), *arguments]

    def run(self, *arguments: str, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            [*(prefix or []), *self.command(*arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            cwd=self.top,
        )

    def lines(self, *arguments: str, expect: int = 0) -> list[dict[str, Any]]:
        """The JSON lines of a command that ends with this exit code."""
        done = self.run(*arguments, "--json")
        assert done.returncode == expect, done.stderr + done.stdout
        return [json.loads(line) for line in done.stdout.splitlines()]

    def environment(self) -> Mapping[str, str]:
        """The test's own, without settings of the person who runs it."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "COV"))}
        return {**mine, "LC_ALL": "C.UTF-8"}

    def backup(self, *arguments: str) -> str:
        """Make a backup; its id."""
        return str(self.lines("backup", "web", *arguments)[-1]["backup_id"])

    def start(self, *arguments: str, **pipes: Any) -> subprocess.Popen[bytes]:
        """Start it."""
        return subprocess.Popen(
            self.command(*arguments), env=self.environment(), cwd=self.top, start_new_session=True, **pipes
        )

    def start_worker(self) -> subprocess.Popen[bytes]:
        """`holdfast run`, ready; end it with `close`."""
        with self.log.open("ab") as log:
            worker = self.start("--log-format", "json", "run", stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._workers.append(worker)
        wait_for(lambda: "worker_started" in self.log.read_text() or worker.poll() is not None)
        assert worker.poll() is None, self.log.read_text()
        return worker

    def close(self) -> None:
        """End the workers that still run."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
                worker.wait(20)

    def sets(self) -> list[Path]:
        """The directories of committed sets."""
        return sorted(manifest.parent for manifest in self.store.glob("*/*/manifest.json"))

    def drafts(self) -> list[Path]:
        """What is being written, or was left behind."""
        return sorted(self.store.glob(".holdfast/drafts/*"))


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return once the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)
