"""Files of every odd kind, each made in a directory of its own and changed once: what a backup must bring back.

What a file system cannot hold is told by `Unheld`, after the rest was made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.workshop import odd_attributes, odd_contents, odd_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Oddity:
    """One kind of files."""

    make: Callable[[Path], None]
    change: Callable[[Path], None]
    """Between the first level and the second."""
    needs_root: bool = False


ODDITIES = {
    "links": Oddity(make=odd_contents.make_links, change=odd_contents.change_links),
    "holes": Oddity(make=odd_contents.make_holes, change=odd_contents.change_holes),
    "attributes": Oddity(make=odd_attributes.make_attributes, change=odd_attributes.change_attributes),
    "access lists": Oddity(make=odd_attributes.make_access_lists, change=odd_attributes.change_access_lists),
    "capabilities": Oddity(
        make=odd_attributes.make_capabilities, change=odd_attributes.change_capabilities, needs_root=True
    ),
    "modes": Oddity(make=odd_attributes.make_modes, change=odd_attributes.change_modes),
    "devices": Oddity(make=odd_attributes.make_devices, change=odd_attributes.change_devices, needs_root=True),
    "names": Oddity(make=odd_names.make_names, change=odd_names.change_names),
    "long": Oddity(make=odd_names.make_long, change=odd_names.change_long),
    "nested": Oddity(make=odd_names.make_nested, change=odd_names.change_nested),
    "times": Oddity(make=odd_attributes.make_times, change=odd_attributes.change_times),
    "empty": Oddity(make=odd_contents.make_empty, change=odd_contents.change_empty),
    "twins": Oddity(make=odd_names.make_twins, change=odd_names.change_twins),
    "owners": Oddity(make=odd_attributes.make_owners, change=odd_attributes.change_owners, needs_root=True),
    "symlinks": Oddity(make=odd_contents.make_symlinks, change=odd_contents.change_symlinks),
    "locked": Oddity(make=odd_names.make_locked, change=odd_names.change_locked),
    "types": Oddity(make=odd_contents.make_types, change=odd_contents.change_types),
}
