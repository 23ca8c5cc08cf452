"""Brings a backup set back into an empty place."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from handlers import registry
from handlers.contract import Control, Restored
from handlers.errors import HoldfastError, PermanentError
from worker.catalog import Catalog, StoredSet


class TargetRefused(PermanentError):
    """The target is not empty, or cannot be one."""

    exit_code = 2


def restore(
    catalog: Catalog, wanted: StoredSet, target: Path, paths: Sequence[bytes], control: Control
) -> tuple[Restored, tuple[StoredSet, ...]]:
    """Restore the state of a set, or only some paths of it, below target; says what it took and from which chain.

    Target is made where it is missing, and refused unless it is an empty directory. When anything goes wrong, what was
    restored is removed again: a target is complete, or empty. Raises TargetRefused, ChainBroken, IntegrityError,
    PermanentError.
    """
    chain = catalog.chain(wanted)
    handler = registry.load(wanted.manifest.handler)
    made = _claim(target)
    try:
        return handler.restore(chain, target, paths, control), chain
    except (HoldfastError, OSError, KeyboardInterrupt):
        empty(target)
        if made:
            target.rmdir()
        raise


def _claim(target: Path) -> bool:
    try:
        target.mkdir(mode=0o700)
        return True
    except FileExistsError:
        if not target.is_dir() or target.is_symlink():
            raise TargetRefused(f"target {target} is not a directory") from None
        if next(target.iterdir(), None) is not None:
            raise TargetRefused(
                f"target {target} is not empty", hint="restore into a new directory, then compare and move"
            ) from None
        return False
    except FileNotFoundError as error:
        raise TargetRefused(f"the parent directory of target {target} does not exist") from error
    except OSError as error:
        raise TargetRefused(f"target {target} cannot be made: {error.strerror}") from error


def empty(directory: Path) -> None:
    """Remove what is below a directory, never following a link out of it."""
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
