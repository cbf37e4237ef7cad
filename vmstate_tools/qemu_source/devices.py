"""QOM types of QEMU's source: name, parent, and what their class says: description, properties, PCI ids."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import type_tables
from vmstate_tools.qemu_source.initialisers import braced, items, members, string, symbol, text
from vmstate_tools.qemu_source.macros import tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope
    from vmstate_tools.qemu_source.type_tables import Row

_TYPE = re.compile(r"\bTypeInfo\s+(\w+)\s*(\[[^\]]*\]\s*)?=\s*\{")
_VMSD = re.compile(r"(?:\b(\w+)|\))\s*->\s*(?:legacy_)?vmsd\s*=\s*([^;=]+);")
_PROPERTIES = re.compile(
    r"->\s*props\s*=\s*([^;=]+);|\bdevice_class_set_props(?:_n)?\s*\(\s*[^,]*,\s*([^;,]+?)\s*(?:,[^;]*)?\)\s*;"
)
_CALL = re.compile(r"\b(\w+)\s*\(\s*(?:klass|oc|class|dc|ocs?|k|g_class|o_class)\b")
_IDS = re.compile(r"->\s*(vendor_id|device_id|revision|class_id|subsystem_vendor_id|subsystem_id)\s*=\s*([^;=]+);")


@dataclass(frozen=True)
class DeviceType:
    """A DeviceType is one QOM type.

    Attributes
    ----------
    name, parent : as QOM spells them; None where the source makes the name when QEMU runs.
    class_init, instance_init : functions.
    vmsd : symbol of the description that its class has; '' where it keeps its parent's, 'NULL' where it has none.
    virtio_vmsd, cpu_vmsd : likewise of the virtio class, whose device writes it inside its own section, and of the
        CPU class, whose description is registered as `cpu`.
    properties : symbols of the lists of properties that its class adds.
    ids : PCI ids that its class sets, name → number.
    """

    file: str
    symbol: str
    name: str | None
    parent: str | None = None
    abstract: bool = False
    class_init: str = ""
    instance_init: str = ""
    vmsd: str = ""
    virtio_vmsd: str = ""
    cpu_vmsd: str = ""
    properties: tuple[str, ...] = ()
    ids: tuple[tuple[str, int], ...] = ()
    problem: str = ""
    line: int = field(default=0, compare=False)


def types(scope: Scope, layout: Layout) -> list[DeviceType]:
    """Reads the QOM types that one file defines."""
    if "types" not in scope.found:
        scope.found["types"] = list(_all_types(scope, layout))
    return scope.found["types"]


def _all_types(scope: Scope, layout: Layout) -> Iterator[DeviceType]:
    view = scope.view
    for match in _TYPE.finditer(view.text):
        tokens = scope.expand(tokenize(braced(view.text, match.end() - 1)), match.start())
        line = view.line(match.start())
        for item in (items(tokens) or []) if match[2] else [tokens]:
            yield from _type(scope, layout, match[1], item, line, match.start())
    for line, made in scope.made:
        for match in _TYPE.finditer(made):
            tokens = tokenize(braced(made, match.end() - 1))
            for item in (items(tokens) or []) if match[2] else [tokens]:
                yield from _type(scope, layout, match[1], item, line, len(view.text))
    yield from _virtio_pci_types(scope, layout)


def _type(scope: Scope, layout: Layout, name: str, tokens: list[str], line: int, place: int) -> Iterator[DeviceType]:
    found = DeviceType(scope.path, name, None, line=line)
    try:
        parts = members(tokens)
    except CatalogError as error:
        yield replace(found, problem=str(error))
        return
    parts.update(_assigned(scope, name, place))
    if not parts:
        return
    named = parts.get("name", [])
    if string(named) is None:
        several = list(type_tables.rows(scope, layout, "".join(named), place))
        for row in several:
            yield _one(found, scope, layout, {k: type_tables.bound(v, row) for k, v in parts.items()}, row)
        if several:
            return
    yield _one(found, scope, layout, parts, {})


def _assigned(scope: Scope, name: str, place: int) -> dict[str, list[str]]:
    """Finds what the function around a place assigns to members of a variable of its own or of the file."""
    view = scope.view
    if f"{name}." not in view.text:
        return {}
    around = next((c for c in view.functions.values() if c.start <= place < c.end), None)
    start, end = (around.start, around.end) if around is not None else (0, len(view.text))
    found: dict[str, list[str]] = {}
    for match in re.finditer(rf"\b{re.escape(name)}\s*\.\s*(\w+)\s*=\s*([^;=]+);", view.text[start:end]):
        found[match[1]] = scope.expand(tokenize(match[2]), start)
    return found


def _one(found: DeviceType, scope: Scope, layout: Layout, parts: dict[str, list[str]], row: Row) -> DeviceType:
    found = replace(
        found,
        name=string(parts["name"]) if "name" in parts else None,
        parent=string(parts["parent"]) if "parent" in parts else None,
        abstract=text(parts.get("abstract", [])) in ("true", "1"),
        class_init=symbol(parts.get("class_init", [])),
        instance_init=symbol(parts.get("instance_init", [])),
    )
    return _with_class(found, scope, layout, row)


def _virtio_pci_types(scope: Scope, layout: Layout) -> Iterator[DeviceType]:
    """Makes the types that virtio_pci_types_register (hw/virtio/virtio-pci.c, since 4.0) makes of one list of names."""
    view = scope.view
    for match in re.finditer(r"\bVirtioPCIDeviceTypeInfo\s+(\w+)\s*=\s*\{", view.text):
        tokens = scope.expand(tokenize(braced(view.text, match.end() - 1)), match.start())
        parts = members(tokens)
        names = {key: string(parts[key]) for key in parts if key.endswith("name")}
        generic = names.get("generic_name")
        base = names.get("base_name") or (f"{generic}-base-type" if generic else None)
        parent = string(parts["parent"]) if "parent" in parts else None
        line = view.line(match.start())
        found = DeviceType(scope.path, match[1], base, parent or "virtio-pci", True, line=line)
        found = replace(found, class_init=symbol(parts.get("class_init", [])))
        yield _with_class(found, scope, layout, {})
        for key in ("generic_name", "transitional_name", "non_transitional_name"):
            if names.get(key):
                init = "virtio_pci_generic_class_init" if key == "generic_name" else ""
                one = DeviceType(scope.path, match[1], names[key], base, class_init=init, line=line)
                yield _with_class(one, scope, layout, {})


def class_functions(scope: Scope, name: str) -> Iterator[tuple[Scope, str, int]]:
    """Yields the text of a class_init function, and of any it hands the class to, with its scope and its place."""
    queue, seen = [(scope, name)], set()
    while queue:
        here, function = queue.pop(0)
        found = here.function(function) if function not in seen else None
        seen.add(function)
        if found is not None:
            yield found
            queue += [(found[0], m[1]) for m in _CALL.finditer(found[1][found[1].find("{") :])]


def _with_class(found: DeviceType, scope: Scope, layout: Layout, row: Row) -> DeviceType:
    vmsd: dict[str, str] = {}
    properties: list[str] = []
    ids: dict[str, int] = {}
    problems: list[str] = []
    for here, source, place in class_functions(scope, found.class_init):
        for match in _VMSD.finditer(source):
            given = symbol(here.expand(type_tables.bound(tokenize(match[2]), row), place))
            vmsd[_class_of(match[1] or "", match[0], source)] = given or "NULL"
        for match in _PROPERTIES.finditer(source):
            given = symbol(here.expand(tokenize(match[1] or match[2]), place))
            if given:
                properties.append(given)
        for match in _IDS.finditer(source):
            try:
                ids.setdefault(
                    match[1], layout.integer(here.expand(type_tables.bound(tokenize(match[2]), row), place), here)
                )
            except CatalogError as error:
                problems.append(f"{match[1]}: {error}")
    return replace(
        found,
        vmsd=vmsd.get("device", ""),
        virtio_vmsd=vmsd.get("virtio", ""),
        cpu_vmsd=vmsd.get("cpu", ""),
        properties=tuple(properties),
        ids=tuple(ids.items()),
        problem="; ".join(problems),
    )


def _class_of(variable: str, statement: str, source: str) -> str:
    """Tells whose class a variable is: device, virtio or cpu."""
    declared = re.search(rf"\b(\w+)Class\s*\*\s*{variable}\b", source) if variable else None
    name = declared[1] if declared is not None else ""
    if name.lower().startswith("virtio"):
        return "virtio"
    return "cpu" if name == "CPU" or "legacy_vmsd" in statement else "device"
