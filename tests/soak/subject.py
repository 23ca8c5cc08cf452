"""A subject that changes at random, and remembers what it was at any time."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.workshop import checker

TICK_SECONDS = 0.05
"""The kernel stamps files by a clock that stands still between ticks: what happens closer together than this cannot be
put in order by looking at files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What the subject was, from the end of one change to the begin of the next; seconds since 1970."""

    changed_from: float
    changed_until: float
    tree: checker.Tree


class Subject:
    """One directory; nobody else changes it."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root = root
        self._rng = rng
        self._serial = 0
        self._history: list[Version] = []
        begun = time.time()
        root.mkdir(parents=True)
        for _ in range(30):
            self._make()
        self._remember(begun)

    @property
    def versions(self) -> int:
        """How often it was changed."""
        return len(self._history)

    def change(self) -> None:
        """Do a few things to it that people do."""
        begun = time.time()
        deeds: list[Callable[[], None]] = [
            self._make,
            self._make,
            self._make_directory,
            self._overwrite,
            self._overwrite,
            self._append,
            self._delete,
            self._rename,
            self._rename_directory,
            self._delete_directory,
            self._change_mode,
            self._link,
        ]
        for deed in self._rng.choices(deeds, k=self._rng.randint(1, 5)):
            deed()
        self._remember(begun)

    def between(self, begun: float, ended: float) -> checker.Tree | None:
        """What it was all that time; None where it was changing then."""
        for version, following in zip(self._history, [*self._history[1:], None], strict=True):
            settled = version.changed_until + TICK_SECONDS < begun
            if settled and (following is None or following.changed_from > ended + TICK_SECONDS):
                return version.tree
        return None

    def _remember(self, begun: float) -> None:
        self._history.append(Version(changed_from=begun, changed_until=time.time(), tree=checker.tree(self.root)))

    def _make(self) -> None:
        self._fresh().write_bytes(self._bytes())

    def _make_directory(self) -> None:
        path = self._fresh()
        path.mkdir()
        (path / "first").write_bytes(self._bytes())

    def _overwrite(self) -> None:
        # Often as long as before: only its time tells.
        if path := self._some(Path.is_file):
            path.write_bytes(self._rng.randbytes(path.stat().st_size))

    def _append(self) -> None:
        if path := self._some(Path.is_file):
            with path.open("ab") as file:
                file.write(self._bytes())

    def _delete(self) -> None:
        if path := self._some(Path.is_file):
            path.unlink()

    def _rename(self) -> None:
        if path := self._some(Path.is_file):
            path.rename(self._fresh())

    def _rename_directory(self) -> None:
        if path := self._some(Path.is_dir):
            path.rename(path.with_name(self._name()))

    def _delete_directory(self) -> None:
        if path := self._some(Path.is_dir):
            shutil.rmtree(path)

    def _change_mode(self) -> None:
        if path := self._some(Path.is_file):
            path.chmod(self._rng.choice([0o600, 0o640, 0o644, 0o755, 0o4755]))

    def _link(self) -> None:
        self._fresh().symlink_to(self._name())

    def _some(self, kind: Callable[[Path], bool]) -> Path | None:
        found = [path for path in sorted(self.root.rglob("*")) if not path.is_symlink() and kind(path)]
        return self._rng.choice(found) if found else None

    def _fresh(self) -> Path:
        directories = [self.root, *(path for path in sorted(self.root.rglob("*")) if path.is_dir())]
        return self._rng.choice(directories) / self._name()

    def _name(self) -> str:
        self._serial += 1
        return self._rng.choice(["file", "with space", "new\nline", "größe", "-dash", "back\\slash"]) + str(
            self._serial
        )

    def _bytes(self) -> bytes:
        return self._rng.randbytes(self._rng.choice([0, 1, 511, 512, 4_000, 60_000]))
