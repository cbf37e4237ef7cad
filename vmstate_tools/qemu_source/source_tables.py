"""How `data/source` is made: what every release x.y.0 says, as tables; each row has its first and last release."""

from __future__ import annotations

import csv
import io
import re
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import virtio
from vmstate_tools.qemu_source.devices import DeviceType
from vmstate_tools.qemu_source.git import Repo
from vmstate_tools.qemu_source.machine_types import CompatRow, MachineType
from vmstate_tools.qemu_source.program import Files
from vmstate_tools.qemu_source.properties import Property
from vmstate_tools.qemu_source.registrations import Registration
from vmstate_tools.qemu_source.release_facts import ReleaseFacts, read
from vmstate_tools.qemu_source.releases import releases
from vmstate_tools.qemu_source.revision import Revision
from vmstate_tools.qemu_source.vmstate import Description, Field
from vmstate_tools.source import zstd
from vmstate_tools.source.new_file import new_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from vmstate_tools.qemu_source.releases import ReleaseCommit

#: Before 1.6, most descriptions were not yet what they are since, and no stream of the collections was written.
FIRST = (1, 6)
_DESCRIPTION = ("name", "file", "symbol", "targets", "since", "until", "version", "minimum", "minimum_old",
                "unmigratable", "early_setup", "priority", "needed", "hooks")  # fmt: skip
_FIELD = ("name", "type", "info", "vmsd", "flags", "size", "num", "num_member", "size_member", "start", "version",
          "struct_version", "test", "state")  # fmt: skip
_NUMBERS = {"size", "num", "start", "version", "struct_version"}
_REGISTRATION = ("file", "function", "how", "device", "idstr", "instance", "version", "alias", "vmsd", "targets")
_TYPE = ("name", "parent", "abstract", "file", "symbol", "targets", "vmsd", "virtio_vmsd", "cpu_vmsd", "properties",
         "ids", "class_init", "instance_init")  # fmt: skip
_PROPERTY = ("file", "list", "name", "info", "default", "bit", "field", "state", "targets")
_MACHINE = ("machine", "file", "targets", "list", "from_last")
_MEMBER = ("machine", "file", "targets", "member", "value")
_COMPAT = ("file", "list", "driver", "property", "value", "targets")
_PROBLEM = ("file", "what", "problem")

Table = tuple[tuple[str, ...], list[tuple[Any, ...]]]


def build_source(qemu_git: Sequence[Path], out: Path, first: tuple[int, ...] = FIRST, workers: int = 2) -> None:
    """Reads every release x.y.0 from `first` on in clones of QEMU, and writes the tables of `data/source` to `out`.

    Raises
    ------
    CatalogError : not a clone, or no release in it.
    """
    with ExitStack() as stack:
        repos = [stack.enter_context(Repo(path)) for path in qemu_git]
        found = [r for r in releases(repos) if r.kind == "release" and r.key >= first]
        if not found:
            raise CatalogError("no release of QEMU found in the given repositories")
        tables = source_tables({r.name: facts for r, facts in _read(found, workers)})
        tables["releases"] = (("release", "date", "commit"), [(r.name, r.commit.date, r.commit.hash) for r in found])
    out.mkdir(parents=True, exist_ok=True)
    for name, (columns, rows) in tables.items():
        write_table(out / f"{name}.csv.zst", columns, rows)


_files = Files()  # of one process; neighbouring releases share most files


def facts_of(release: ReleaseCommit) -> ReleaseFacts:
    """Reads one release."""
    revision = Revision(release.repo, release.revision)
    facts = read(revision, _files)
    _files.keep(set(revision.blobs.values()))
    return facts


def _read(found: list[ReleaseCommit], workers: int) -> Iterator[tuple[ReleaseCommit, ReleaseFacts]]:
    if workers == 1:
        for release in tqdm(found, desc="releases", unit="release"):
            yield release, facts_of(release)
        return
    with ProcessPoolExecutor(workers) as pool:
        # Runs of neighbours to each process: they share files.
        done = pool.map(facts_of, found, chunksize=-(-len(found) // (4 * workers)))
        yield from zip(found, tqdm(done, desc="releases", unit="release", total=len(found)), strict=True)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes one table as CSV, compressed with zstd. True is 1, False and None are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if v is None or v is False else 1 if v is True else v for v in row] for row in rows)
    with new_file(path, overwrite=True) as file:
        file.write(zstd.compress(text.getvalue().encode(), 19))


