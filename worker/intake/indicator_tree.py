"""Keeps watch over the directories of some patterns, and knows which indicators are worth a look.

A tree of nodes, one for each directory on the way from a pattern's beginning to its collect directories. Each is
listened to where that is possible, and looked at from time to time where it is not. Whatever a hint says, what counts
is what a look at the directory shows. For one thread.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from loguru import logger

from worker.intake.hints import is_remote_kind
from worker.intake.indicator_places import Pattern, Place, fits, is_wild, names_in, open_base, open_step
from worker.intake.indicator_sighting import Sighting
from worker.intake.spool_dirs import shown
from worker.intake.watches import ITSELF, Watch, Watches
from worker.mounts import file_system, kinds_by_device

WATCH_LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_watches")
_ABSENT: Final = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_OF_THE_MACHINE: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_LED_ELSEWHERE: Final = "it is a symbolic link; the directory that it leads to has to be named itself"


class Node:
    """One directory on the way to indicators, or in which they are."""

    __slots__ = (
        "children",
        "dropped",
        "identity",
        "indicator",
        "look_at",
        "looked_at",
        "odd",
        "parent",
        "pattern",
        "place",
        "reliable",
        "seen",
        "steps",
        "taken",
        "told",
        "watch",
    )

    def __init__(self, pattern: Pattern, place: Place, parent: Node | None, indicator: str) -> None:
        self.pattern = pattern
        self.place = place
        self.parent = parent
        self.indicator = indicator
        self.steps: Sequence[str] = pattern.steps[len(place.names) :]
        self.children: dict[str, Node] = {}
        self.identity: tuple[int, int] | None = None
        self.watch: Watch[Node] | None = None
        self.reliable = False
        self.dropped = False
        self.told: str | None = None
        """The trouble that the log has."""
        self.taken: Sighting | None = None
        """The indicator that lies there, once it was brought."""
        self.seen: tuple[tuple[int, ...], float] | None = None
        """The indicator as it was at the last look, and since when, by the monotonic clock."""
        self.look_at = math.inf
        """When to look again, by the monotonic clock."""
        self.looked_at = False
        """Whether indicators were looked for since the directory was come upon."""
        self.odd: str | None = None
        """Why what has the indicator's name is none; the log has it."""

    @property
    def is_last(self) -> bool:
        """Whether indicators are in it."""
        return not self.steps

    def cares_for(self, name: str, *, directory: bool) -> bool:
        """Whether a change of this name matters here."""
        return name == self.indicator if self.is_last else directory


