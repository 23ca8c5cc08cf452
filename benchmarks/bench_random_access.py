"""One small file out of an archive of 2 GiB: how many of the stored bytes are read.

Goal: < 2 %.
"""

from __future__ import annotations

import os
import subprocess

import orjson

from benchmarks.harness import HOLDFAST, MIB, backup, workplace, write_config


def main() -> None:
    """Print the share."""
    with workplace() as place:
        tree = place / "tree"
        for number in range(20_000):
            file = tree / f"{number // 500:03}" / f"file-{number:05}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(107_000))
        config = write_config(place, tree)
        backup(config)
        stored = sum(file.stat().st_size for file in (place / "store").rglob("*") if file.is_file())
        argv = [str(HOLDFAST), "--config", str(config), "restore", "tree", str(place / "one"), "--json"]
        result = subprocess.run([*argv, "--path", "023/file-11777"], check=True, capture_output=True)
        (restored,) = (place / "one").rglob("file-*")
        assert restored.read_bytes() == (tree / "023" / "file-11777").read_bytes()
        read = orjson.loads(result.stdout.splitlines()[-1])["bytes_read"]
        print(
            f"one file of 107 000 bytes out of {stored / MIB:.0f} MiB: read {read / MIB:.1f} MiB, {read / stored:.2%}"
        )


if __name__ == "__main__":
    main()
