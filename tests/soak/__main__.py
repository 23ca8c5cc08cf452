"""The program behind `make soak`."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.run import Soak


def main() -> int:
    """0 where all promises were kept; else 1, and everything stays where it is, for whoever looks into it."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the trouble lasts")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="what is done, though not when")
    parser.add_argument("--settle", choices=["journalled", "announced"], help="by lot where it is not given")
    chosen = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="holdfast-soak-"))
    _say(f"soak: --seed {chosen.seed}")

    wrong = Soak(place, seed=chosen.seed, seconds=chosen.seconds, say=_say, settle=chosen.settle).run()

    for line in wrong:
        _say(f"soak: WRONG: {line}")
    if not wrong:
        _say("soak: all promises were kept")
        shutil.rmtree(place)
    return bool(wrong)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
