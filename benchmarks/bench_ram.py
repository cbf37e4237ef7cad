"""How fast RAM is walked, opened and extracted, each against a peer in the same run.

    python benchmarks/bench_ram.py [--mib 1024] [--dir DIR] [--json FILE]

Streams are made on the spot: RAM sections of one block, its pages random bytes; all full; full and zero
alternating at random; mapped-ram.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.source.content import Content
from vmstate_tools.stream.ram import Ram

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096
NAME = b"pc.ram"


def be64(*words: int) -> bytes:
    return struct.pack(f">{len(words)}Q", *words)


def write_stream(path: Path, pages: int, full: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    with path.open("wb") as out:
        entry = bytes([len(NAME)]) + NAME + be64(pages * PAGE)
        out.write(be64(pages * PAGE | 4) + entry + be64(16))
        content = rng.bytes(PAGE * 256)
        for i in range(pages):
            head = i * PAGE | (8 if full[i] else 2) | (0x20 if i else 0)
            out.write(be64(head) + (b"" if i else bytes([len(NAME)]) + NAME))
            out.write(content[i % 256 * PAGE :][:PAGE] if full[i] else b"\0")
        out.write(be64(16))


def write_mapped(path: Path, pages: int) -> None:
    bitmap = 8 + 1 + len(NAME) + 8 + 28
    start = 1 << 20
    with path.open("wb") as out:
        out.write(be64(pages * PAGE | 4) + bytes([len(NAME)]) + NAME + be64(pages * PAGE))
        out.write(struct.pack(">IQQQ", 1, PAGE, bitmap, start) + b"\xff" * (pages // 8))
        out.seek(start)
        content = np.random.default_rng(1).bytes(1 << 20)
        for _ in range(pages * PAGE >> 20):
            out.write(content)
        out.write(be64(16))


def walk(path: Path, capabilities: frozenset[str] = frozenset(), *, count: bool = True) -> tuple[Ram, Content]:
    content = Content.of_file(path.open("rb"), str(path), path.stat().st_size)  # as `vt.open` has a file
    ram = Ram(content.view, page_size=PAGE, capabilities=capabilities)
    at = 0
    while at < len(content.view):
        at = ram.parse(at, part="part")
    if count:
        assert int(ram.pages[["normal", "zero"]].to_numpy().sum()) == int(ram.blocks.used_length[0]) // PAGE
    return ram, content


def best(action: Callable[[], object], n: int = 5) -> float:
    times = []
    for _ in range(n):
        gc.collect()
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def cat(path: Path) -> None:
    subprocess.run(["cat", str(path)], stdout=subprocess.DEVNULL, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="guest memory")
    parser.add_argument("--dir", type=Path, help="where the streams are made (in a temporary directory)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pages = options.mib * 256
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        place = Path(name)
        full, mixed, mapped = place / "full", place / "mixed", place / "mapped"
        write_stream(full, pages, np.ones(pages, bool))
        write_stream(mixed, pages, np.random.default_rng(2).random(pages) < 0.5)
        write_mapped(mapped, pages)
        cat(full)
        walk(full)  # imports pandas
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures["walk_s"] = best(lambda: walk(full))
        figures["walk_rss_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        figures["cat_s"] = best(lambda: cat(full))
        figures["walk_over_cat"] = figures["walk_s"] / figures["cat_s"]
        figures["mixed_s"] = best(lambda: walk(mixed))
        figures["mixed_over_regular"] = figures["mixed_s"] / figures["walk_s"]
        figures["mapped_open_ms"] = best(lambda: walk(mapped, frozenset({"mapped-ram"}), count=False)) * 1000
        figures["mapped_count_ms"] = best(lambda: walk(mapped, frozenset({"mapped-ram"}))) * 1000

        out = place / "out"

        def extract(ram: Ram) -> None:
            out.unlink(missing_ok=True)
            ram.extract(NAME.decode(), out, progress=False)

        def copy() -> None:
            out.unlink(missing_ok=True)
            subprocess.run(["cp", "--reflink=never", str(full), str(out)], check=True)
            subprocess.run(["sync", str(out)], check=True)  # what is extracted is synced before it gets its name

        ram, content = walk(full)
        figures["extract_s"] = best(lambda: extract(ram), 3)
        figures["cp_s"] = best(copy, 3)
        figures["extract_over_cp"] = figures["extract_s"] / figures["cp_s"]
        ram, content = walk(mixed)
        figures["extract_mixed_s"] = best(lambda: extract(ram), 3)
        figures["read_page_us"] = best(lambda: ram.read(NAME.decode(), pages // 2 * PAGE, PAGE), 20) * 1e6
        content.close()
    for key, value in figures.items():
        print(f"{key:24}{value:12.3f}")
    if options.json:
        options.json.write_text(
            json.dumps({"mib": options.mib, "python": sys.version, **figures}, indent=1) + os.linesep
        )


if __name__ == "__main__":
    main()
