"""Lines come back sorted, whether they fit into memory or not."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.errors import TemporaryError
from handlers.tools.sorted_lines import SortedLines


@given(st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=300))), st.sampled_from([1, 1_000, 1 << 20]))
def test_lines_come_sorted_as_often_as_asked(lines: list[tuple[bytes, bytes]], run_bytes: int) -> None:
    """Those of the same key in the order in which they came."""
    with closing(SortedLines(run_bytes=run_bytes)) as gathered:
        for key, line in lines:
            gathered.add(key, line)

        assert len(gathered) == len(lines)
        for _ in range(2):
            assert list(gathered) == sorted(lines, key=lambda item: item[0])


def test_lines_longer_than_what_is_read_at_once_come_back() -> None:
    """A line is as long as it is."""
    with closing(SortedLines(run_bytes=1)) as gathered:
        for key in (b"b", b"a"):
            gathered.add(key, key * 200_000)

        assert list(gathered) == [(b"a", b"a" * 200_000), (b"b", b"b" * 200_000)]


def test_the_temporary_file_has_no_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A killed process leaves nothing behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with closing(SortedLines(run_bytes=1)) as gathered:
        gathered.add(b"key", b"line")

        assert list(tmp_path.iterdir()) == []


def test_no_room_for_temporary_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may work later: the error says where there was no room."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")

    with closing(SortedLines(run_bytes=1)) as gathered, pytest.raises(TemporaryError, match="/nowhere"):
        gathered.add(b"key", b"line")
