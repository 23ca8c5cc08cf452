"""Every strength of every codec, looked at by the codec's own program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

from handlers.tools.codecs import Codec, check_strength
from handlers.tools.frames import FrameWriter
from handlers.tools.tar.options import TarOptions

TEXT = b"".join(b"%d: a line of text, and %d is its square\n" % (number, number * number) for number in range(4000))
PROGRAMS = {Codec.ZSTD: "zstd", Codec.GZIP: "gzip", Codec.BZIP2: "bzip2", Codec.XZ: "xz"}


def written(path: Path, codec: Codec, strength: int | None) -> int:
    """Two frames and a bit of one; the size of the file."""
    with (
        path.open("wb", buffering=0) as out,
        FrameWriter(out, codec=codec, strength=strength, threads=1, frame_bytes=len(TEXT) * 2 // 5) as writer,
    ):
        writer.write(TEXT)
    return path.stat().st_size


@pytest.mark.parametrize("strength", [*range(10), None])
@pytest.mark.parametrize("codec", PROGRAMS)
def test_the_codecs_own_program_takes_every_strength(tmp_path: Path, codec: Codec, strength: int | None) -> None:
    """It finds no fault, and brings back what went in."""
    path = tmp_path / f"file{codec.suffix}"
    written(path, codec, strength)

    subprocess.run([PROGRAMS[codec], "-t", path], check=True, capture_output=True)
    back = subprocess.run([PROGRAMS[codec], "-dc", path], check=True, capture_output=True).stdout

    assert back == TEXT


@pytest.mark.parametrize("codec", PROGRAMS)
def test_the_highest_strength_makes_no_larger_files_than_the_lowest(tmp_path: Path, codec: Codec) -> None:
    """And the lowest compresses too. In between, codecs may be larger by a little for some data."""
    low, high = (written(tmp_path / str(strength), codec, strength) for strength in (0, 9))

    assert high <= low < len(TEXT) // 2


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("strength", [-1, 10])
def test_a_strength_outside_0_to_9_is_refused(codec: Codec, strength: int) -> None:
    """By the plan, and by what compresses."""
    with pytest.raises(ValidationError, match="strength"):
        TarOptions(root=Path("/srv"), codec=codec, strength=strength)
    with pytest.raises(ValueError, match=f"compression strength of {codec} must be 0 to 9, not {strength}"):
        check_strength(codec, strength)


def test_none_has_one_strength(tmp_path: Path) -> None:
    """Which is not to compress, whatever is asked for."""
    assert {written(tmp_path / str(strength), Codec.NONE, strength) for strength in range(10)} == {len(TEXT)}
