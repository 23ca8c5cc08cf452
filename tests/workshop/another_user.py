"""Lets a test that runs as root do something as a user without rights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534

needs_another_user = pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user here")


@contextmanager
def nobody() -> Iterator[None]:
    """Inside, this process and what it starts have the rights of nobody."""
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that any user may enter and write to."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        yield Path(place)