class Tree:
    """The directories of one name in the configuration."""

    def __init__(
        self,
        patterns: Sequence[Pattern],
        watches: Watches[Node],
        *,
        indicator: str,
        poll_seconds: float,
        on_look: Callable[[Node, int], None],
    ) -> None:
        """`on_look` is called for each collect directory that is come upon, with a descriptor of it."""
        self._watches = watches
        self._poll_seconds = poll_seconds
        self._on_look = on_look
        self._roots = [Node(pattern, Place(pattern.base, ()), None, indicator) for pattern in patterns]
        self._kinds: dict[int, str | None] = {}
        self._unwatched: dict[Node, int] = {}
        self._unreliable: set[Node] = set()
        self._told_unwatched: frozenset[int] = frozenset()
        self.trouble: str | None = None
        """Why nothing can be found at all."""

    def look_everywhere(self) -> Iterator[None]:
        """Look at everything there is; a step at a time, so that hints can be heeded in between."""
        self._kinds = dict(kinds_by_device())
        troubles = []
        for root in self._roots:
            yield from self._enter_root(root)
            if root.told is not None:
                troubles.append(f"{root.pattern.base}: {root.told}")
        self.trouble = "; ".join(troubles) if len(troubles) == len(self._roots) else None
        self._tell_unwatched()

    def look_where_unheard(self) -> Iterator[None]:
        """Look at what cannot be listened to."""
        for node in list(self._unreliable):
            # What is below another of them is come upon from there.
            if not node.dropped and node.parent not in self._unreliable:
                yield from self._revisit(node)

    @property
    def hears_all(self) -> bool:
        """Whether the kernel tells of every change."""
        return not self._unreliable

    def heed(self, node: Node, name: str, bits: int) -> None:
        """Look at what a hint is about, except at an indicator: that is for the caller to do."""
        if node.dropped:
            return
        if name and not node.is_last:
            walk = self._step_into(node, name)
        elif bits & ITSELF and node.parent is not None:
            walk = self._step_into(node.parent, node.place.names[-1])
        else:
            walk = self._revisit(node)
        for _ in walk:
            pass

    def _step_into(self, node: Node, name: str) -> Iterator[None]:
        if node.identity is None:
            # Not there when we looked last: the hint is of a directory above, on the way to it.
            yield from self._revisit(node)
            return
        if not fits(name, node.steps[0]):
            return
        try:
            descriptor = node.place.open()
        except OSError:
            yield from self._revisit(node)
            return
        try:
            yield from self._enter(node, descriptor, name)
        finally:
            os.close(descriptor)

    def _revisit(self, node: Node) -> Iterator[None]:
        if node.parent is None:
            yield from self._enter_root(node)
        else:
            yield from self._step_into(node.parent, node.place.names[-1])

    def _enter_root(self, root: Node) -> Iterator[None]:
        try:
            descriptor = open_base(root.place.base, to_list=_lists(root))
        except OSError as error:
            self._empty(root)
            if error.errno in _ABSENT:
                root.told = None
                self._await_base(root)
                if os.path.isdir(root.place.base):  # noqa: PTH112 - made since an instant ago
                    yield from self._enter_root(root)
                return
            _raise_if_of_the_machine(error)
            self._tell(root, str(error.strerror))
            return
        try:
            yield from self._visit(root, descriptor)
        finally:
            os.close(descriptor)

    def _await_base(self, root: Node) -> None:
        """Listen to the nearest directory above that is there: the way may be made from there."""
        above = Path(root.place.base)
        while above != above.parent:
            above = above.parent
            with suppress(OSError):
                descriptor = open_base(str(above), to_list=False)
                try:
                    root.watch = self._watches.watch(descriptor, root)
                finally:
                    os.close(descriptor)
                return

    def _enter(self, node: Node, descriptor: int, name: str) -> Iterator[None]:
        """Visit the directory of this name in the node's."""
        child = node.children.get(name)
        try:
            inside = open_step(descriptor, name, to_list=len(node.steps) > 1 and is_wild(node.steps[1]))
        except OSError as error:
            if error.errno in _ABSENT and not _is_link(descriptor, name):
                self._drop(node.children.pop(name, None))
                return
            _raise_if_of_the_machine(error)
            # It stays in the tree, so that it is told once.
            if child is None:
                child = node.children[name] = self._child(node, name)
            self._empty(child)
            self._tell(child, _LED_ELSEWHERE if _is_link(descriptor, name) else str(error.strerror))
            return
        if child is None:
            child = node.children[name] = self._child(node, name)
        try:
            yield from self._visit(child, inside)
        finally:
            os.close(inside)

    def _child(self, node: Node, name: str) -> Node:
        return Node(node.pattern, Place(node.place.base, (*node.place.names, name)), node, node.indicator)

    def _visit(self, node: Node, descriptor: int) -> Iterator[None]:
        node.told = None
        # The watch first, the look second: what comes between them is seen by both.
        self._listen(node, descriptor)
        if node.is_last:
            self._on_look(node, descriptor)
            yield
            return
        step = node.steps[0]
        if is_wild(step):
            try:
                names = names_in(descriptor, step)
            except OSError as error:
                _raise_if_of_the_machine(error)
                self._tell(node, str(error.strerror))
                return
            for gone in node.children.keys() - set(names):
                self._drop(node.children.pop(gone))
        else:
            names = [step]
        for name in names:
            if node.dropped:
                return
            yield from self._enter(node, descriptor, name)

    def _listen(self, node: Node, descriptor: int) -> None:
        found = os.fstat(descriptor)
        identity = (found.st_dev, found.st_ino)
        if node.watch is not None and not node.watch.dead and node.identity == identity:
            return
        if node.identity is not None and node.identity != identity:
            self._empty(node)
        elif node.watch is not None:
            self._watches.drop(node.watch)
        node.watch = None
        node.identity = identity
        try:
            node.watch = self._watches.watch(descriptor, node)
            self._unwatched.pop(node, None)
        except OSError as error:
            self._unwatched[node] = error.errno or errno.EACCES
        # A watch does no harm on a remote file system: it tells at once what this machine does there.
        node.reliable = node.watch is not None and not self._is_remote(found.st_dev, descriptor)
        (self._unreliable.discard if node.reliable else self._unreliable.add)(node)

    def _is_remote(self, device: int, descriptor: int) -> bool:
        if device not in self._kinds:
            # Some file systems have more device numbers than the kernel's table tells.
            self._kinds[device] = file_system(Path(f"/proc/self/fd/{descriptor}"))
        return is_remote_kind(self._kinds[device])

    def _empty(self, node: Node) -> None:
        """Forget what was known of the directory: another one is there now, or none."""
        if node.watch is not None:
            self._watches.drop(node.watch)
        node.watch = None
        node.identity = None
        node.seen = None
        node.looked_at = False
        self._unwatched.pop(node, None)
        self._unreliable.discard(node)
        for child in node.children.values():
            self._drop(child)
        node.children.clear()

    def _drop(self, node: Node | None) -> None:
        if node is not None:
            self._empty(node)
            node.dropped = True

    def _tell(self, node: Node, trouble: str) -> None:
        # Once for each time it begins, not once for each look.
        if node.told != trouble:
            node.told = trouble
            logger.warning(
                "indicator_directory_closed",
                directory=shown(node.place.path),
                error=trouble,
                next="indicators in it are not seen; it is tried again with every scan",
            )

    def _tell_unwatched(self) -> None:
        reasons = Counter(self._unwatched.values())
        if frozenset(reasons) == self._told_unwatched:
            return
        self._told_unwatched = frozenset(reasons)
        if not reasons:
            logger.info("indicator_directories_watched")
            return
        example = next(iter(self._unwatched))
        logger.warning(
            "indicator_directories_unwatched",
            directories=len(self._unwatched),
            directory=shown(example.place.path),
            error=", ".join(os.strerror(code) for code in sorted(reasons)),
            next=f"these are looked at every {self._poll_seconds:g} seconds",
            hint=_hint(reasons),
        )


def _hint(reasons: Counter[int]) -> str:
    if errno.ENOSPC in reasons:
        try:
            limit = int(WATCH_LIMIT.read_text())
        except (OSError, ValueError):
            limit = 0
        enough = 2 * max(limit, reasons[errno.ENOSPC])
        return f"sysctl -w fs.inotify.max_user_watches={enough} (now {limit or 'unknown'}, for all programs of a user)"
    if errno.EMFILE in reasons:
        return "sysctl fs.inotify.max_user_instances, and the limit of open files"
    return "the worker's user has to be allowed to read a directory in order to listen to it"


def _raise_if_of_the_machine(error: OSError) -> None:
    """No directory's own trouble: all have it, and it is told once."""
    if error.errno in _OF_THE_MACHINE:
        raise error


def _lists(node: Node) -> bool:
    return bool(node.steps) and is_wild(node.steps[0])


def _is_link(descriptor: int, name: str) -> bool:
    with suppress(OSError):
        return stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
    return False