def source_tables(facts: Mapping[str, ReleaseFacts]) -> dict[str, Table]:
    """Lays out what releases say as tables: name → (columns, rows). `facts` is in the order of the releases."""
    names = list(facts)
    infos = {name: f.infos for name, f in facts.items()}
    described = spans(names, {n: _described(f, infos[n]) for n, f in facts.items()})
    described.sort(key=lambda row: (row[0][0][0] or "", *row[0][0][1:4], names.index(row[1])))
    descriptions, fields, subsections = [], [], []
    for number, ((key, content, field_rows, subsection_rows), since, until) in enumerate(described, 1):
        descriptions.append((number, *key, since, until, *content))
        fields += [(number, at, *row) for at, row in enumerate(field_rows, 1)]
        subsections += [(number, at, *row) for at, row in enumerate(subsection_rows, 1)]
    return {
        "descriptions": (("description", *_DESCRIPTION), descriptions),
        "fields": (("description", "position", *_FIELD), fields),
        "subsections": (("description", "position", "symbol", "needed"), subsections),
        "registrations": _plain(names, facts, _REGISTRATION, lambda f: ((*r, t) for r, t in f.registrations.items())),
        "types": _plain(names, facts, _TYPE, _types),
        "properties": _plain(names, facts, _PROPERTY, _properties),
        "machine_lists": _plain(names, facts, _MACHINE, _machine_lists),
        "machine_members": _plain(names, facts, _MEMBER, _machine_members),
        "compat": _plain(names, facts, _COMPAT, lambda f: ((c.file, c.list, *c[3:], t) for c, t in f.compat.items())),
        **{name: _plain(names, facts, kind._fields, partial(_virtio, kind)) for name, kind in virtio.TABLES.items()},
        "problems": _plain(names, facts, _PROBLEM, lambda f: ((p.file, p.what, p.problem) for p in f.problems)),
    }


def _described(facts: ReleaseFacts, infos: Mapping[str, str]) -> list[tuple[Any, ...]]:
    return [
        (
            (d.name, d.file, d.symbol, targets),
            (d.version, d.minimum, d.minimum_old, d.unmigratable, d.early_setup, d.priority, d.needed,
             " ".join(f"{hook}={function}" for hook, function in d.hooks)),
            tuple(_field(f, infos) for f in d.fields),
            d.subsections,
        )
        for d, targets in facts.descriptions.items()
    ]  # fmt: skip


def _field(f: Field, infos: Mapping[str, str]) -> tuple[Any, ...]:
    # A struct's size is QEMU's own affair: its members travel, and it changes from release to release.
    row = f._replace(size=None) if f.vmsd else f
    return f.name, _type_name(f.info, f.vmsd, infos), *row[1:-1]


def _type_name(info: str, vmsd: str, infos: Mapping[str, str]) -> str:
    """Returns the type as a stream's description spells it."""
    return infos.get(info, "") if info else "struct" if vmsd else ""


def _types(facts: ReleaseFacts) -> Iterator[tuple[Any, ...]]:
    for t, targets in facts.types.items():
        if t.name is not None:
            ids = " ".join(f"{name}={value:#x}" for name, value in t.ids)
            yield (t.name, t.parent, t.abstract, t.file, t.symbol, targets, t.vmsd, t.virtio_vmsd, t.cpu_vmsd,
                   " ".join(t.properties), ids, t.class_init, t.instance_init)  # fmt: skip


def _properties(facts: ReleaseFacts) -> Iterator[tuple[Any, ...]]:
    for p, targets in facts.properties.items():
        yield (p.file, p.list, *p[3:], targets)


def _virtio(kind: type[virtio.Row], facts: ReleaseFacts) -> Iterator[virtio.Row]:
    return (row for row in facts.virtio if isinstance(row, kind))


def _machine_lists(facts: ReleaseFacts) -> Iterator[tuple[Any, ...]]:
    # Counted from the end, a list keeps its place when newer releases put theirs before it. A machine type without
    # a list has a row as well.
    for m, targets in facts.machines.items():
        if not m.lists:
            yield m.name, m.file, targets, "", 0
        for from_last, name in enumerate(reversed(m.lists), 1):
            yield m.name, m.file, targets, name, from_last


def _machine_members(facts: ReleaseFacts) -> Iterator[tuple[Any, ...]]:
    for m, targets in facts.machines.items():
        for member, value in m.members:
            if not re.fullmatch(r"&?(?!true|false|NULL)[a-z]\w*|.*[;{}].*|.*->.*", value):  # functions, variables
                yield m.name, m.file, targets, member, value


def _plain(
    names: list[str],
    facts: Mapping[str, ReleaseFacts],
    columns: tuple[str, ...],
    rows: Callable[[ReleaseFacts], Iterable[tuple[Any, ...]]],
) -> Table:
    found = spans(names, {name: list(rows(f)) for name, f in facts.items()})
    found.sort(key=lambda row: (*map(str, row[0]), names.index(row[1])))
    return (*columns, "since", "until"), [(*row, since, until) for row, since, until in found]


