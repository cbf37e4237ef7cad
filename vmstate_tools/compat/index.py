"""What destinations of many configurations expect, kept without their streams: data/compat/expectations.json.zst.

    python -m vmstate_tools.compat.index captures/manifest.csv -o data/compat/expectations.json.zst

One row per capture; descriptions and values that captures share are kept once.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from vmstate_tools.compat import facts, rules
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.program import NUMBERS
from vmstate_tools.data import data_path
from vmstate_tools.errors import StreamError
from vmstate_tools.source.new_file import new_file
from vmstate_tools.stream.stream import open_stream
from vmstate_tools.vmstate.description import FieldDescription, Vmsd, built_in

_COLUMNS = ("release", "arch", "machine", "cpu", "config")


@dataclass(frozen=True, eq=False)
class Kept:
    """One configuration: which QEMU it was, and its expectation as stored."""

    release: str
    arch: str
    machine: str
    cpu: str
    config: str
    arguments: str
    stored: dict[str, Any]

    @functools.cached_property
    def version(self) -> tuple[int, int, int]:
        return facts.version(self.release) or (0, 0, 0)

    def expectation(self) -> Expectation:
        """The expectation, made anew: its entries hold what is derived from them."""
        return _restore(self.stored)


@functools.cache
def _pools() -> dict[str, list[Any]]:
    raw = zstandard.ZstdDecompressor().decompress(data_path("compat", "expectations.json.zst").read_bytes())
    pools: dict[str, list[Any]] = json.loads(raw)
    return pools


@functools.cache
def kept() -> tuple[Kept, ...]:
    """All configurations there are."""
    return tuple(Kept(**{c: row[c] for c in (*_COLUMNS, "arguments")}, stored=row) for row in _pools()["captures"])


@functools.lru_cache(maxsize=32)
def devices(release: tuple[int, int]) -> dict[str, Entry]:
    """Sections seen in a release, by the last part of their idstr: one of each."""
    found: dict[str, Entry] = {}
    for k in kept():
        if k.version[:2] == release:
            for entry in k.expectation().entries.values():
                found.setdefault(entry.idstr.rpartition("/")[2], entry)
    return found


@functools.cache
def _tree(number: int) -> Vmsd:
    return built_in({"name": "", "instance_id": 0, **_pools()["trees"][number]}).vmsd


def _restore(row: dict[str, Any]) -> Expectation:
    expectation = Expectation(
        configuration=row["configuration"],
        page_bits=row["page_bits"],
        capabilities=tuple(row["capabilities"]),
        footers=row["footers"],
        ram=row["ram"],
        page_size=row["page_size"],
    )
    for idstr, instance, version, tree, values, kind in (_pools()["sections"][n] for n in row["sections"]):
        expectation.add(
            [
                Entry(
                    idstr,
                    instance,
                    version,
                    None if tree is None else _tree(tree),
                    {
                        (vmsd, path): bytes.fromhex(value) if isinstance(value, str) else value
                        for vmsd, path, value in _pools()["values"][values]
                    },
                    iterable=kind == "iterable",
                    old_style=kind == "old style",
                )
            ]
        )
    return expectation


# -- making it -------------------------------------------------------------------------------------------------------


def tree_json(vmsd: Vmsd) -> dict[str, Any]:
    """A description in the form of a vmdesc."""
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
    def __init__(self) -> None:
        self.items: list[Any] = []
        self.numbers: dict[str, int] = {}

    def add(self, item: Any) -> int:
        key = json.dumps(item)
        if key not in self.numbers:
            self.numbers[key] = len(self.items)
            self.items.append(item)
        return self.numbers[key]


def _values(entry: Entry) -> list[list[Any]]:
    """Those that are compared, that rules ask for, or that tell a length."""
    keep: dict[str, set[str]] = {}

    def walk(vmsd: Vmsd) -> None:
        names = keep.setdefault(vmsd.name, set())
        lengths = {
            f.count if f.count is not None else f.size for f in vmsd.fields if f.count is not None or f.type == "buffer"
        }
        for f in vmsd.fields:
            value = entry.values.get((vmsd.name, f.label))
            number = f.type in NUMBERS and f.count is None
            if (
                f.equal
                or f.type == "int32 le"
                or rules.wanted(vmsd.name, f.name)
                or (
                    number
                    and (
                        value in lengths
                        or (value == 0 and any(w in f.name for w in ("num", "nb", "len", "count", "size")))
                    )
                )
            ):
                names.add(f.name)
            if f.struct is not None:
                walk(f.struct)
        for sub in vmsd.subsections:
            walk(sub)

    if entry.vmsd is not None:
        walk(entry.vmsd)
    out = []
    for (vmsd, path), value in entry.values.items():
        leaf = path.rsplit(".", 1)[-1] if "[" in path.rsplit(".", 1)[0] else path
        if (
            vmsd == ""
            or (vmsd, path) == ("cpu", "pvr")
            or {leaf, path, path.split("[")[0], path.split("].")[-1]} & keep.get(vmsd, set())
        ):
            out.append([vmsd, path, value.hex() if isinstance(value, bytes) else value])
    return out


def build(manifest: Path, rows: Iterable[dict[str, str]]) -> dict[str, Any]:
    from vmstate_tools.compat.destination import expectation_of

    trees, values, sections = _Pool(), _Pool(), _Pool()
    captures, seen = [], set()
    from tqdm.auto import tqdm

    for row in tqdm(list(rows), unit="stream"):
        if not row["file"].endswith(".mig.zst"):
            continue
        try:
            with open_stream(manifest.parent / row["file"]) as stream:
                expectation = expectation_of(stream, row["release"])
        except (StreamError, OSError) as err:
            print(err, file=sys.stderr)
            continue
        numbers = []
        for entry in expectation.entries.values():
            tree = None if entry.vmsd is None else trees.add(tree_json(entry.vmsd))
            kind = "iterable" if entry.iterable else "old style" if entry.old_style else ""
            what = [entry.idstr, entry.instance_id, entry.version_id, tree, values.add(_values(entry)), kind]
            numbers.append(sections.add(what))
        capture = {
            **{c: row[c] for c in (*_COLUMNS, "arguments")},
            "configuration": expectation.configuration,
            "page_bits": expectation.page_bits,
            "capabilities": expectation.capabilities,
            "footers": expectation.footers,
            "ram": expectation.ram,
            "page_size": expectation.page_size,
            "sections": numbers,
        }
        capture["config"] = re.sub("^ran-?", "", capture["config"])  # a guest that ran expects the same
        key = json.dumps(capture)
        if key not in seen:
            seen.add(key)
            captures.append(capture)
    return {"captures": captures, "trees": trees.items, "values": values.items, "sections": sections.items}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with arguments.manifest.open(newline="", encoding="utf-8") as file:
        built = build(arguments.manifest, csv.DictReader(file))
    text = json.dumps(built, separators=(",", ":"), ensure_ascii=False)
    with new_file(arguments.output, overwrite=True) as file:
        file.write(zstandard.ZstdCompressor(level=19).compress(text.encode()))
    print({name: len(pool) for name, pool in built.items()}, arguments.output.stat().st_size)


if __name__ == "__main__":
    main()
