"""How long the commands take that answer a question about one small stream, as processes, beside a bare Python.

    python benchmarks/bench_commands.py [STREAM OTHER] [--rounds 9] [--json FILE]

STREAM and OTHER: two streams to compare; without them those of pseries-2.6, POWER8, by QEMU 2.6 and 2.7, 2.8 MB each.
Each figure is the median of some rounds; in a round every command runs once, and `python -c pass` between any two, so
that they meet the same load. The goal is at most 20 times `python -c pass`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from vmstate_tools.data import data_path

GOAL = 20
PASS = [sys.executable, "-c", "pass"]


def commands(stream: str, other: str) -> dict[str, list[str]]:
    return {
        "info": [stream],
        "fields": [stream],
        "cpu": [stream],
        "flag": ["PPC_CILDST"],
        "diff": [stream, other],
        "check": [stream, "--to", "2.7.0"],
        "history": ["--cpu", "POWER8"],
        "lint": [stream],
    }


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    taken = time.perf_counter() - start
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: {done.stderr.decode()}")
    return taken


def measure(stream: str, other: str, rounds: int) -> dict[str, float]:
    """Returns the medians in seconds, `python_pass` among them, and of each command how many times that it takes."""
    times: dict[str, list[float]] = {"python_pass": []}
    for number in range(rounds + 1):
        for name, arguments in commands(stream, other).items():
            bare = seconds(PASS)
            taken = seconds([sys.executable, "-m", "vmstate_tools.cli", name, *arguments])
            if number:  # the first round fills the caches
                times["python_pass"].append(bare)
                times.setdefault(name, []).append(taken)
    medians = {name: statistics.median(each) for name, each in times.items()}
    ratios = {f"{name}_over_pass": each / medians["python_pass"] for name, each in medians.items()}
    return {f"{name}_s": each for name, each in medians.items()} | ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("streams", nargs="*", help="two streams to compare")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    releases = ("2.6.0", "2.7.0")
    ours = [str(data_path("streams", f"qemu-{r}", "pseries-2.6", "POWER8_v2.0.mig.zst")) for r in releases]
    stream, other = options.streams or ours
    found = measure(stream, other, options.rounds)
    print(f"python -c pass  {found['python_pass_s']:.4f} s")
    for name in commands(stream, other):
        ratio = found[f"{name}_over_pass"]
        print(f"{name:14}  {found[f'{name}_s']:.4f} s  {ratio:5.1f} times{'' if ratio <= GOAL else '  too slow'}")
    if options.json:
        options.json.write_text(json.dumps({"commands": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
