"""What a `manifest.csv` says of the streams beside it: release, machine type, CPU model, command line and so on.

`vmstate capture` writes one; column `file` holds each stream's path below the manifest's folder. It is a file like any
other, and may come from a stranger: what is no manifest, or is none in some rows, gives a `ManifestWarning`, and is
left out. Here it serves for labels; what of it may reach a QEMU is `vmstate_tools.emulator`'s matter.
"""

from __future__ import annotations

import csv
import functools
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmstate_tools.data import data_path
from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.frames.finding import PathLike, found_streams

NAME = "manifest.csv"
NUMBERS = ("memory_mib", "size")
"""Columns that hold whole numbers: MiB of guest memory, and bytes of the stream when it is not compressed."""

# 1,646 captures have one of 0.6 MiB.
_MAX_BYTES = 64 << 20
_MAX_COLUMNS = 100
_MAX_NUMBER = 1 << 63

Row = dict[str, Any]


class ManifestWarning(UserWarning):
    """A manifest, or a row of one, is not what it must be, and was left out."""


def manifest_rows(paths: PathLike | Iterable[PathLike], manifest: PathLike | None = None) -> dict[str, Row]:
    """Returns the manifest's row of each stream that `paths` names, by the stream's file name as `find_streams` has it.

    Parameters
    ----------
    paths : files and directories; of URLs nothing is known but by `manifest`.
    manifest : the manifest to use for all of them. Without it, each stream has the manifest in its own folder, else
        the one in the directory that was given in `paths`; a stream of the package's own `data/streams` has the one
        there. No other folder is looked into: whoever can put a file above a stream would be believed.

    Returns
    -------
    {file: row}. A row has the manifest's columns but `file`; text, but int or None in `NUMBERS`. Streams that no
    manifest names are left out.

    Raises
    ------
    VmstateError : `manifest` cannot be read. Other manifests that cannot are a `ManifestWarning`.
    """
    return labels_of(list(found_streams(paths)), manifest)


def labels_of(found: Sequence[tuple[str, str | None]], manifest: PathLike | None = None) -> dict[str, Row]:
    """Returns `manifest_rows` of the streams of `found_streams`."""
    tables = _Tables()
    if manifest is not None:
        named = Path(os.fsdecode(manifest))
        if problem := tables.read(named):
            raise VmstateError(problem)
        rows = {file: tables.row(named, file) or tables.rows[named].get(file) for file, _ in found}
    else:
        bundled = data_path("streams")
        rows = {}
        for file, given in found:
            if "://" in file or file == "-":
                continue
            folders = [Path(file).parent, *([Path(given)] if given else []), bundled]
            rows[file] = next((row for folder in folders if (row := tables.row(folder / NAME, file))), None)
    return {file: row for file, row in rows.items() if row is not None}


class _Tables:
    """Manifests, each read once."""

    def __init__(self) -> None:
        self.rows: dict[Path, Mapping[str, Row]] = {}

    def read(self, manifest: Path) -> str:
        """Reads a manifest, and returns what keeps it from being one, "" where nothing does."""
        try:
            self.rows[manifest] = read_manifest(manifest)
        except VmstateError as err:
            self.rows[manifest] = {}
            return str(err)
        return ""

    def row(self, manifest: Path, file: str) -> Row | None:
        """Returns the row of a file in a manifest, None where the manifest does not name the file or is none."""
        if manifest not in self.rows:
            self.rows[manifest] = {}
            if _is_file(manifest) and (problem := self.read(manifest)):
                warnings.warn(problem, ManifestWarning, stacklevel=2)
        rows = self.rows[manifest]
        return rows.get(_below(file, manifest.parent)) if rows else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long, a folder may not be entered
        return False


def _below(file: str, folder: Path) -> str:
    """Returns the path of a file below a folder, with `/` between its parts; "" where it is not below it."""
    try:
        return Path(file).relative_to(folder).as_posix()
    except ValueError:  # written in another way: relative, through a link
        parent, name = os.path.split(file)
        real, top = _real(parent), _real(os.fspath(folder))
        inside = real == top or real.startswith(top + os.sep)
        return Path(real[len(top) + 1 :], name).as_posix() if inside else ""


_real = functools.lru_cache(1024)(os.path.realpath)


def read_manifest(path: PathLike) -> dict[str, Row]:
    """Returns the rows of a manifest by `file`, each without it.

    Rows that are none (more or fewer cells than the head, a file named again with other facts) are left out, with a
    `ManifestWarning`; a word in one of `NUMBERS` is None, with a `ManifestWarning`.

    Raises
    ------
    VmstateError : the file is no manifest: it is empty, not UTF-8, has no column `file`, or is larger than 64 MiB.
    """
    name = printable(os.fsdecode(path))
    try:
        if os.stat(path).st_size > _MAX_BYTES:  # noqa: PTH116 - a path may be text
            raise VmstateError(f"{name} is larger than the {_MAX_BYTES >> 20} MiB that a manifest may have")
        with open(path, newline="", encoding="utf-8-sig") as file:  # noqa: PTH123
            return _rows(name, csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as err:
        what = err.strerror if isinstance(err, OSError) and err.strerror else err
        raise VmstateError(f"{name} is no manifest: {what}") from err


def _rows(name: str, table: Iterable[list[str]]) -> dict[str, Row]:
    lines = iter(table)
    head = next(lines, [])
    if "file" not in head or len(head) > _MAX_COLUMNS or len(set(head)) < len(head):
        raise VmstateError(f"{name} is no manifest: its first line must name its columns, each once, `file` among them")
    rows: dict[str, Row] = {}
    problems = _Problems(name)
    refused = set()
    for number, cells in enumerate(lines, 2):
        if not cells:
            continue
        if len(cells) != len(head):
            problems.add(f"row {number} has {len(cells)} cells, its head {len(head)}; the row is left out")
            continue
        row: Row = dict(zip(head, cells, strict=True))
        file = row.pop("file")
        for column in NUMBERS:
            if column in row:
                row[column] = problems.number(row[column], f"row {number}, {column}")
        if file in rows and rows[file] != row:
            problems.add(f"row {number} names {file!r} again, with other facts; no row of it is used")
            refused.add(file)
        rows[file] = row
    problems.warn()
    return {file: row for file, row in rows.items() if file not in refused}


class _Problems:
    """What is wrong with a manifest's rows: one warning with the first of it, and how much more there is."""

    def __init__(self, name: str) -> None:
        self.name, self.first, self.count = name, "", 0

    def add(self, problem: str) -> None:
        self.first = self.first or problem
        self.count += 1

    def number(self, text: str, where: str) -> int | None:
        if not text:
            return None
        if text.isascii() and text.isdigit() and len(text) < 20 and (number := int(text)) < _MAX_NUMBER:
            return number
        self.add(f"{where}: {text[:40]!r} is no number")
        return None

    def warn(self) -> None:
        if self.count:
            more = f"; {self.count - 1} more like it" if self.count > 1 else ""
            warnings.warn(printable(f"{self.name}: {self.first}{more}"), ManifestWarning, stacklevel=2)
