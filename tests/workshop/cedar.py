"""The real CedarBackup3: a client that collects and signals, for a master that it knows nothing of."""

from __future__ import annotations

import getpass
import grp
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tests.services.server import program

CONFIG = """\
<?xml version="1.0"?>
<cb_config>
  <options>
    <starting_day>monday</starting_day>
    <working_dir>{home}/work</working_dir>
    <backup_user>{user}</backup_user>
    <backup_group>{group}</backup_group>
    <rcp_command>/usr/bin/scp -B</rcp_command>
  </options>
  <collect>
    <collect_dir>{collect_dir}</collect_dir>
    <collect_mode>daily</collect_mode>
    <archive_mode>targz</archive_mode>
    <ignore_file>.cbignore</ignore_file>
{directories}
  </collect>
  <purge>
    <dir><abs_path>{collect_dir}</abs_path><retain_days>0</retain_days></dir>
  </purge>
</cb_config>
"""
SEES = """\
import sys
from CedarBackup3.peer import LocalPeer
print(LocalPeer("here", sys.argv[1]).checkCollectIndicator(sys.argv[2]))
"""

TAKES = """\
import sys
from CedarBackup3.config import Config
config = Config(xmlPath=sys.argv[1], validate=False)
config.validate(
    requireOneAction=True, requireReference=False, requireExtensions=False, requireOptions=True, requireCollect=False,
    requireStage=True, requireStore=False, requirePurge=True, requirePeers=True,
)
"""


def cback3() -> Path:
    """The program. Without it the test is skipped at a desk, and fails with CI set."""
    return program("cback3", package="cedar-backup3")


def ask_cedar(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with CedarBackup3's own code."""
    interpreter = cback3().read_text().splitlines()[0].removeprefix("#!").strip()
    return subprocess.run([interpreter, "-c", script, *arguments], capture_output=True, text=True, timeout=60)


def refused_master(config: Path) -> str:
    """What CedarBackup3 has against a master's configuration; empty where it takes it."""
    return ask_cedar(TAKES, str(config)).stderr


@dataclass(frozen=True)
class CedarClient:
    """One machine of a pool, with a configuration of its own."""

    home: Path
    collects: Sequence[Path]
    """The directories that it collects."""

    def __post_init__(self) -> None:
        self.collect_dir.mkdir(parents=True)
        (self.home / "work").mkdir()
        directories = [f"    <dir><abs_path>{escape(str(path))}</abs_path></dir>" for path in self.collects]
        self.config.write_text(
            CONFIG.format(
                home=escape(str(self.home)),
                collect_dir=escape(str(self.collect_dir)),
                user=getpass.getuser(),
                group=grp.getgrgid(os.getgid()).gr_name,
                directories="\n".join(directories),
            )
        )

    @property
    def collect_dir(self) -> Path:
        """Where it puts what it collected, and signals."""
        return self.home / "collect"

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.home / "cback3.xml"

    @property
    def log(self) -> Path:
        """What it did."""
        return self.home / "cback3.log"

    @property
    def command(self) -> list[str]:
        """The program with what it needs to leave the machine's own configuration alone."""
        owner = f"{getpass.getuser()}:{grp.getgrgid(os.getgid()).gr_name}"
        return [str(cback3()), "--config", str(self.config), "--logfile", str(self.log), "--owner", owner]

    def act(self, action: str, *, full: bool = False) -> None:
        """Have it take an action, to its end."""
        argv = [*self.command, *(["--full"] if full else []), action]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + done.stdout

    def sees(self, indicator: str) -> bool:
        """Whether CedarBackup3's own code finds an indicator in the collect directory."""
        done = ask_cedar(SEES, str(self.collect_dir), indicator)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip() == "True"

    def collected(self) -> dict[str, Path]:
        """What it has collected, by name, without indicators."""
        return {path.name: path for path in self.collect_dir.iterdir() if not path.name.startswith("cback.")}
