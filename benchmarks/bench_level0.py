"""Level 0 of a real tree into a fsynced, verified set, against the bare pipelines with sync.

Goals: zstd <= 1.15 x `tar | zstd -T0 -3`; gzip < `tar | pigz` and <= 1/4 of `tar czf`. The pipelines neither hash nor
read back what they wrote; `verify: none` is measured too, which does the same work but for the hashing.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness import MIB, Run, backup, forget, paired, real_tree, shell, workplace, write_config

ZSTD = {"tar | zstd -T0 -3": "tar -C tree -cf - . | zstd -q -T0 -3 -f -o out && sync out"}
GZIP = {
    "tar | pigz": "tar -C tree -cf - . | pigz >out && sync out",
    "tar czf": "tar -C tree -czf out . && sync out",
}


def main() -> None:
    """Print the ratios, on a small tree, where the start of the program counts, and on a larger one."""
    with workplace() as place:
        tree = real_tree(place, files=50_000, size_bytes=500 * MIB)
        compare(place, tree, "zstd", ZSTD)
        compare(place, tree, "zstd", ZSTD, verify="none")
        compare(place, tree, "gzip", GZIP)
    with workplace() as place:
        tree = real_tree(place, files=100_000, size_bytes=2000 * MIB)
        compare(place, tree, "zstd", ZSTD)
        compare(place, tree, "zstd", ZSTD, verify="none")


def compare(place: Path, tree: Path, codec: str, rivals: dict[str, str], *, verify: str = "checksums") -> None:
    """One codec against the pipelines of the same."""
    config = write_config(place, tree, verify=verify, codec=codec)

    def ours() -> Run:
        forget(place)
        return backup(config)

    paired(
        f"holdfast backup, level 0, {codec}, verify: {verify}",
        ours,
        {name: (lambda script=script: shell(script, cwd=place)) for name, script in rivals.items()},
    )


if __name__ == "__main__":
    main()
