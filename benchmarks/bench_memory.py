"""Peak memory of the worker's process at 1 000 000 files, and at one file of 10 GiB.

Goal: <= 150 MiB in each case.
"""

from __future__ import annotations

import os
import shutil

from benchmarks.harness import HOLDFAST, MIB, backup, measured, small_files, workplace, write_config


def main() -> None:
    """Print the peaks; a backup, its verification, the listing and a restore are measured."""
    with workplace() as place:
        tree = small_files(place, files=1_000_000)
        config = write_config(place, tree)
        print(f"1 000 000 files, level 0: {backup(config).peak_mib:.0f} MiB (the largest process, tar included)")
        print(f"1 000 000 files, level 1: {backup(config).peak_mib:.0f} MiB")
        restored = measured([str(HOLDFAST), "--config", str(config), "restore", "tree", str(place / "restored")])
        print(f"1 000 000 files, restore: {restored.peak_mib:.0f} MiB in {restored.wall:.0f} s")
        deep = measured([str(HOLDFAST), "--config", str(config), "verify", "tree", "--deep"])
        print(f"1 000 000 files, verify --deep: {deep.peak_mib:.0f} MiB in {deep.wall:.0f} s")
    with workplace() as place:
        tree = place / "tree"
        tree.mkdir()
        block = os.urandom(MIB) + bytes(3 * MIB)
        with (tree / "large").open("wb") as file:
            for _ in range(10 * 1024 // 4):
                file.write(block)
        config = write_config(place, tree)
        print(f"one file of 10 GiB, level 0: {backup(config).peak_mib:.0f} MiB")
        shutil.rmtree(tree)


if __name__ == "__main__":
    main()
