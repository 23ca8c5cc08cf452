"""What an operator can ask of the tar handler."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from handlers.tools.codecs import Codec
from handlers.tools.tar.match import leaves_nothing


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path, not {path}")
    return path


def _included(name: str) -> str:
    steps = [step for step in name.split("/") if step not in {"", "."}]
    if name.startswith("/") or ".." in steps or "\0" in name or not name:
        raise ValueError(f"must be a name below root, without `..` or a leading slash, not {name!r}")
    return "/".join(steps) or "."


def _pattern(pattern: str) -> str:
    inner = pattern.strip("/")
    if not inner or "\0" in pattern or "\n" in pattern:
        raise ValueError(f"is no pattern: {pattern!r}")
    if inner == "." or inner.startswith("./"):
        raise ValueError(f"cannot start with a dot and a slash: {pattern!r}; a leading `/` stands for root")
    if not inner.replace("*", "").replace("/", ""):
        raise ValueError(f"would leave nothing to back up: {pattern!r}")
    if leaves_nothing(pattern):
        # `?` for instance: the top directory is called `.` in the archive.
        raise ValueError(f"would leave nothing to back up, because it matches a single dot: {pattern!r}")
    return pattern


class TarOptions(BaseModel):
    """A directory as a chain of tar archives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Annotated[Path, AfterValidator(_absolute)]
    """The directory to back up: an absolute path. Members of the archive are named relative to it."""

    include: Annotated[tuple[Annotated[str, AfterValidator(_included)], ...], Field(min_length=1)] = (".",)
    """Names below root, taken literally, with all below them; default: everything. None may contain another."""

    exclude: tuple[Annotated[str, AfterValidator(_pattern)], ...] = ()
    """Patterns of what to leave out, with all below it. A leading `/` stands for root; without it the pattern matches
    at any depth, whole names only: `cache` matches `cache` and `var/cache`, `/cache` the first alone, `var/cache` also
    `srv/var/cache`. `*` and `?` match within one name, `**` across slashes (in a pattern with `**` every `*` does),
    `[a-z]` one of these characters, and a backslash takes the next character literally: `a\\[1]` is the name `a[1]`.
    With a trailing `/` the directory stays, and only what is in it is left out."""

    one_file_system: bool = False
    """Do not follow mount points below root."""

    codec: Codec = Codec.ZSTD
    """How the archive is compressed: none, zstd, gzip, bzip2 or xz."""

    strength: Annotated[int, Field(ge=0, le=9)] | None = None
    """Compression strength, 0 (fastest) to 9 (smallest); default: the codec's own."""

    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    """Threads that compress; default: one per core this process may use, at most 16."""

    xattrs: bool = True
    """Keep extended attributes, file capabilities among them."""

    acls: bool = True
    """Keep POSIX access control lists."""

    sparse: bool = True
    """Store the holes of sparse files as holes."""

    read_ahead: bool = True
    """Ask the kernel early for what GNU tar is going to read, where that is not in memory. Never for what is
    excluded."""

    engine: Literal["auto", "gnu", "internal"] = "auto"
    """What writes the archives: GNU tar, or Holdfast's own code, which makes full backups (level 0) only. `auto` is GNU
    tar where there is one that will do, otherwise the own code, in an image with busybox for instance."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for one, other in combinations(sorted(self.include), 2):
            if one in {other, "."} or other.startswith(one + "/"):
                raise ValueError(f"include: {one!r} contains {other!r}")
        return self
