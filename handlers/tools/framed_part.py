"""Makes a part of what flows through a frame writer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from handlers.contract import Frames, Part, Sink
from handlers.tools.codecs import Codec
from handlers.tools.frames import FrameWriter


def coded(part: Part, codec: Codec, frames: Frames | None = None) -> Part:
    """The record of a part together with how it is compressed."""
    return replace(part, codec=str(codec), frames=frames)


def write_part(sink: Sink, name: str, chunks: Iterable[bytes], *, checkpoint: Callable[[], None]) -> Part:
    """A whole new part, compressed with zstd by a single thread; closed on return."""
    out = sink.open_part(name)
    with FrameWriter(out, codec=Codec.ZSTD, threads=1) as writer:
        for chunk in chunks:
            checkpoint()
            writer.write(chunk)
    return coded(out.close(), Codec.ZSTD)
