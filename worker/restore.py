"""Brings a backup set back into an empty place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loguru import logger

from handlers import registry
from handlers.contract import Control, Restored
from handlers.errors import HoldfastError, PermanentError
from handlers.tools.deep_tree import count_below
from handlers.tools.removal import remove_below
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
        restored = handler.restore(chain, target, paths, control)
        # Levels hold a file that changed more than once, so their members say less.
        return replace(restored, files=count_below(target)), chain
    except (HoldfastError, OSError, KeyboardInterrupt):
        _undo(target, made=made)
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


def _undo(target: Path, *, made: bool) -> None:
    try:
        remove_below(target)
        if made:
            target.rmdir()
    except OSError as error:
        # What went wrong before is what the caller must hear of.
        logger.warning("target_not_emptied", target=str(target), error=str(error), next="remove it by hand")
