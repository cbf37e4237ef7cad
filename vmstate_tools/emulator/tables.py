"""The tables that are written beside streams: `manifest.csv`, `refused.csv`, outcomes; by several at once, too."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vmstate_tools.errors import VmstateError
from vmstate_tools.source.new_file import new_text_file

MANIFEST = (
    "file", "release", "arch", "machine", "cpu", "config", "memory_mib", "arguments", "capabilities", "parameters",
    "qemu_package", "sha256", "size", "stderr",
)  # fmt: skip
"""Columns of `manifest.csv`; `size` and `sha256` are of the stream itself, not of the compressed file."""

REFUSED = ("release", "arch", "machine", "cpu", "config", "arguments", "returncode", "message")
"""Columns of `refused.csv`: what a QEMU would not start or save."""


class Manifest:
    """`manifest.csv` and `refused.csv` of a folder that streams are captured into."""

    def __init__(self, folder: Path, overwrite: bool) -> None:
        self.folder = folder
        self.overwrite = overwrite

    def present(self, file: str) -> dict[str, Any] | None:
        """Returns the manifest's row of a stream that is there and is not to be made again."""
        if self.overwrite or not (self.folder / file).exists():
            return None
        for row in _read(self.folder / "manifest.csv")[1]:
            if row.get("file") == file and str(row.get("size")).isdecimal():
                return {**row, "size": int(row["size"]), "memory_mib": row.get("memory_mib") or None, "refused": ""}
        return None

    def add(self, row: Mapping[str, Any]) -> None:
        if row.get("refused"):
            key = ("release", "arch", "machine", "cpu", "config")
            put_row(self.folder / "refused.csv", REFUSED, {**row, "message": row["refused"]}, key)
        else:
            put_row(self.folder / "manifest.csv", MANIFEST, row, ("file",))


def put_row(path: Path, columns: Sequence[str], row: Mapping[str, Any], key: Sequence[str]) -> None:
    """Writes a row into a table, in place of the row with the same key if there is one.

    Raises VmstateError where the file is no such table.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {name: _text(row.get(name)) for name in columns}
    with _locked(path.parent):
        header, rows = _read(path)
        if header and not set(key) <= set(header):
            raise VmstateError(f"{path} is another table: it has no column {', '.join(sorted(set(key) - set(header)))}")
        if any(None in row for row in rows) or len(set(header)) < len(header):
            raise VmstateError(f"{path} is another table: its rows do not fit its columns")  # and would lose cells
        header += [name for name in columns if name not in header]
        rows = [r for r in rows if any(r.get(name, "") != text[name] for name in key)]
        with new_text_file(path, overwrite=True) as file:
            writer = csv.DictWriter(file, header, restval="")
            writer.writeheader()
            writer.writerows([*rows, text])


def append_row(path: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Appends a row to a table, what is there unchanged. Raises VmstateError where it has other columns."""
    with _locked(path.parent):
        before = path.read_bytes() if has_columns(path, columns) else b""
        with new_text_file(path, overwrite=True) as file:
            writer = csv.DictWriter(file, columns)
            if before:
                file.buffer.write(before if before.endswith(b"\n") else before + b"\r\n")
            else:
                writer.writeheader()
            writer.writerow({name: _text(row.get(name)) for name in columns})


def has_columns(path: Path, columns: Sequence[str]) -> bool:
    """Tells whether there is a table already. Raises VmstateError where it has other columns, or is no file."""
    if not path.exists():
        return False
    if not path.is_file():
        raise VmstateError(f"{path} is no file")
    try:
        header = _read(path)[0]
    except VmstateError:
        header = ["?"]
    if header and tuple(header) != tuple(columns):
        raise VmstateError(f"{path} is another table: its columns are not {', '.join(columns)}")
    return bool(header)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)
    except FileNotFoundError:
        return [], []
    except (ValueError, csv.Error) as err:
        raise VmstateError(f"{path} is no table: {err}") from None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
