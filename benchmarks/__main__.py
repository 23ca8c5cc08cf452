"""Runs all benchmarks, or the ones that are named: `python -m benchmarks level0 latency`."""

from __future__ import annotations

import importlib
import sys

ALL = ("level0", "level1", "cold", "memory", "latency", "random_access", "accept", "stage")


def main(names: list[str]) -> None:
    """Each prints its own figures."""
    for name in names or ALL:
        print(f"== {name}")
        importlib.import_module(f"benchmarks.bench_{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
