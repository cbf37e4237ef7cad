"""-dump-vmstate files: every device class of a QEMU and its description, and where two of them differ.

QEMU writes them since 2.1 (migration/savevm.c: `dump_vmstate_json_to_file`). They have minimum versions and all
subsections, but no types, and only classes with `dc->vmsd`: nothing registered by hand, no CPU of ppc, arm or x86.
"""

from __future__ import annotations

import csv
import difflib
import functools
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from vmstate_tools.data import data_path
from vmstate_tools.errors import StreamError
from vmstate_tools.source import zstd
from vmstate_tools.vmstate.description import FieldDescription, Vmsd, read_json

if TYPE_CHECKING:
    import pandas as pd

_MAX_DUMP = 64 << 20
_MAX_DEPTH = 32
COLUMNS = ["section", "vmsd", "field", "kind", "a", "b", "breaks"]


@dataclass(frozen=True, eq=False)
class DumpedClass:
    """A DumpedClass is one device class: its name, versions, and description (None where it has none)."""

    name: str
    version_id: int
    minimum_version_id: int
    vmsd: Vmsd | None


@dataclass(frozen=True, eq=False)
class Dump:
    """A -dump-vmstate file: the machine type it was made with, and its classes by name."""

    file: str
    machine: str | None
    classes: dict[str, DumpedClass] = field(default_factory=dict)

    @functools.cached_property
    def vmsds(self) -> dict[str, Vmsd]:
        """Returns every description in it by name, structs and subsections included; the first of a name."""
        found: dict[str, Vmsd] = {}

        def walk(vmsd: Vmsd) -> None:
            found.setdefault(vmsd.name, vmsd)
            for f in vmsd.fields:
                if f.struct is not None:
                    walk(f.struct)
            for sub in vmsd.subsections:
                walk(sub)

        for one in self.classes.values():
            if one.vmsd is not None:
                walk(one.vmsd)
        return found


def read_dump(where: str | os.PathLike[str]) -> Dump:
    """Reads a -dump-vmstate file, compressed or not. Raises StreamError where it is none."""
    name = os.fspath(where)
    try:
        with open(where, "rb") as file:  # noqa: PTH123 - a path or what os.fspath takes
            head = file.read(4)
    except ValueError as err:  # a NUL in the name
        raise StreamError(str(err), file=name, expected="a -dump-vmstate file") from None
    if head[:1] == b"{":
        text = _read_plain(name)
    else:
        try:
            with open(where, "rb") as file, zstd.reader(file) as reader:  # noqa: PTH123
                text = reader.read(_MAX_DUMP + 1)
        except (zstd.ZstdError, EOFError):
            raise StreamError("neither JSON nor zstd", file=name, expected="a -dump-vmstate file") from None
    if len(text) > _MAX_DUMP:
        raise StreamError(f"more than {_MAX_DUMP} bytes", file=name, expected="a -dump-vmstate file")
    try:
        document = read_json(text)
        if not isinstance(document, dict):
            raise TypeError("no object")
        if not all(isinstance(value, dict) for value in document.values()):
            raise TypeError("not an object per device class")
        machine = document.get("vmschkmachine", {}).get("Name")
        if not isinstance(machine, str | None):
            raise TypeError("a machine type that is no text")
        classes = {k: _class(v) for k, v in document.items() if k != "vmschkmachine"}
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as err:
        raise StreamError(f"not a dump: {err}", file=name, expected="a -dump-vmstate file") from None
    return Dump(name, machine, classes)


def is_dump(where: str | os.PathLike[str]) -> bool:
    """Tells whether a file reads as what -dump-vmstate prints. Its first bytes alone decide against most streams."""
    try:
        with open(where, "rb") as file:  # noqa: PTH123
            head = file.read(4)
        if head[:1] != b"{" and head != b"\x28\xb5\x2f\xfd":
            return False
        read_dump(where)
    except (StreamError, OSError, ValueError):  # a ValueError is a NUL in the name
        return False
    return True


def _read_plain(name: str) -> bytes:
    with open(name, "rb") as file:  # noqa: PTH123
        return file.read(_MAX_DUMP + 1)


def _class(entry: dict[str, Any]) -> DumpedClass:
    vmsd = entry.get("Description")
    return DumpedClass(
        str(entry["Name"]),
        int(entry["version_id"]),
        int(entry.get("minimum_version_id", 0)),
        None if vmsd is None else _vmsd(vmsd, 0),
    )