def spans(names: list[str], rows: Mapping[str, Iterable[Any]]) -> list[tuple[Any, str, str]]:
    """Returns (row, first release, last release) for each run of releases that have a row; the last is '' if it is
    the newest there is.
    """
    found: list[tuple[Any, str, str]] = []
    open_: dict[Any, str] = {}
    before = ""
    for name in names:
        here = dict.fromkeys(rows[name])
        for row in [r for r in open_ if r not in here]:
            found.append((row, open_.pop(row), before))
        for row in here:
            open_.setdefault(row, name)
        before = name
    return found + [(row, since, "") for row, since in open_.items()]


def read_release(folder: Path, release: str) -> ReleaseFacts:
    """Reads back what one release says from tables that `build_source` wrote; sizes of structs are not in them.

    Raises
    ------
    CatalogError : no tables there, or the release is not in them.
    """
    names = [row["release"] for row in read_table(folder / "releases.csv.zst")]
    if release not in names:
        raise CatalogError(f"{folder}: no release {release}; there are {', '.join(names)}")

    def held(table: str) -> Iterator[dict[str, str]]:
        at = names.index(release)
        for row in read_table(folder / f"{table}.csv.zst"):
            if names.index(row["since"]) <= at <= (names.index(row["until"]) if row["until"] else len(names)):
                yield row

    facts = ReleaseFacts()
    parts: dict[str, dict[str, list[dict[str, str]]]] = {"fields": {}, "subsections": {}}
    for table, rows in parts.items():
        for row in read_table(folder / f"{table}.csv.zst"):
            rows.setdefault(row["description"], []).append(row)
    for row in held("descriptions"):
        fields, subsections = (parts[table].get(row["description"], []) for table in ("fields", "subsections"))
        facts.descriptions[_description(row, fields, subsections)] = row["targets"]
        facts.kinds.update({(f["info"], f["type"]): "" for f in fields if f["info"]})
    for row in held("types"):
        ids = tuple((name, int(value, 0)) for name, _, value in (item.partition("=") for item in row["ids"].split()))
        facts.types[
            DeviceType(row["file"], row["symbol"], row["name"], row["parent"] or None, bool(row["abstract"]),
                       row["class_init"], row["instance_init"], row["vmsd"], row["virtio_vmsd"], row["cpu_vmsd"],
                       tuple(row["properties"].split()), ids)
        ] = row["targets"]  # fmt: skip
    for row in held("registrations"):
        facts.registrations[Registration(*(row[name] for name in Registration._fields))] = row["targets"]
    for at, row in enumerate(held("properties")):
        facts.properties[Property(row["file"], row["list"], at, *(row[n] for n in Property._fields[3:]))] = row[
            "targets"
        ]
    for at, row in enumerate(held("compat")):
        facts.compat[CompatRow(row["file"], row["list"], at, *(row[n] for n in CompatRow._fields[3:]))] = row["targets"]
    for table, kind in virtio.TABLES.items():
        if (folder / f"{table}.csv.zst").exists():
            facts.virtio += [kind(*(row[name] for name in kind._fields)) for row in held(table)]
    _read_machines(facts, list(held("machine_lists")), list(held("machine_members")))
    return facts


def _read_machines(facts: ReleaseFacts, lists: list[dict[str, str]], members: list[dict[str, str]]) -> None:
    found: dict[tuple[str, str, str], tuple[dict[int, str], dict[str, str]]] = {}
    for row in lists:
        applied, _ = found.setdefault((row["machine"], row["file"], row["targets"]), ({}, {}))
        if row["list"]:
            applied[int(row["from_last"])] = row["list"]
    for row in members:
        found[row["machine"], row["file"], row["targets"]][1][row["member"]] = row["value"]
    for (name, file, targets), (applied, values) in found.items():
        names = tuple(applied[at] for at in sorted(applied, reverse=True))
        facts.machines[MachineType(file, name, names, tuple(sorted(values.items())))] = targets


def _description(row: dict[str, str], fields: list[dict[str, str]], subsections: list[dict[str, str]]) -> Description:
    return Description(
        row["file"],
        row["symbol"],
        row["name"] or None,
        _number(row["version"]),
        _number(row["minimum"]),
        _number(row["minimum_old"]),
        bool(row["unmigratable"]),
        bool(row["early_setup"]),
        row["priority"],
        row["needed"],
        tuple((hook, function) for hook, _, function in (item.partition("=") for item in row["hooks"].split())),
        tuple(Field(*(_number(f[n]) if n in _NUMBERS else f[n] for n in Field._fields[:-1])) for f in fields),  # type: ignore[arg-type]
        tuple((s["symbol"], s["needed"]) for s in subsections),
    )


def _number(text: str) -> int | None:
    return int(text) if text else None


def read_table(path: Path) -> list[dict[str, str]]:
    """Reads a table that `write_table` wrote.

    Raises
    ------
    CatalogError : there is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CatalogError(f"{path}: {error.strerror}") from None
    text = zstd.decompress(data).decode()
    return list(csv.DictReader(io.StringIO(text)))
