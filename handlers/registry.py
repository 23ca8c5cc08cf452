"""Finds handlers by name among the installed entry points `holdfast.handlers`."""

from __future__ import annotations

from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points

from handlers.contract import Handler
from handlers.errors import PermanentError

GROUP = "holdfast.handlers"


def names() -> tuple[str, ...]:
    """The names of all installed handlers, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load(name: str) -> Handler:
    """The handler of that name. Raises PermanentError for a name nobody registered."""
    found = _ours(name) or list(entry_points(group=GROUP, name=name))
    if not found:
        raise PermanentError(f"unknown handler {name!r}", hint=f"installed handlers: {', '.join(names())}")
    handler: Handler = found[0].load()()
    return handler


def _ours(name: str) -> list[EntryPoint]:
    """Where it is one of this distribution: found without reading the metadata of all that is installed."""
    try:
        return list(distribution("holdfast").entry_points.select(group=GROUP, name=name))
    except PackageNotFoundError:
        return []
