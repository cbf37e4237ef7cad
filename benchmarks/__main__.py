"""All benchmarks, one after the other, into one JSON file.

python -m benchmarks CAPTURES [--peer analyze-migration.py] [--stream STREAM] [--json reports/bench.json]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--peer", help="QEMU's scripts/analyze-migration.py")
    parser.add_argument("--stream", help="one that is not compressed, for the peer to read")
    parser.add_argument("--mib", type=int, default=1024, help="guest memory of the RAM benchmark")
    parser.add_argument("--json", type=Path, default=Path("reports/bench.json"))
    options = parser.parse_args()
    runs = {
        "ram": ["bench_ram.py", "--mib", str(options.mib)],
        "load": ["bench_load.py", str(options.captures)],
        "matrix": ["bench_matrix.py", str(options.captures)],
        "commands": ["bench_commands.py"],
        "rewrite": ["bench_rewrite.py", "--mib", str(options.mib)],
    }
    if options.stream:
        runs["decode"] = ["bench_decode.py", options.stream, *(["--peer", options.peer] if options.peer else [])]
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        for what, (script, *arguments) in runs.items():
            out = Path(name, what)
            print(f"== {what}", flush=True)
            subprocess.run([sys.executable, str(HERE / script), *arguments, "--json", str(out)], check=True)
            results[what] = json.loads(out.read_text())
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(options.json)


if __name__ == "__main__":
    main()
