"""Verdicts per second: streams of a directory against 20 destinations.

python benchmarks/bench_matrix.py CAPTURES [--streams 1000] [--workers 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from vmstate_tools.compat import Destination, matrix

RELEASES = ("2.3.0", "2.4.0", "2.5.0", "2.6.0", "2.7.0", "2.8.0", "2.9.0", "2.10.0", "2.11.0", "2.12.0", "3.0.0",
            "3.1.0", "4.0.0", "4.2.0", "5.0.0", "5.2.0", "6.2.0", "7.0.0", "7.2.0", "8.2.0")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.captures.glob("qemu-*/pseries*/*.mig.zst"))[: arguments.streams]
    destinations = [Destination(release=r, accel="tcg") for r in RELEASES]
    start = time.perf_counter()
    if arguments.workers > 1:
        with ProcessPoolExecutor(arguments.workers) as pool:
            frame = matrix(paths, destinations, executor=pool, progress=False)
    else:
        frame = matrix(paths, destinations, progress=False)
    seconds = time.perf_counter() - start
    print(
        f"{len(paths)} streams x {len(destinations)} destinations: {len(frame)} verdicts in {seconds:.1f} s, "
        f"{int(frame['loads'].sum())} load"
    )
    if arguments.json:
        found = {"streams": len(paths), "destinations": len(destinations), "verdicts": len(frame), "seconds": seconds}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
