"""Level 1 of 1 000 000 files of which none changed, against GNU tar alone.

Goal: <= 1.1 x `tar --listed-incremental`.
"""

from __future__ import annotations

import statistics

from benchmarks.harness import Run, backup, paired, shell, small_files, workplace, write_config


def main() -> None:
    """Print the ratio, of the whole process and of what is left when 0.5 s for its start are taken off."""
    with workplace() as place:
        tree = small_files(place, files=1_000_000)
        config = write_config(place, tree)
        shell("sleep 1.1", cwd=place)  # GNU tar dumps again what is younger than its snapshot's second
        backup(config)
        shell("tar -C tree --listed-incremental=base.snar -cf /dev/null .", cwd=place)
        mine: list[float] = []
        others: list[float] = []

        def ours() -> Run:
            run = backup(config, "--level", "1")
            mine.append(run.wall)
            return run

        def theirs() -> Run:
            run = shell(
                "cp base.snar l1.snar && tar -C tree -g l1.snar -cf - . | cat >l1.tar && sync l1.tar", cwd=place
            )
            others.append(run.wall)
            return run

        paired("holdfast backup, level 1, nothing changed, 1 000 000 files", ours, {"tar --listed-incremental": theirs})
        left = statistics.median((m - 0.5) / t for m, t in zip(mine[1:], others[1:], strict=True))
        print(f"    without 0.5 s of start: ratio {left:.2f}")


if __name__ == "__main__":
    main()
