"""All that is read of one release's source, file by file and target by target."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import virtio
from vmstate_tools.qemu_source.devices import types
from vmstate_tools.qemu_source.layout import Layout
from vmstate_tools.qemu_source.machine_types import compat_rows, machine_types
from vmstate_tools.qemu_source.program import Files, Program
from vmstate_tools.qemu_source.properties import properties
from vmstate_tools.qemu_source.registrations import registrations
from vmstate_tools.qemu_source.targets import TARGETS, targets_of
from vmstate_tools.qemu_source.vmstate import descriptions, infos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vmstate_tools.qemu_source.devices import DeviceType
    from vmstate_tools.qemu_source.machine_types import CompatRow, MachineType
    from vmstate_tools.qemu_source.program import Scope
    from vmstate_tools.qemu_source.properties import Property
    from vmstate_tools.qemu_source.registrations import Registration
    from vmstate_tools.qemu_source.revision import Revision
    from vmstate_tools.qemu_source.targets import Target
    from vmstate_tools.qemu_source.vmstate import Description

_Row = TypeVar("_Row", "Property", "CompatRow")
_OF_INTEREST = re.compile(
    r"VMState(?:Description|Info)|GlobalProperty|CompatProperty|QEMUMachine|\bProperty\b|TypeInfo|VMSTATE_|vmstate_register|register_savevm|DEFINE_\w*(?:TYPE|MACHINE)"
)
_OF_A_TARGET = re.compile(r"\bTARGET_\w+|\btarget_u?long\b|UINTTL")
#: Targets of which a file that all share may contain something of its own.
_MAIN = ("x86_64", "ppc64", "aarch64", "s390x", "mips64", "sparc64", "riscv64")


class Problem(NamedTuple):
    """Something in the source that was not understood."""

    file: str
    line: int
    what: str
    problem: str


@dataclass
class ReleaseFacts:
    """What one release's source says. Each table is a mapping of rows to the targets they hold for, '' for all."""

    descriptions: dict[Description, str] = field(default_factory=dict)
    types: dict[DeviceType, str] = field(default_factory=dict)
    registrations: dict[Registration, str] = field(default_factory=dict)
    properties: dict[Property, str] = field(default_factory=dict)
    machines: dict[MachineType, str] = field(default_factory=dict)
    compat: dict[CompatRow, str] = field(default_factory=dict)
    kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    virtio: list[virtio.Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @cached_property
    def infos(self) -> dict[str, str]:
        """Symbol of a VMStateInfo → the type as a stream's description spells it."""
        return dict(self.kinds.keys())

    @cached_property
    def described(self) -> dict[str, list[Description]]:
        """Symbol → the descriptions of that symbol."""
        found: dict[str, list[Description]] = {}
        for item in self.descriptions:
            found.setdefault(item.symbol, []).append(item)
        return found

    @cached_property
    def typed(self) -> dict[str, list[DeviceType]]:
        """Name of a QOM type → its definitions; targets may have one each."""
        found: dict[str, list[DeviceType]] = {}
        for item in self.types:
            if item.name is not None:
                found.setdefault(item.name, []).append(item)
        return found

    def description(self, symbol: str, by: str, target: str = "") -> Description | None:
        """Finds the description that a symbol is in the file `by`, as the program of `target` is linked."""
        found = self.described.get(symbol, [])
        folder = TARGETS[target].folder if target else ""
        ranked = sorted(found, key=lambda d: (d.file != by, not _linked(d.file, folder), not self._holds(d, target)))
        return ranked[0] if ranked else None

    def _holds(self, item: Description, target: str) -> bool:
        targets = self.descriptions[item]
        return not targets or target in targets.split()

    def device(self, name: str, target: str = "") -> DeviceType | None:
        """Finds a QOM type by name, as the program of `target` is linked."""
        folder = TARGETS[target].folder if target else ""
        ranked = sorted(self.typed.get(name, []), key=lambda t: not _linked(t.file, folder))
        return ranked[0] if ranked else None

    def description_of(self, device: str, target: str = "") -> Description | None:
        """Returns the description that a device type's class has, its own or one it inherits."""
        seen: set[str] = set()
        item = self.device(device, target)
        while item is not None and item.name not in seen:
            if item.vmsd:
                return self.description(item.vmsd, item.file, target)
            seen.add(item.name or "")
            item = self.device(item.parent or "", target)
        return None

    def properties_of(self, device: str, target: str = "") -> dict[str, Property]:
        """Returns the properties that a device type's class and its parents' have, by name."""
        found: dict[str, Property] = {}
        item = self.device(device, target)
        seen: set[str] = set()
        while item is not None and item.name not in seen:
            seen.add(item.name or "")
            for symbol in reversed(item.properties):
                for each in _near([p for p in self.properties if p.list == symbol], item.file):
                    found.setdefault(each.name, each)
            item = self.device(item.parent or "", target)
        return found

    def compat_of(self, machine: str, target: str = "") -> dict[tuple[str, str], str]:
        """Returns what a machine type sets for the sake of older releases: (driver, property) → value."""
        chain: list[MachineType] = []
        type_ = self.device(f"{machine}-machine", target)
        while type_ is not None and len(chain) < 20:
            name = (type_.name or "").removesuffix("-machine")
            chain += [m for m in self.machines if m.name == name and m.file == type_.file][:1]
            type_ = self.device(type_.parent or "", target)
        if not chain:  # a QEMUMachine, until 2.4
            chain = [m for m in self.machines if m.name == machine][:1]
        found: dict[tuple[str, str], str] = {}
        for item in reversed(chain):
            for name in item.lists:
                for row in _near([c for c in self.compat if c.list == name], item.file):
                    found[row.driver, row.property] = row.value
        return found


def _near(rows: list[_Row], file: str) -> list[_Row]:
    return [row for row in rows if row.file == file] or rows


def _linked(path: str, folder: str) -> bool:
    match = re.match(r"target[-/](\w+)/", path)
    return match is None or not folder or match[1] == folder


def read(revision: Revision, files: Files) -> ReleaseFacts:
    """Reads one release.

    A file is read for each target whose configuration it may tell apart; what is not understood is a row of
    `problems`, never an error.
    """
    facts = ReleaseFacts()
    first = Program(revision, TARGETS["x86_64"], files)
    programs = {"x86_64": (first, Layout(first))}
    for path in revision.blobs:
        if not path.endswith((".c", ".inc")):
            continue
        source = files.get(revision, path).text
        if not _OF_INTEREST.search(source):
            continue
        targets = _targets(path, source)
        for reader, table in (
            (descriptions, facts.descriptions),
            (types, facts.types),
            (registrations, facts.registrations),
            (infos, facts.kinds),
            (properties, facts.properties),
            (machine_types, facts.machines),
            (compat_rows, facts.compat),
        ):
            rows: dict[Any, list[str]] = {}
            for target in targets:
                if target.name not in programs:
                    program = Program(revision, target, files, first)
                    programs[target.name] = program, Layout(program)
                program, layout = programs[target.name]
                for row in _read(reader, program.scope(path), layout, facts.problems):
                    rows.setdefault(row, []).append(target.name)
            for row, names in rows.items():
                table[row] = "" if len(names) == len(targets) else " ".join(names)
    for row in virtio.rows(*programs["x86_64"]):
        if isinstance(row, virtio.Unread):
            facts.problems.append(Problem(*row))
        else:
            facts.virtio.append(row)
    facts.problems += _problems(facts)
    facts.problems[:] = sorted(set(facts.problems))
    return facts


def _read(reader: Callable[..., Iterable[Any]], scope: Scope, layout: Layout, problems: list[Problem]) -> Iterator[Any]:
    try:
        yield from reader(scope, layout)
    except (CatalogError, RecursionError) as error:
        problems.append(Problem(scope.path, 0, reader.__name__, str(error)))


def _targets(path: str, source: str) -> list[Target]:
    targets = targets_of(path)
    if path.startswith(("target/", "target-")):
        return targets
    if not _OF_A_TARGET.search(source):
        return targets[:1]
    return targets if len(targets) > 1 else [TARGETS[name] for name in _MAIN]


def _problems(facts: ReleaseFacts) -> Iterator[Problem]:
    for d in facts.descriptions:
        if d.problem:
            yield Problem(d.file, d.line, d.symbol, d.problem)
        if d.name is None:
            yield Problem(d.file, d.line, d.symbol, "name made when QEMU runs")
        for f in d.fields:
            if f.problem:
                yield Problem(d.file, d.line, f"{d.symbol} {f.name}", f.problem)
    for t in facts.types:
        if t.problem:
            yield Problem(t.file, t.line, t.symbol, t.problem)
        if t.name is None:
            yield Problem(t.file, t.line, t.symbol, "name made when QEMU runs")
    symbols = facts.described
    missing: Counter[tuple[str, int, str, str]] = Counter()
    for d in facts.descriptions:
        for name in [f.vmsd for f in d.fields if f.vmsd] + [s for s, _ in d.subsections]:
            if name not in symbols:
                missing[d.file, d.line, d.symbol, f"description {name} not found"] += 1
    yield from (Problem(*key) for key in missing)
