"""Whether file systems can be mounted by FUSE here."""

from __future__ import annotations

import os

import pytest

from tests.services.server import program

DEVICE = "/dev/fuse"


def require_fuse() -> None:
    """Return where the real FUSE is. Without it the test is skipped at a desk, and fails with CI set."""
    program("fusermount3")
    if os.access(DEVICE, os.R_OK | os.W_OK):
        return
    reason = f"{DEVICE} cannot be used (a container needs --device {DEVICE} --cap-add SYS_ADMIN)"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
