"""How fast one stream becomes a frame, and a command answers, beside QEMU's own script and a bare Python.

    python benchmarks/bench_decode.py --peer analyze-migration.py STREAM... [--json FILE]

The peer is `scripts/analyze-migration.py` of a QEMU checkout. Each figure is the median of some rounds, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import vmstate_tools as vt

if TYPE_CHECKING:
    from collections.abc import Callable

VMSTATE = [str(Path(sys.executable).with_name("vmstate"))]


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def process(*command: str) -> Callable[[], object]:
    return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def frame(path: Path) -> int:
    with vt.open(path) as stream:
        return len(stream.fields())


def measure(path: Path, peer: Path | None, rounds: int) -> dict[str, float | str]:
    actions: dict[str, Callable[[], object]] = {
        "python_pass": process(sys.executable, "-c", "pass"),
        "info": process(*VMSTATE, "info", str(path)),
        "frame_in_process": lambda: frame(path),
        "fields": process(*VMSTATE, "fields", str(path)),
        "fields_csv": process(*VMSTATE, "fields", str(path), "--format", "csv"),
    }
    if peer is not None:
        actions["analyze_migration"] = process(sys.executable, str(peer), "-f", str(path))
    first = seconds(lambda: frame(path))  # imports, and a description that was not seen before
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            times[name].append(seconds(action))
    found: dict[str, float | str] = {"stream": path.name, "first_frame_s": first}
    median = {name: statistics.median(each) for name, each in times.items()}
    found |= {f"{name}_s": value for name, value in median.items()}
    found["info_over_python"] = median["info"] / median["python_pass"]
    if peer is not None:
        found["peer_over_frame"] = median["analyze_migration"] / median["frame_in_process"]
        found["peer_over_fields"] = median["analyze_migration"] / median["fields"]
        found["peer_over_fields_csv"] = median["analyze_migration"] / median["fields_csv"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("streams", type=Path, nargs="+", help="not compressed: the peer reads no other")
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = [measure(path, options.peer, options.rounds) for path in options.streams]
    for each in found:
        print(each["stream"])
        for key, value in each.items():
            if isinstance(value, float):
                print(f"  {key:24}{value:10.3f}")
    if options.json:
        options.json.write_text(json.dumps({"decode": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
