"""How right data/source is: beside every -dump-vmstate file and every stream of a collection.

    python benchmarks/check_source.py COLLECTION [--json FILE]

COLLECTION has `dumps/RELEASE-[ARCH-]MACHINE.json.zst` and `captures/manifest.csv`; either may be missing.
QEMU's own files (tests/data/vmstate-static-checker) can be put among the dumps.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.errors import VmstateError
from vmstate_tools.qemu_source.against_dump import compare
from vmstate_tools.qemu_source.against_stream import lays_out
from vmstate_tools.qemu_source.release_facts import ReleaseFacts
from vmstate_tools.qemu_source.source_tables import read_release, read_table
from vmstate_tools.source import zstd

ARCHES = ("x86_64", "aarch64", "s390x", "m68k", "ppc64")


@cache
def facts(name: str) -> ReleaseFacts | None:
    known = {row["release"] for row in read_table(data_path("source") / "releases.csv.zst")}
    full = name if name.count(".") == 2 else f"{name}.0"
    return read_release(data_path("source"), full) if full in known else None


def dumps(folder: Path) -> tuple[Counter[str], Counter[str]]:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for file in tqdm(sorted(folder.glob("*.json.zst")), desc="dumps", unit="file"):
        release, _, rest = file.name.removesuffix(".json.zst").partition("-")
        said = facts(release)
        if said is None:
            counts["files of a release that is not in the tables"] += 1
            continue
        arch = next((a for a in ARCHES if rest.startswith(f"{a}-")), "ppc64")
        with file.open("rb") as raw, zstd.reader(raw) as text:
            found = compare(said, json.loads(text.read()), arch)
        counts.update(files=1, same=found.same, different=found.different, missing=len(found.missing))
        reasons.update(f"{release} {name}: {why}" for name, why in set(found.reasons + found.missing))
    return counts, reasons


def streams(folder: Path) -> tuple[Counter[str], Counter[str]]:
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seen: dict[tuple[Any, str, str], str] = {}
    manifest = folder / "manifest.csv"
    rows = list(csv.DictReader(manifest.read_text().splitlines())) if manifest.exists() else []
    for row in tqdm(rows, desc="streams", unit="stream"):
        # A stable release is compared with the first of its series.
        release, arch = ".".join(row["release"].split(".")[:2]), row["arch"]
        said = facts(release)
        if said is None:
            continue
        try:
            described = vt.open(folder / row["file"]).vmdesc
        except VmstateError:
            counts["streams that cannot be opened"] += 1
            continue
        for device in described.devices if described is not None else ():
            if device.old_style:
                continue
            key = (device.vmsd, release, arch)
            if key not in seen:
                seen[key] = lays_out(said, device.vmsd, arch)
                if seen[key]:
                    reasons[f"{release} {arch} {device.vmsd.name}: {seen[key]}"] += 1
            counts["sections that differ" if seen[key] else "sections"] += 1
    return counts, reasons


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for what, check in (("dumps", dumps), ("captures", streams)):
        counts, reasons = check(options.collection / what)
        print(what, dict(counts))
        for reason, number in reasons.most_common():
            print(f"  {number:4} {reason}")
        results[what] = {"counts": counts, "reasons": reasons}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
