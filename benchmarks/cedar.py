"""CedarBackup3 itself, in an environment of its own, as a rival for the benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "3.12.0"
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "holdfast-bench" / f"cedar-backup3-{VERSION}"
LOCAL = """\
import sys
from CedarBackup3.peer import LocalPeer
collect, target = sys.argv[1:]
peer = LocalPeer("bench", collect)
assert peer.checkCollectIndicator()
peer.stagePeer(target)
peer.writeStageIndicator()
"""
REMOTE = """\
import sys
from CedarBackup3.peer import RemotePeer
host, user, copy, work, collect, target = sys.argv[1:]
peer = RemotePeer(host, collect, work, user, copy)
assert peer.checkCollectIndicator()
peer.stagePeer(target)
peer.writeStageIndicator()
"""


def python() -> Path | None:
    """The interpreter that has it, installed on first use; None where there is no PyPI to have it from."""
    found = HOME / "bin" / "python"
    if (HOME / "bin" / "cback3").exists():
        return found
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(HOME)], check=False, capture_output=True)
    pip = [str(HOME / "bin/pip"), "install", "--quiet", f"cedar-backup3=={VERSION}"]
    if made.returncode == 0 and subprocess.run(pip, check=False, capture_output=True).returncode == 0:
        return found
    shutil.rmtree(HOME, ignore_errors=True)
    print("CedarBackup3 cannot be installed here (it wants PyPI)")
    return None
