"""SHA-256 over what flows by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from handlers.errors import IntegrityError


def checked(chunks: Iterable[bytes], *, size_bytes: int, sha256: str, name: str) -> Iterator[bytes]:
    """The chunks as they come; raises IntegrityError at the end unless they were exactly what was promised."""
    digest = hashlib.sha256()
    seen = 0
    for chunk in chunks:
        digest.update(chunk)
        seen += len(chunk)
        yield chunk
    if seen != size_bytes:
        raise IntegrityError(f"{name} has {seen} bytes, its manifest says {size_bytes}")
    if digest.hexdigest() != sha256:
        raise IntegrityError(f"{name} has SHA-256 {digest.hexdigest()}, its manifest says {sha256}")
