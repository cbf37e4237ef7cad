"""Says which real captures the tests run on: those in this checkout, and a larger collection where there is one.

Tests on the larger collection carry the marker `collection`, which CI sets; without it they are not selected.
"""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vmstate_tools.data import data_path

DATA = Path(__file__).resolve().parent / "data"
COLLECTION = Path(os.environ.get("VMSTATE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@dataclass(frozen=True)
class Captures:
    """A set of captures: streams with their manifests, and what lies beside them."""

    name: str
    folders: tuple[Path, ...]
    """Each with a `manifest.csv` and the streams that it lists."""
    dumps: Path
    """`<release>-<machine>.json.zst`: what -dump-vmstate wrote."""
    channels: Path
    """Migrations over several connections: `qemu-<release>/<machine>/<cpu>+<config>/ch<n>.bin.zst`, `meta.json`."""
    savevm: Path
    """qcow2 images with a snapshot, each with a `.json` that says how it was made."""

    def __str__(self) -> str:
        return self.name

    @functools.cached_property
    def manifest(self) -> dict[str, dict[str, str]]:
        """Returns the rows of the manifests, by the file's name."""
        rows = {}
        for folder in self.folders:
            with (folder / "manifest.csv").open(newline="") as table:
                rows |= {row["file"]: row for row in csv.DictReader(table)}
        return rows

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(self.manifest.values())

    def path(self, file: str) -> Path:
        """Returns where the capture of this name lies."""
        return next(path for folder in self.folders if (path := folder / file).exists())

    def registers(self, file: str) -> Path:
        """Returns where the output of `info registers` lies; it is there only for guests that ran."""
        return self.path(file).with_name(Path(file).name.replace(".mig.zst", ".registers.txt"))


HERE = Captures(
    "here",
    (data_path("streams"), DATA / "captures"),
    DATA / "dumps",
    DATA / "captures/channels",
    DATA / "captures/savevm",
)
_CAPTURES = COLLECTION / "captures"
LARGER = (
    Captures("collection", (_CAPTURES,), COLLECTION / "dumps", _CAPTURES / "channels", _CAPTURES / "savevm")
    if (_CAPTURES / "manifest.csv").is_file()
    else None
)
SETS = [pytest.param(HERE, id="here")]
if LARGER is not None:
    SETS.append(pytest.param(LARGER, id="collection", marks=pytest.mark.collection))


@dataclass(frozen=True)
class Batch:
    """A batch is some captures of one release: one test."""

    name: str
    captures: Captures
    files: tuple[str, ...]

    def __str__(self) -> str:
        return self.name


def batches(wanted: Callable[[Captures, str], bool] = lambda captures, file: True, size: int = 48) -> list[Any]:
    """Returns parameters for a test: captures by release, at most `size` at a time, each in one batch only."""
    found = []
    for captures in filter(None, (HERE, LARGER)):
        by_release: dict[str, list[str]] = {}
        for file, row in captures.manifest.items():
            if (captures is HERE or file not in HERE.manifest) and wanted(captures, file):
                by_release.setdefault(row["release"], []).append(file)
        for release, files in by_release.items():
            for i in range(0, len(files), size):
                name = f"{captures}:{release}:{i // size}"
                marks = [pytest.mark.collection] if captures is LARGER else []
                found.append(pytest.param(Batch(name, captures, tuple(files[i : i + size])), id=name, marks=marks))
    return found


def capture(file: str) -> Path:
    """Returns where a capture of this checkout lies."""
    return HERE.path(file)
