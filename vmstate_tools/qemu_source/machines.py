"""Machine types of `hw/ppc`: their default CPU, and the compat properties that gate CPU fields."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.csource import Evaluator, child, designated, text_of, walk
from vmstate_tools.qemu_source.ppc import INIT

if TYPE_CHECKING:
    from tree_sitter import Node

    from vmstate_tools.qemu_source.csource import Macro, Unit
    from vmstate_tools.qemu_source.ppc import Tree

_PSERIES = re.compile(r"spapr_machine_(\d+)_(\d+)(_sxxm)?_class_(?:options|init)")


class Gate(NamedTuple):
    """A Gate is a CPU property, and the machine type that sets it for itself and all older ones."""

    member: str
    property: str
    default: str
    machine: str
    value: str


def gates(tree: Tree) -> list[Gate]:
    """Properties of the CPU that a pseries machine type sets to keep an older stream format."""
    found = []
    members = {}
    for name in INIT:
        if tree.has(name):
            for call in walk(tree.unit(name, expand=False).root, "call_expression"):
                if text_of(child(call, "function")) == "DEFINE_PROP_BOOL":
                    args = call.child_by_field_name("arguments")
                    assert args is not None
                    prop, _, member, default = (text_of(a) for a in args.named_children)
                    members[prop.strip('"')] = (member, default)
    spapr = _spapr(tree)
    if spapr is None:
        return []
    scopes = {n: text_of(f) for n, f in spapr.functions.items() if "GlobalProperty" in text_of(f)}
    scopes |= {m.name: m.body for m in spapr.macros.values() if m is not None and "COMPAT" in m.name}
    for scope, body in scopes.items():
        version = re.search(r"_(\d+)_(\d+)(?:_class_options|$)", scope)
        # Braces of one property: .driver, .property, .value or the same without designators.
        for driver, prop, value in re.findall(
            r"\{\s*(?:\.driver\s*=\s*)?([\w\"-]+)\s*,\s*(?:\.property\s*=\s*)?\"([\w.-]+)\"\s*,"
            r"\s*(?:\.value\s*=\s*)?\"?([\w()]+)\"?\s*,?\s*\}",
            body,
        ):
            if driver in ("TYPE_POWERPC_CPU", '"powerpc64-cpu"', '"powerpc-cpu"') and prop in members:
                if version is None:
                    raise CatalogError(f"{tree.revision}: {spapr.path}: {prop} set in {scope}: which machine?")
                value = re.sub(r"stringify\((\w+)\)", r"\1", value)
                found.append(Gate(members[prop][0], prop, members[prop][1], f"{version[1]}.{version[2]}", value))
    return sorted(set(found))


def _spapr(tree: Tree) -> Unit | None:
    path = "hw/ppc/spapr.c"
    return tree.at(path, expand=False) if path in tree.blobs else None


def default_cpus(tree: Tree) -> dict[str, str]:
    """Returns machine type → the CPU it takes under TCG where none is given, as the source spells it.

    Machine types whose default could not be followed are left out. Covers releases since 1.6 (`hw/ppc`).
    """
    functions: dict[str, Node] = {}
    starts: dict[str, str] = {}
    macros: dict[str, Macro | None] = {}
    paths = [path for path in tree.blobs if path.startswith("hw/ppc/")]
    for path in paths:
        if path.endswith(".h"):
            macros |= tree.at(path).macros
    for path in paths:
        if not path.endswith(".c"):
            continue
        unit = tree.at(path)
        functions |= unit.functions
        values = Evaluator({**macros, **unit.macros}, {})
        for node in walk(unit.root, "declaration"):
            kind = node.child_by_field_name("type")
            if kind is not None and text_of(kind) in ("QEMUMachine", "TypeInfo"):
                starts |= _machines(node, "init" if text_of(kind) == "QEMUMachine" else "class_init", values)
    found = {machine: _first_cpu(start, functions) for machine, start in starts.items()}
    found["pseries"] = _first_cpu("spapr_machine_class_init", functions)
    found["pseries"] = found["pseries"] or _first_cpu("ppc_spapr_init", functions)
    for name in functions:
        match = _PSERIES.fullmatch(name)
        if match:
            suffix = "-sxxm" if match[3] else ""
            found[f"pseries-{match[1]}.{match[2]}{suffix}"] = _pseries_cpu(name, functions) or found["pseries"]
    found.pop("spapr", None)  # the abstract type of all pseries
    return {m: c for m, c in found.items() if c}


def _machines(node: Node, entry: str, values: Evaluator) -> dict[str, str]:
    """Returns machine name → its entry function, from a type or a table of types."""
    found = {}
    for item in walk(node, "initializer_list"):
        for entries in (item, *item.named_children):
            parts = designated(entries) if entries.type == "initializer_list" else {}
            if entry in parts and "name" in parts:
                try:
                    name = values.text(parts["name"], "").removesuffix("-machine")
                    found[name] = text_of(parts[entry])
                except CatalogError:
                    continue  # a device, named by a macro of a header elsewhere
    return found


def _pseries_cpu(name: str, functions: dict[str, Node]) -> str:
    """Returns the CPU that a machine type assigns, else the one of the newer type whose options it starts from."""
    cpu = _own_cpu(functions[name])
    if cpu:
        return cpu
    for call in walk(functions[name], "call_expression"):
        target = text_of(child(call, "function"))
        if _PSERIES.fullmatch(target) and target in functions:
            return _pseries_cpu(target, functions)
    return ""


def _own_cpu(node: Node) -> str:
    """Returns the CPU that a function names: in a member or variable for it, or to the function that makes one."""
    for item in walk(node, "assignment_expression", "call_expression"):
        named: Node | None = item
        if item.type == "assignment_expression":
            target = text_of(child(item, "left"))
            named = child(item, "right")
            made = next((c for c in walk(named, "call_expression") if _makes_cpu(c)), None)
            if not re.search(r"(default_cpu_type|cpu_model|tcg_default_cpu|cpu_type)$", target):
                named = made
        elif not _makes_cpu(item):
            named = None
        literals = [text_of(n)[1:-1] for n in walk(named, "string_literal")] if named is not None else []
        if literals and literals[-1] != "host":
            return literals[-1]
    return ""


def _makes_cpu(call: Node) -> bool:
    return text_of(child(call, "function")) in ("cpu_ppc_init", "ppc4xx_init")


def _first_cpu(start: str, functions: dict[str, Node]) -> str:
    """Finds, breadth first through calls and functions stored in members, the CPU that is named first."""
    queue, seen = [start], set()
    while queue:
        name = queue.pop(0)
        if name in seen or name not in functions:
            continue
        seen.add(name)
        node = functions[name]
        cpu = _own_cpu(node)
        if cpu:
            return cpu
        for item in walk(node, "assignment_expression", "call_expression"):
            if item.type == "assignment_expression":
                queue.append(text_of(child(item, "right")))
                queue += [text_of(child(c, "function")) for c in walk(item, "call_expression")]
            else:
                queue.append(text_of(child(item, "function")))
    return ""
