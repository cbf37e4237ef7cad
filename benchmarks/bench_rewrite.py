"""How fast `vmstate rewrite -` passes a stream through a pipe, beside `cat`, and how much memory it takes.

    python benchmarks/bench_rewrite.py [--mib 1024] [--mixed]

A real QEMU writes the stream: a paused guest whose memory is a file of random pages (with --mixed every other page
is zero). Throughput is that of the difference between a long and a short stream, so that the start of Python does not
count; the time for the long one with all is given too. Memory is the most that was resident.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vmstate_tools as vt
from vmstate_tools.source import zstd

REWRITE = [sys.executable, "-m", "vmstate_tools.cli.main", "rewrite", "-", "--set", "cpu/env.gpr[3]=0x1234"]


def stream(folder: Path, mib: int, mixed: bool) -> Path:
    memory = folder / f"memory-{mib}"
    pages = os.urandom(1 << 22)
    if mixed:
        pages = b"".join(pages[i : i + 4096] + bytes(4096) for i in range(0, len(pages), 8192))
    with memory.open("wb") as file:
        for _ in range(mib // 4):
            file.write(pages)
    frame = vt.capture(
        "qemu-system-ppc64",
        "pseries-2.7,memory-backend=m",
        "970_v2.2",
        out=folder / str(mib),
        memory_mib=mib,
        arguments=["-object", f"memory-backend-file,id=m,size={mib}M,mem-path={memory},share=on"],
        timeout=600,
    )
    assert frame["refused"][0] == "", frame["refused"][0]
    memory.unlink()
    out = folder / f"stream-{mib}"
    with (folder / str(mib) / frame["file"][0]).open("rb") as packed, out.open("wb") as file:
        shutil.copyfileobj(zstd.reader(packed), file)
    return out


def through(command: list[str], file: Path) -> float:
    """Seconds for `cat FILE | command | cat > /dev/null`."""
    start = time.perf_counter()
    with file.open("rb") as content, Path(os.devnull).open("wb") as nothing:
        feed = subprocess.Popen(["cat"], stdin=content, stdout=subprocess.PIPE)
        work = subprocess.Popen(command, stdin=feed.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        drain = subprocess.Popen(["cat"], stdin=work.stdout, stdout=nothing)
        for process in (feed, work):
            assert process.stdout is not None
            process.stdout.close()
        drain.wait()
        work.wait()
        feed.wait()
    assert work.returncode == 0
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        short, long = stream(folder, 256, options.mixed), stream(folder, options.mib, options.mixed)
        more = long.stat().st_size - short.stat().st_size
        print(f"stream of {long.stat().st_size >> 20} MiB, {options.mib} MiB of guest memory")
        rates = {}
        for what, command in (("cat", ["cat"]), ("vmstate rewrite", REWRITE)):
            best = {file: min(through(command, file) for _ in range(options.rounds)) for file in (short, long)}
            rates[what] = more / (best[long] - best[short])
            print(f"{what:16} {rates[what] / 1e6:6.0f} MB/s sustained, {best[long]:.2f} s in all")
        print(f"ratio            {rates['vmstate rewrite'] / rates['cat']:.2f}")
        peaks = {file: peak(file) >> 10 for file in (short, long)}
        for file, mib in peaks.items():
            print(f"peak memory      {mib} MiB for {file.stat().st_size >> 20} MiB")
    if options.json:
        found = {what: rate / 1e6 for what, rate in rates.items()} | {"peak_mib": max(peaks.values())}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def peak(file: Path) -> int:
    """KiB that the filter had resident at most."""
    code = (
        "import subprocess, resource, sys;"
        "subprocess.run(sys.argv[2:], stdin=open(sys.argv[1], 'rb'), stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL, check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    return int(
        subprocess.run([sys.executable, "-c", code, str(file), *REWRITE], capture_output=True, check=True).stdout
    )


if __name__ == "__main__":
    main()
