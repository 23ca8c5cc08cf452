"""The manifest: what is written, what is read, what is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.contract import Frames, Part
from handlers.errors import IntegrityError
from worker.manifest import (
    FORMAT,
    Counts,
    FrameRecord,
    Manifest,
    PartRecord,
    ProblemRecord,
    decode,
    digest,
    sums,
)

SAMPLES = Path(__file__).parent / "samples"
ANY_YEAR = [datetime(year, 1, 2, tzinfo=UTC).replace(tzinfo=None) for year in (2, 9998)]
"""The first and the last date of a manifest, whatever the time zone."""
PARTS = st.builds(
    PartRecord,
    name=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9),
    bytes=st.integers(0, 2**53),
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
    codec=st.sampled_from(["none", "zstd", "gzip", "bzip2", "xz"]),
    frames=st.none()
    | st.builds(FrameRecord, count=st.integers(0, 2**53), frame_bytes=st.integers(1, 2**53), table=st.text()),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
MANIFESTS = st.builds(
    Manifest,
    backup_id=TEXTS,
    request_id=TEXTS,
    request_digest=st.binary(min_size=32, max_size=32).map(bytes.hex),
    started=st.datetimes(*ANY_YEAR, timezones=st.just(UTC)),
    finished=st.datetimes(*ANY_YEAR, timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=-30))])),
    parts=st.lists(PARTS, max_size=3).map(tuple),
    counts=st.builds(Counts, files=st.integers(0, 2**53), bytes_in=st.integers(0, 2**53), bytes_out=st.just(1)),
    problems=st.lists(st.builds(ProblemRecord, kind=TEXTS, path=TEXTS, detail=TEXTS), max_size=2).map(tuple),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=2),
    previous=st.none() | st.just("0" * 64),
    level=st.integers(0, 99),
    scope=st.just("0" * 64),
)


def document() -> dict[str, Any]:
    """The sample of format 1, as JSON."""
    content: dict[str, Any] = json.loads((SAMPLES / "manifest-1.json").read_bytes())
    return content


@given(manifest=MANIFESTS)
def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    """Decoding undoes encoding; the same manifest has the same bytes."""
    content = manifest.encode()

    assert decode(content, name="manifest.json") == manifest
    assert decode(content, name="manifest.json").encode() == content


def test_the_first_format_is_readable_for_ever() -> None:
    """A set made by the first release is still a backup; this file never changes."""
    content = (SAMPLES / "manifest-1.json").read_bytes()

    manifest = decode(content, name="manifest.json")

    assert digest(content) == "4c7f22420955240261044d2e464cda9d6292e9c8733b61d078dc2b063ed06d5e"
    assert manifest.format == 1
    assert (manifest.id, manifest.plan_name, manifest.level, manifest.parent) == (
        "nightly-2026-03-01-6d1c7f0e2a9b4c55",
        "photos",
        1,
        "nightly-2026-02-28-0f3e5d7c9b1a2846",
    )
    assert manifest.started == datetime(2026, 3, 1, 2, 0, 0, 250000, tzinfo=UTC)
    assert [part.part().name for part in manifest.parts] == ["data.tar.zst", "frames.json", "level.snar"]
    assert manifest.parts[0].part().frames == Frames(count=3, frame_bytes=4194304, table="frames.json")
    assert manifest.problem_counts == {"unreadable": 1}
    assert (manifest.outcome, manifest.labels, manifest.reason) == ("partial", {"team": "web"}, "nightly")


def test_a_sample_of_every_format_is_kept() -> None:
    """A new format brings a new sample."""
    assert sorted(path.name for path in SAMPLES.glob("manifest-*")) == [
        f"manifest-{number}.json" for number in range(1, FORMAT + 1)
    ]


def test_a_manifest_is_readable_by_people() -> None:
    """One field a line, a final newline."""
    content = decode((SAMPLES / "manifest-1.json").read_bytes(), name="x").encode()

    assert content.startswith(b'{\n  "format": 1,\n  "backup_id": ')
    assert content.endswith(b"}\n")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("format", None),
        ("parts", [{"name": "data", "bytes": -1, "sha256": "0" * 64}]),
        ("parts", [{"name": "data", "bytes": 1, "sha256": "0" * 63}]),
        ("outcome", "failed"),
        ("started", "2026-03-01T00:00:00"),
        ("level", -1),
        ("surprise", 1),
    ],
)
def test_what_is_no_manifest_is_told_by_file_and_field(field: str, value: object) -> None:
    """It wakes a person, who learns where to look."""
    content = json.dumps({**document(), field: value}).encode()

    with pytest.raises(IntegrityError, match=f"photos/x/manifest.json is not a manifest of format 1: {field}"):
        decode(content, name="photos/x/manifest.json")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"{", b"[]", b"\xff\xfe{}", b'{"format": 1}'])
def test_rubbish_is_no_manifest(content: bytes) -> None:
    """Zeros after a power cut, half a file, another file."""
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        decode(content, name="manifest.json")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_date_that_not_every_zone_has_is_damage(moment: str) -> None:
    """Who looks at it with another time zone would fail in ways that nobody expects."""
    content = json.loads((SAMPLES / "manifest-1.json").read_bytes())

    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        decode(json.dumps({**content, "finished": moment}).encode(), name="manifest.json")


@given(cut=st.integers(min_value=0, max_value=10_000))
def test_a_torn_manifest_is_no_manifest(cut: int) -> None:
    """Wherever it was cut before its closing brace."""
    content = (SAMPLES / "manifest-1.json").read_bytes().rstrip()

    with pytest.raises(IntegrityError):
        decode(content[: cut % len(content)], name="manifest.json")


def test_a_part_keeps_what_the_handler_told() -> None:
    """With frames and without."""
    framed = Part(
        name="a", size_bytes=3, sha256="0" * 64, codec="zstd", frames=Frames(count=1, frame_bytes=9, table="t")
    )
    plain = Part(name="b", size_bytes=0, sha256="f" * 64)

    assert PartRecord.of(framed).part() == framed
    assert PartRecord.of(plain).part() == plain


def test_sha256sum_accepts_the_sums(tmp_path: Path) -> None:
    """The real program; it also notices one changed byte."""
    records = []
    for name in ["data.tar.zst", "level.snar", "name with  blanks"]:
        (tmp_path / name).write_bytes(name.encode())
        records.append(PartRecord(name=name, bytes=len(name), sha256=hashlib.sha256(name.encode()).hexdigest()))
    (tmp_path / "SHA256SUMS").write_bytes(sums(tuple(records)))
    command = ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"]

    accepted = subprocess.run(command, cwd=tmp_path, capture_output=True)
    (tmp_path / "level.snar").write_bytes(b"level.snaR")
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True)

    assert (accepted.returncode, accepted.stderr) == (0, b"")
    assert refused.returncode == 1
    assert b"level.snar: FAILED" in refused.stdout