def _vmsd(entry: dict[str, Any], depth: int) -> Vmsd:
    if depth > _MAX_DEPTH:
        raise ValueError("descriptions nest too deeply")
    return Vmsd(
        str(entry["name"]),
        int(entry["version_id"]),
        tuple(_field(f, depth + 1) for f in entry.get("Fields", ())),
        tuple(_vmsd(s, depth + 1) for s in entry.get("Subsections", ())),
        int(entry.get("minimum_version_id", 0)),
    )


def _field(entry: dict[str, Any], depth: int) -> FieldDescription:
    struct = entry.get("Description")
    return FieldDescription(
        str(entry["field"]),
        "struct" if struct is not None else "",
        int(entry["size"]),
        int(entry["num"]) if "num" in entry else None,
        None,
        None if struct is None else _vmsd(struct, depth),
        int(entry["version_id"]),
        bool(entry["field_exists"]),
    )


# -- two dumps -------------------------------------------------------------------------------------------------------


@functools.cache
def _renames() -> dict[tuple[str, str], dict[str, set[str]]]:
    """Returns, by (scope, kind) and name, every name that it has had, itself among them."""
    found: dict[tuple[str, str], dict[str, set[str]]] = {}
    with data_path("compat", "renames.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            names = found.setdefault((row["scope"], row["kind"]), {})
            both = names.get(row["one"], {row["one"]}) | names.get(row["other"], {row["other"]})
            names |= dict.fromkeys(both, both)
    return found


def _among(scope: str, kind: str, name: str, there: Collection[str]) -> str:
    """Returns the one of a name's names that is among `there`; the name itself where none is."""
    if name in there:
        return name
    return next((n for n in sorted(_renames().get((scope, kind), {}).get(name, ())) if n in there), name)


def diff_dumps(a: Dump | str | os.PathLike[str], b: Dump | str | os.PathLike[str]) -> pd.DataFrame:
    """Returns where two -dump-vmstate files differ, a row for each difference.

    Columns: section (the class), vmsd, field, kind, a, b (what either side has), breaks: would a stream of `a` fail
    on `b` for it. Kinds: `machine`, `only in a`, `only in b` (classes), `description only in a`, `description only
    in b`, `version`, `minimum version`, `field only in a`, `field only in b`, `size`, `count`, `condition`, `struct
    only in a`, `struct only in b`, `field version`, `subsection only in a`, `subsection only in b`, `vmsd` (another
    name), `unused` (one side skips what the other has), `renamed` (another name for what has the same size at the same
    place: the wire is the same, what it means may not be). Names known to have changed (data/compat/renames.csv) and
    fields moved into a struct are no differences.

    Raises StreamError where a file is no dump.
    """
    import pandas as pd

    one = a if isinstance(a, Dump) else read_dump(a)
    two = b if isinstance(b, Dump) else read_dump(b)
    frame = pd.DataFrame(list(dump_differences(one, two)), columns=COLUMNS)
    return frame.astype({"section": "category", "kind": "category", "breaks": "bool"})


class DumpDifference(NamedTuple):
    """A DumpDifference is where two dumps differ: a row of `diff_dumps`."""

    section: str
    vmsd: str
    field: str
    kind: str
    a: Any
    b: Any
    breaks: bool


_Row = tuple[str, str, str, str, Any, Any, bool]


def dump_differences(a: Dump, b: Dump) -> Iterator[DumpDifference]:
    """Yields the rows of `diff_dumps`, without pandas."""
    return map(DumpDifference._make, _dumps(a, b))


def _dumps(a: Dump, b: Dump) -> Iterator[_Row]:
    if a.machine != b.machine:
        yield "", "", "", "machine", a.machine, b.machine, False
    matched = set()
    for name, mine in a.classes.items():
        where = _among("", "class", name, b.classes)
        if where not in b.classes:
            yield name, "", "", "only in a", mine.version_id, None, True
            continue
        matched.add(where)
        yield from _classes(name, mine, b.classes[where])
    for name in b.classes.keys() - matched:
        yield name, "", "", "only in b", None, b.classes[name].version_id, False


def _classes(name: str, a: DumpedClass, b: DumpedClass) -> Iterator[_Row]:
    yield from _versions(name, "", "", a.version_id, b.version_id, b.minimum_version_id)
    if a.vmsd is not None and b.vmsd is not None:
        yield from _compare(name, a.vmsd, b.vmsd)
    elif a.vmsd is not b.vmsd:
        side = "a" if b.vmsd is None else "b"
        yield name, "", "", f"description only in {side}", bool(a.vmsd), bool(b.vmsd), b.vmsd is None


def _versions(section: str, vmsd: str, path: str, a: int, b: int, minimum: int | None) -> Iterator[_Row]:
    if a != b:
        yield section, vmsd, path, "field version" if path else "version", a, b, a > b
    if minimum is not None and a < minimum:
        yield section, vmsd, path, "minimum version", a, minimum, True


def _compare(section: str, a: Vmsd, b: Vmsd) -> Iterator[_Row]:
    if _among(section, "vmsd", a.name, {b.name}) != b.name:
        yield section, a.name, "", "vmsd", a.name, b.name, True
    yield from _versions(section, a.name, "", a.version_id, b.version_id, b.minimum_version_id)
    yield from _fields(section, a, b)
    theirs = {s.name: s for s in b.subsections}
    for sub in a.subsections:
        if sub.name in theirs:
            yield from _compare(section, sub, theirs.pop(sub.name))
        else:
            yield section, a.name, sub.name, "subsection only in a", sub.version_id, None, True
    for name, sub in theirs.items():
        yield section, a.name, name, "subsection only in b", None, sub.version_id, False


def _fields(section: str, a: Vmsd, b: Vmsd) -> Iterator[_Row]:
    left, right = list(a.fields), list(b.fields)
    for tag, i, j, k, m in _opcodes(a.name, left, right):
        if tag == "equal":
            for mine, their in zip(left[i:j], right[k:m], strict=True):
                yield from _field_pair(section, a.name, mine, their)
            continue
        # A struct that was put around fields, or taken away, does not change the wire.
        ours_open, their_open = _opened(left[i:j]), _opened(right[k:m])
        for inner, i2, j2, k2, m2 in _opcodes(a.name, ours_open, their_open):
            if inner == "equal":
                for one, other in zip(ours_open[i2:j2], their_open[k2:m2], strict=True):
                    yield from _field_pair(section, a.name, one, other)
                continue
            gone, come = ours_open[i2:j2], their_open[k2:m2]
            unused = any(f.name.startswith("unused") for f in (*gone, *come))
            if unused and _length(gone) == _length(come):
                skipped, read = (" ".join(f.name for f in side) for side in (gone, come))
                yield section, a.name, gone[0].name, "unused", skipped, read, False
                continue
            yield from _replaced(section, a, gone, come)


def _replaced(section: str, a: Vmsd, gone: list[FieldDescription], come: list[FieldDescription]) -> Iterator[_Row]:
    """Yields fields of one side alone, without the ones that stand in another struct under their last name."""
    tails = [[(f.name.rpartition(".")[2], f.size, f.count) for f in side] for side in (gone, come)]
    if [t[1:] for t in tails[0]] == [t[1:] for t in tails[1]]:
        tails[1] = tails[0]
    for tag, i, j, k, m in difflib.SequenceMatcher(None, tails[0], tails[1], autojunk=False).get_opcodes():
        if tag == "equal":
            for f, g in zip(gone[i:j], come[k:m], strict=True):
                yield section, a.name, f.name, "renamed", f.name, g.name, False
            continue
        for f in gone[i:j]:
            yield section, a.name, f.name, "field only in a", _length([f]), None, not f.conditional
        for f in come[k:m]:
            breaks = not f.conditional and (f.version_id or 0) <= a.version_id
            yield section, a.name, f.name, "field only in b", None, _length([f]), breaks


def _opcodes(scope: str, a: list[FieldDescription], b: list[FieldDescription]) -> list[Any]:
    there = {f.name for f in b}
    names = [_among(scope, "field", f.name, there) for f in a]
    return difflib.SequenceMatcher(None, names, [f.name for f in b], autojunk=False).get_opcodes()


def _opened(fields: list[FieldDescription]) -> list[FieldDescription]:
    return [g for f in fields for g in (f.struct.fields if f.struct is not None and f.count is None else (f,))]


def _length(fields: list[FieldDescription]) -> int:
    return sum(f.size * (1 if f.count is None else f.count) for f in fields)


def _field_pair(section: str, vmsd: str, a: FieldDescription, b: FieldDescription) -> Iterator[_Row]:
    yield from _versions(section, vmsd, a.name, a.version_id or 0, b.version_id or 0, None)
    if a.conditional != b.conditional:
        yield section, vmsd, a.name, "condition", a.conditional, b.conditional, False
    if a.count != b.count:
        yield section, vmsd, a.name, "count", a.count, b.count, True
    if a.struct is not None and b.struct is not None:
        yield from _compare(section, a.struct, b.struct)
    elif a.struct is not None or b.struct is not None:
        side = "a" if b.struct is None else "b"
        yield section, vmsd, a.name, f"struct only in {side}", a.size, b.size, a.size != b.size
    elif a.size != b.size:  # of a struct it is the C type's, which the wire does not have
        yield section, vmsd, a.name, "size", a.size, b.size, True
