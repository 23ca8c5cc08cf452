"""The name of a state directory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from handlers.errors import PermanentError
from worker.identity import FILE, state_id


def test_name_stays_the_same(tmp_path: Path) -> None:
    """For the worker after this one."""
    assert state_id(tmp_path) == state_id(tmp_path)


def test_every_state_directory_has_another_name(tmp_path: Path) -> None:
    """Two workers of one host are told apart by it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    assert state_id(tmp_path / "a") != state_id(tmp_path / "b")


def test_all_who_ask_at_once_hear_the_same(tmp_path: Path) -> None:
    """The worker and a command line that start together; nothing else is left."""
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: state_id(tmp_path), range(64)))

    assert len(names) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_damaged_name_is_said_so(tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / FILE).write_bytes(b"\0\0")

    with pytest.raises(PermanentError, match="does not hold") as caught:
        state_id(tmp_path)

    assert caught.value.hint == "remove it; it is made again"


def test_missing_directory_is_said_so(tmp_path: Path) -> None:
    """It is not made here."""
    with pytest.raises(PermanentError, match="cannot be read or made"):
        state_id(tmp_path / "missing")
