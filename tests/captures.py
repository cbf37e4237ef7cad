"""The real streams the tests run on: all captures beside the checkout where there are any, else the bundled ones."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from vmstate_tools.data import data_path

SHARED = Path(os.environ.get("VMSTATE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ROOT = SHARED / "captures" if (SHARED / "captures" / "manifest.csv").is_file() else data_path("streams")

with (ROOT / "manifest.csv").open(newline="") as table:
    MANIFEST = {row["file"]: row for row in csv.DictReader(table)}


@dataclass(frozen=True)
class Batch:
    """Some captures of one release: one test."""

    name: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


def batches(files: list[str], size: int = 48) -> list[Batch]:
    """The files by release, in batches of at most `size`."""
    by_release: dict[str, list[str]] = {}
    for file in files:
        by_release.setdefault(MANIFEST[file]["release"], []).append(file)
    return [
        Batch(f"{release}:{i // size}", tuple(of_release[i : i + size]))
        for release, of_release in by_release.items()
        for i in range(0, len(of_release), size)
    ]


ALL = batches(list(MANIFEST))
RAN = batches([f for f in MANIFEST if (ROOT / f.replace(".mig.zst", ".registers.txt")).is_file()])
"""Those beside which stands what `info registers` printed."""
