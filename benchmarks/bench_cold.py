"""Level 0 and level 1 of a tree that is in nobody's memory, against plain GNU tar; what reading ahead is worth.

Empties the kernel's caches between runs, for which it must be root; everything else on the machine gets slower by that.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.harness import MIB, Run, backup, forget, paired, real_tree, shell, workplace, write_config

CACHES = Path("/proc/sys/vm/drop_caches")
TAR = "tar -C tree -cf - . | zstd -q -T0 -3 -f -o out && sync out"
TAR_LEVEL_1 = "cp base.snar l1.snar && tar -C tree -g l1.snar -cf - . | cat >l1.tar && sync l1.tar"


def main() -> None:
    """Print the ratios."""
    if os.geteuid() != 0:
        print("left out: only root may empty the kernel's caches")
        return
    with workplace() as place:
        tree = real_tree(place, files=50_000, size_bytes=500 * MIB)
        for read_ahead in (True, False):
            level0(place, tree, read_ahead=read_ahead)
        for read_ahead in (True, False):
            level1(place, tree, read_ahead=read_ahead)


def level0(place: Path, tree: Path, *, read_ahead: bool) -> None:
    """Everything has to be read."""
    config = write_config(place, tree, read_ahead=read_ahead)

    def ours() -> Run:
        forget(place)
        empty_caches()
        return backup(config)

    def theirs() -> Run:
        empty_caches()
        return shell(TAR, cwd=place)

    name = f"cold caches, holdfast backup, level 0, zstd, read_ahead: {read_ahead}"
    paired(name, ours, {"tar | zstd -T0 -3": theirs}, rounds=3)


def level1(place: Path, tree: Path, *, read_ahead: bool) -> None:
    """Only names and attributes have to be read."""
    forget(place)
    config = write_config(place, tree, read_ahead=read_ahead)
    shell("sleep 1.1 && rm -f base.snar", cwd=place)
    backup(config)
    shell("tar -C tree --listed-incremental=base.snar -cf /dev/null .", cwd=place)

    def ours() -> Run:
        empty_caches()
        return backup(config, "--level", "1")

    def theirs() -> Run:
        empty_caches()
        return shell(TAR_LEVEL_1, cwd=place)

    name = f"cold caches, holdfast backup, level 1, nothing changed, read_ahead: {read_ahead}"
    paired(name, ours, {"tar --listed-incremental": theirs}, rounds=3)


def empty_caches() -> None:
    """So that everything has to come from the disk."""
    os.sync()
    CACHES.write_text("3")


if __name__ == "__main__":
    main()
