"""The room in which a request is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from handlers.contract import PlanName
from handlers.errors import TemporaryError
from handlers.tools.removal import remove_tree


@contextmanager
def scratch_of(root: Path, plan: PlanName, backup_id: str) -> Iterator[Path]:
    """An empty directory for one request; the caller holds the plan's lock, so what is there is a dead worker's."""
    mine = root / plan
    directory = mine / backup_id
    try:
        remove_tree(mine)
        directory.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise TemporaryError(
            f"scratch directory {directory} cannot be made: {error.strerror}",
            hint="look at the disk of state_dir: room, rights, health",
        ) from error
    try:
        yield directory
    finally:
        try:
            remove_tree(mine)
        except OSError as error:
            logger.warning("scratch_left_behind", path=str(mine), error=str(error), next="the plan's next backup tries")
