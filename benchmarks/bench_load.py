"""How fast many streams become frames, and how much memory they take.

    python benchmarks/bench_load.py CAPTURES [--streams 1000] [--workers 2] [--json FILE]

The streams are all of CAPTURES in turn, until there are enough. Each count runs in a process of its own, which has
imported what it needs; the workers' start counts. Beside it, in the same run: the same workers only read and unpack
the files.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import vmstate_tools as vt
from vmstate_tools.frames import collection  # noqa: F401 - so that its imports are not measured
from vmstate_tools.source import open_source


def unpack(path: str) -> int:
    with open_source(path) as source:
        return len(source.view)


def once(folder: Path, count: int, workers: int) -> dict[str, float]:
    have = sorted(str(p) for p in folder.glob("qemu-*/**/*.mig.zst") if "mapped-ram" not in p.name)
    paths = list(islice(cycle(have), count))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with ProcessPoolExecutor(workers) as pool:
        collection = vt.load(paths, executor=pool, progress=False)
    loaded = time.perf_counter()
    rows, cpus = len(collection.fields), len(collection.cpu)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    worker_peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with ProcessPoolExecutor(workers) as pool:
        unpacked = sum(pool.map(unpack, paths, chunksize=32))
    unpack_s = time.perf_counter() - end
    return {
        "streams": count,
        "errors": len(collection.errors),
        "rows": rows,
        "cpus": cpus,
        "load_s": loaded - start,
        "frames_s": end - loaded,
        "streams_per_s": count / (end - start),
        "unpack_s": unpack_s,
        "unpacked_mib": unpacked / (1 << 20),
        "against_unpacking": (end - start) / unpack_s,
        "peak_mib": peak / 1024,
        "peak_kib_per_stream": peak / count,
        "worker_peak_mib": worker_peak / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help="in this process; one count")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(once(options.captures, options.streams[0], options.workers)))
        return
    found = []
    for count in options.streams:
        command = [sys.executable, __file__, str(options.captures), "--here", "--streams", str(count)]
        command += ["--workers", str(options.workers)]
        found.append(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
        print(" ".join(f"{k} {v:.4g}" for k, v in found[-1].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"load": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
