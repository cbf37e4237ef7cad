"""Write a corpus to begin with: `python -m fuzz.seeds DIR`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import strategies


def main(folder: Path, count: int = 200) -> None:
    """Small valid streams, and small ones of real QEMUs; the target takes the first byte for itself."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [strategies.build(random.Random(n)) for n in range(count)]
    seeds += sorted(strategies.samples(), key=len)[:20]
    for number, data in enumerate(seeds):
        (folder / f"seed-{number:03}").write_bytes(b"\0" + data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
