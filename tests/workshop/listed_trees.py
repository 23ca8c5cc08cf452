"""Trees as sets have them: a directory, with the parts that list it in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from handlers.contract import FileProblem, Part, Progress, Restored
from handlers.tools.codecs import Codec
from handlers.tools.frame_reader import decompress_stream
from handlers.tools.trees import check, listing
from handlers.tools.trees.listing import Known, Listed, nothing_known
from handlers.tools.trees.mtree import Item, items
from handlers.tools.trees.restore import restore
from tests.workshop.tar_sets import framed

NAME = "tree"


def go_on() -> None:
    """A checkpoint that never stops anything."""


class MemoryPart:
    """One part being written."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.content = bytearray()
        self.closed = False

    def write(self, chunk: bytes | bytearray | memoryview, /) -> int:
        """Take it all."""
        self.content += chunk
        return len(chunk)

    def close(self) -> Part:
        """What was written."""
        self.closed = True
        sha256 = hashlib.sha256(self.content).hexdigest()
        return Part(name=self._name, size_bytes=len(self.content), sha256=sha256)


class ListedTree:
    """A tree that was listed."""

    def __init__(self, root: Path, *, known: Known = nothing_known, name: str = NAME) -> None:
        self.root = root
        self.name = name
        self.parts: dict[str, MemoryPart] = {}
        self.problems: list[FileProblem] = []
        self.read = 0
        self.listed: Listed = listing.write(
            root,
            name,
            self._open_part,
            known=known,
            problem=self.problems.append,
            checkpoint=go_on,
            report=self._report,
        )

    def stored(self, size: int = 10_000) -> Iterator[bytes]:
        """The stored part with the attributes, in chunks."""
        content = bytes(self.parts[f"{self.name}.mtree.zst"].content)
        return (content[at : at + size] for at in range(0, len(content), size))

    @property
    def sums(self) -> bytes:
        """The lines for `sha256sum -c`."""
        return plain(bytes(self.parts[f"{self.name}.sha256.zst"].content))

    @property
    def mtree(self) -> bytes:
        """The lines for `mtree`."""
        return b"".join(decompress_stream(self.stored(), Codec.ZSTD))

    def items(self) -> dict[bytes, Item]:
        """What the listing says, by path."""
        return {item.path: item for item in items(self.stored())}

    def check(self, root: Path | None = None, checkpoint: Callable[[], None] = go_on) -> tuple[int, int]:
        """The tree, or another one, against this listing."""
        return check.check(root or self.root, self.stored(), name=self.name, checkpoint=checkpoint, report=self._report)

    def restore(self, target: Path, *paths: bytes, checkpoint: Callable[[], None] = go_on) -> Restored:
        """All of it, or these paths, below target, which is made."""
        target.mkdir(exist_ok=True)
        return restore(self.root, self.stored, target, paths, checkpoint=checkpoint, report=_forget)

    def differences(self, restored: Path) -> list[tuple[str, str]]:
        """Where a restored tree is not as listed."""
        found = check.compare(self.stored(), restored, checkpoint=go_on, report=self._report)
        return [(difference.path, difference.what) for difference in found]

    def _open_part(self, name: str) -> MemoryPart:
        assert name not in self.parts
        self.parts[name] = MemoryPart(name)
        return self.parts[name]

    def _report(self, size_bytes: int) -> None:
        self.read += size_bytes


def stored_text(text: bytes) -> Iterator[bytes]:
    """A listing of these lines as it is stored."""
    yield framed(text, Codec.ZSTD, 1 << 16)[0]


def plain(stored: bytes) -> bytes:
    """What is in a stored part."""
    return b"".join(decompress_stream(iter([stored]), Codec.ZSTD))


def _forget(progress: Progress) -> None:
    assert progress.files >= 0


def names_in(root: Path) -> list[bytes]:
    """What is in a directory."""
    return sorted(os.fsencode(path.name) for path in root.iterdir())
