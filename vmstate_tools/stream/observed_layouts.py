"""Makes `data/layouts/observed.json` from streams that describe themselves.

    python -m vmstate_tools.stream.observed_layouts captures/manifest.csv

A vmdesc has the numbers of one stream. `facts.json` says which of them another field holds (`counts`, from the
VMSTATE_VARRAY, VBUFFER and STRUCT_VARRAY macros of each VMStateDescription in QEMU's source) and which fields hang
on another field's value (`optional`, from _TEST macros). A fact that a stream contradicts is an error.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.release import numbers
from vmstate_tools.source.new_file import new_text_file
from vmstate_tools.stream.stream import open_stream
from vmstate_tools.vmstate.builtin import INTEGER, number_of
from vmstate_tools.vmstate.description import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vmstate_tools.vmstate.description import FieldDescription, Vmsd

Fields = list[dict[str, Any]]


class Observer:
    """Collects the variants of every VMStateDescription it is shown."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.counts: dict[str, dict[str, str | list[str]]] = facts["counts"]
        self.optional: dict[str, Fields] = facts["optional"]
        self.variants: dict[str, dict[str, tuple[int, Fields, set[str]]]] = {}

    def read(self, path: Path, release: str) -> None:
        """Takes in every section of a stream that its vmdesc describes."""
        with open_stream(path) as stream:
            for section in stream.sections:
                if section.how == "vmdesc" and section.description and not section.description.opaque:
                    self.vmsd(section.description.vmsd, stream.view, section.payload_offset, release)

    def vmsd(self, vmsd: Vmsd, view: memoryview, offset: int, release: str) -> int:
        """Takes in `vmsd` as it stands at `offset`, and returns where it ends."""
        fields: Fields = []
        numbers: dict[str, int] = {}
        for run in _runs(vmsd.fields):
            first = run[0]
            entry: dict[str, Any] = {"name": first.name, "type": first.type}
            start = offset
            for field in run:
                for _ in range(1 if field.count is None else field.count):
                    if field.struct is not None and field.struct.name:
                        self.vmsd(field.struct, view, offset, release)
                    offset += field.size
            if first.struct is not None and first.struct.name:
                entry["struct"] = first.struct.name
            else:
                entry["size"] = first.size
            if first.index is not None:
                entry["elements"] = len(run)
                if first.index:
                    entry["index"] = first.index
            elif first.count is not None:
                entry["array_len"] = first.count
            elif INTEGER.match(first.type):
                numbers[first.name] = int.from_bytes(view[start:offset], "big")
            fields.append(entry)
        self.add(vmsd, fields, numbers, release)
        for subsection in vmsd.subsections:
            offset = self.vmsd(subsection, view, offset + 6 + len(subsection.name), release)
        return offset

    def counts_here(self, name: str, numbers: dict[str, int]) -> dict[str, str]:
        """Returns which field counts which, by the names that this variant has; releases renamed some."""
        found = {}
        for field, given in self.counts.get(name, {}).items():
            for counter in [given] if isinstance(given, str) else given:
                if counter.partition("/")[0] in numbers:
                    found[field] = counter
        return found

    def add(self, vmsd: Vmsd, fields: Fields, numbers: dict[str, int], release: str) -> None:
        counts = self.counts_here(vmsd.name, numbers)
        for field in fields:
            if field["name"] in counts:
                given = counts[field["name"]]
                kind = "size" if field["type"] == "buffer" else "elements" if "elements" in field else "array_len"
                if field.get(kind, 1) != number_of(given, numbers):
                    raise CatalogError(f"{vmsd.name}.{field['name']}: {given} does not hold its {kind}")
                field[kind] = given
        for optional in self.optional.get(vmsd.name, ()):
            names = [field["name"] for field in fields]
            if (optional["name"] in names) != bool(numbers[optional["when"]]):
                raise CatalogError(f"{vmsd.name}.{optional['name']} does not hang on {optional['when']}")
            fields[:] = [field for field in fields if field["name"] != optional["name"]]
            fields.insert(names.index(optional["when"]) + 1, optional)
        known = self.variants.setdefault(vmsd.name, {})
        empty = {name for name, given in counts.items() if not number_of(given, numbers)}
        for version, variant, releases in known.values():
            if version == vmsd.version_id and fields == [f for f in variant if f["name"] not in empty or f in fields]:
                releases.add(release)
                return
        known[f"{vmsd.version_id} {json.dumps(fields)}"] = (vmsd.version_id, fields, {release})

    def layouts(self) -> dict[str, list[dict[str, Any]]]:
        """Returns all variants; one in which an array has no elements is left out where another shows the elements."""
        found = {}
        for name in sorted(self.variants):
            counted = self.counts.get(name, {})
            variants = sorted(self.variants[name].values(), key=lambda variant: -len(variant[1]))
            kept: list[tuple[int, Fields, set[str]]] = []
            for version, fields, releases in variants:
                for other_version, other, other_releases in kept:
                    rest = [field for field in other if field in fields or field["name"] not in counted]
                    if version == other_version and rest == fields:
                        other_releases |= releases
                        break
                else:
                    kept.append((version, fields, set(releases)))
            rows: list[dict[str, Any]] = [
                {"version": version, "releases": sorted(releases, key=numbers), "fields": fields}
                for version, fields, releases in kept
            ]
            rows.sort(key=lambda v: (v["version"], numbers(v["releases"][0]), json.dumps(v["fields"])))
            found[name] = rows
        return found


def _runs(fields: Iterable[FieldDescription]) -> Iterator[list[FieldDescription]]:
    """Yields fields one by one, but together the elements of an array that is described element by element."""
    counter = itertools.count()
    for _, group in itertools.groupby(
        fields,
        lambda f: (
            f.name,
            f.type,
            None if f.struct is not None else f.size,
            next(counter) if f.index is None else -1,
        ),
    ):
        yield list(group)


def dump(layouts: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the layouts as JSON, a line per field, so that a change of one field is one line of a diff."""
    names = []
    for name, variants in sorted(layouts.items()):
        lines = []
        for variant in variants:
            head = ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in variant.items() if k != "fields")
            fields = ",".join(f"\n   {json.dumps(field, ensure_ascii=False)}" for field in variant["fields"])
            lines.append(f'  {{{head}, "fields": [{fields}]}}')
        names.append(f" {json.dumps(name)}: [\n" + ",\n".join(lines) + "\n ]")
    return "{\n" + ",\n".join(names) + "\n}\n"


def observe(manifest: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the variants in all streams that `manifest` (columns `file`, `release`) names, beside it.

    Raises CatalogError where a stream contradicts facts.json.
    """
    facts = read_json(data_path("layouts", "facts.json").read_bytes())
    observer = Observer(facts)
    with manifest.open() as file:
        rows = list(csv.DictReader(file))
    for row in tqdm(rows, desc="streams"):
        observer.read(manifest.parent / row["file"], row["release"])
    return observer.layouts()


if __name__ == "__main__":
    with new_text_file(data_path("layouts", "observed.json"), overwrite=True) as file:
        file.write(dump(observe(Path(sys.argv[1]))))
