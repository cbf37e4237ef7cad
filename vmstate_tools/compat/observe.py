"""How `data/compat/expectations.json.zst` is made from captures (see `compat.observed`).

python -m vmstate_tools.compat.observe captures/manifest.csv -o data/compat/expectations.json.zst
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.from_stream import asked_for, expectation_of
from vmstate_tools.compat.observed import COLUMNS
from vmstate_tools.compat.reader import NUMBERS
from vmstate_tools.errors import StreamError
from vmstate_tools.source import zstd
from vmstate_tools.source.new_file import new_file
from vmstate_tools.stream.stream import open_stream
from vmstate_tools.vmstate.description import FieldDescription, Vmsd

# Parts of the names of numbers that tell how long something is.
_LENGTHS = ("num", "nb", "len", "count", "size")


def tree_json(vmsd: Vmsd) -> dict[str, Any]:
    """Returns a description in the form of a vmdesc."""
    entry: dict[str, Any] = {
        "vmsd_name": vmsd.name,
        "version": vmsd.version_id,
        "fields": [_field(f) for f in vmsd.fields],
    }
    if vmsd.subsections:
        entry["subsections"] = [tree_json(s) for s in vmsd.subsections]
    return entry


def _field(f: FieldDescription) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": f.name, "type": f.type, "size": f.size}
    if f.count is not None:
        entry["array_len"] = f.count
    if f.index is not None:
        entry["index"] = f.index
    if f.struct is not None:
        entry["struct"] = tree_json(f.struct)
    return entry


class _Pool:
    """A list in which equal items stand once."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._numbers: dict[str, int] = {}

    def add(self, item: Any) -> int:
        """Returns the item's place in the list."""
        key = json.dumps(item)
        if key not in self._numbers:
            self._numbers[key] = len(self.items)
            self.items.append(item)
        return self._numbers[key]


def _wanted(entry: Entry, vmsd: Vmsd, found: dict[str, set[str]]) -> None:
    """Adds, by description, the names of the fields whose values are needed.

    They are compared, asked for by the rules, or tell a length: a number that is as large as some array is long, or 0
    with such a name.
    """
    names = found.setdefault(vmsd.name, set())
    arrays = [f for f in vmsd.fields if f.count is not None or f.type == "buffer"]
    lengths = {f.size if f.count is None else f.count for f in arrays}
    for f in vmsd.fields:
        value = entry.values.get((vmsd.name, f.label))
        number = f.type in NUMBERS and f.count is None
        length = number and (value in lengths or (value == 0 and any(part in f.name for part in _LENGTHS)))
        if f.equal or f.type == "int32 le" or length or asked_for(vmsd.name, f.name):
            names.add(f.name)
        if f.struct is not None:
            _wanted(entry, f.struct, found)
    for sub in vmsd.subsections:
        _wanted(entry, sub, found)


def _values(entry: Entry) -> list[list[Any]]:
    """Returns the values of a section that a verdict may need: vmsd, path, value."""
    wanted: dict[str, set[str]] = {}
    if entry.vmsd is not None:
        _wanted(entry, entry.vmsd, wanted)
    out = []
    for (vmsd, path), value in entry.values.items():
        leaf = path.rsplit(".", 1)[-1] if "[" in path.rsplit(".", 1)[0] else path
        names = {leaf, path, path.split("[")[0], path.split("].")[-1]}
        if vmsd == "" or (vmsd, path) == ("cpu", "pvr") or names & wanted.get(vmsd, set()):
            out.append([vmsd, path, value.hex() if isinstance(value, bytes) else value])
    return out


class _Tables:
    """The tables of the file."""

    def __init__(self) -> None:
        self.captures: list[dict[str, Any]] = []
        self.trees, self.values, self.sections = _Pool(), _Pool(), _Pool()
        self._seen: set[str] = set()

    def add(self, row: dict[str, str], expectation: Expectation) -> None:
        """Adds a capture with this row in the manifest; one that equals another is left out."""
        capture = {
            **{c: row[c] for c in COLUMNS},
            "config": re.sub("^ran-?", "", row["config"]),  # a guest that ran expects the same
            "configuration": expectation.configuration,
            "page_bits": expectation.page_bits,
            "capabilities": expectation.capabilities,
            "footers": expectation.footers,
            "ram": expectation.ram,
            "page_size": expectation.page_size,
            "sections": [self._section(entry) for entry in expectation.entries.values()],
        }
        key = json.dumps(capture)
        if key not in self._seen:
            self._seen.add(key)
            self.captures.append(capture)

    def _section(self, entry: Entry) -> int:
        tree = None if entry.vmsd is None else self.trees.add(tree_json(entry.vmsd))
        kind = "iterable" if entry.iterable else "old style" if entry.old_style else ""
        values = self.values.add(_values(entry))
        return self.sections.add([entry.idstr, entry.instance_id, entry.version_id, tree, values, kind])


def build(manifest: Path, rows: Iterable[dict[str, str]]) -> dict[str, Any]:
    """Returns the tables of the captures in these rows of a manifest; what cannot be read is named on stderr."""
    tables = _Tables()
    for row in tqdm(list(rows), unit="stream"):
        if not row["file"].endswith(".mig.zst"):
            continue
        try:
            with open_stream(manifest.parent / row["file"]) as stream:
                tables.add(row, expectation_of(stream, row["release"]))
        except (StreamError, OSError) as err:
            print(err, file=sys.stderr)
    pools = {"trees": tables.trees.items, "values": tables.values.items, "sections": tables.sections.items}
    return {"captures": tables.captures, **pools}


def main() -> None:
    """Writes the file from the captures that a manifest lists."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with arguments.manifest.open(newline="", encoding="utf-8") as manifest:
        built = build(arguments.manifest, csv.DictReader(manifest))
    text = json.dumps(built, separators=(",", ":"), ensure_ascii=False)
    with new_file(arguments.output, overwrite=True) as file:
        file.write(zstd.compress(text.encode(), level=19))
    print({name: len(pool) for name, pool in built.items()}, arguments.output.stat().st_size)


if __name__ == "__main__":
    main()
