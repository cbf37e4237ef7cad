"""The CPU section as `machine.c` describes it: fields, their treatment, subsections, the pre_save masks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.csource import child, designated, text_of, walk

if TYPE_CHECKING:
    from tree_sitter import Node

    from vmstate_tools.qemu_source.csource import Evaluator, Unit
    from vmstate_tools.qemu_source.ppc import Tree

ROOT = "vmstate_ppc_cpu"
_MEMBERS = {
    "name", "version_id", "minimum_version_id", "minimum_version_id_old", "load_state_old", "needed",
    "pre_save", "post_load", "pre_load", "fields", "subsections",
}  # fmt: skip
_MACRO = re.compile(r"(?:UINTTL|U?INT(?:8|16|32|64)|BOOL|FLOAT64|AVR|FPR|VSR|SLB|STRUCT)((?:_[A-Z0-9]+)*)")
_SUFFIXES = {"EQUAL", "TEST", "ARRAY", "VARRAY", "POINTER", "INT32"}


class Field(NamedTuple):
    """A Field is one field, or at position 0 the VMState description that the next ones belong to.

    `vmsd` is the path of descriptions from the section down, `macro` the VMSTATE_ macro, or the C name of a
    description or of a hand-made field's VMStateInfo. `treatment`: plain, equal, test (there only if the
    function `test` says so, which reads the CPU's members `reads`), unused. `elements` is their number, or
    the bytes of an unused field; None where it depends on the CPU.
    """

    vmsd: str
    position: int
    name: str
    macro: str
    treatment: str
    test: str = ""
    reads: str = ""
    elements: int | None = None
    version: int | None = None
    minimum: int | None = None


class Mask(NamedTuple):
    """What `cpu_pre_save` does to a word if `gate` is set: keep bits (and) or set them (or)."""

    word: str
    op: str
    value: int
    gate: str


def read(tree: Tree) -> tuple[list[Field], list[Mask]]:
    """Fields in stream order and the pre_save masks; none before the section was a VMStateDescription (1.6).

    Raises
    ------
    CatalogError : a construct that is not understood, with revision, file and line.
    """
    try:
        unit = tree.unit("machine.c", expand=False)
        values = tree.constants
        reader = _Reader(unit, values)
        if ROOT not in reader.found:
            return [], []
        reader.describe(ROOT, "cpu", "")
        return reader.rows, _masks(unit, values)
    except CatalogError as error:
        raise CatalogError(f"{tree.revision}: {error}") from None


class _Reader:
    def __init__(self, unit: Unit, values: Evaluator) -> None:
        self.unit = unit
        self.values = values
        self.functions = unit.functions
        self.rows: list[Field] = []
        self.found: dict[str, Node] = {}
        for item in unit.declarations():
            if item.parent is not None and text_of(child(item.parent, "type")) == "VMStateDescription":
                self.found[text_of(child(item, "declarator"))] = child(item, "value")

    def describe(self, symbol: str, path: str, needed: str) -> None:
        node = self.found[symbol]
        where = self.unit.where(node)
        parts = designated(node)
        if parts.keys() - _MEMBERS:
            raise CatalogError(f"{where}: {symbol}: {sorted(parts.keys() - _MEMBERS)} not understood")
        needed = text_of(parts["needed"]) if "needed" in parts else needed
        version, minimum = (self.values.node(parts[k], where) for k in ("version_id", "minimum_version_id"))
        name = self.values.text(parts["name"], where)
        kind = ("test", needed, self.reads(needed)) if needed else ("plain", "", "")
        self.rows.append(Field(path, 0, name, symbol, *kind, None, version, minimum))
        nested: list[str] = []
        for position, item in enumerate(_list(parts["fields"]), 1):
            row = self.field(item, path, nested)
            if row is not None:
                self.rows.append(row._replace(position=position))
        for entry in nested:
            self.describe(entry, f"{path}/{entry.removeprefix('vmstate_')}", "")
        for item in _list(parts.get("subsections")):
            condition = ""
            if item.type == "initializer_list":  # until 2.3: a pair of description and condition
                pair = designated(item)
                if "vmsd" not in pair:
                    continue
                item, condition = pair["vmsd"], text_of(pair["needed"])
            target = text_of(item).lstrip("&")
            if target not in ("NULL", "0"):
                self.describe(target, f"{path}/{target.removeprefix('vmstate_')}", condition)

    def reads(self, test: str) -> str:
        """Members of the CPU, or of its env, that a test function looks at; with ! where it negates them."""
        body = text_of(self.functions[test]) if test in self.functions else ""
        members = re.findall(r"(!?)(?:\bcpu->(?!env\b)|\benv(?:\.|->))(\w+)", body)
        return " ".join(dict.fromkeys(map("".join, members)))

    def field(self, item: Node, path: str, nested: list[str]) -> Field | None:
        where = self.unit.where(item)
        if item.type == "initializer_list":
            parts = designated(item)
            test = text_of(parts["field_exists"]) if "field_exists" in parts else ""
            kind = ("test", test, self.reads(test)) if test else ("plain", "", "")
            info = text_of(parts["info"]).lstrip("&")
            return Field(path, 0, self.values.text(parts["name"], where), info, *kind, 1)
        if item.type != "call_expression":
            raise CatalogError(f"{where}: field {text_of(item)[:60]!r} not understood")
        macro = text_of(child(item, "function")).removeprefix("VMSTATE_")
        given = _list(child(item, "arguments"))
        if macro == "END_OF_LIST":
            return None
        if macro == "UNUSED":
            return Field(path, 0, "", macro, "unused", elements=self.size(given[0], where))
        match = _MACRO.fullmatch(macro)
        suffixes = match[1].split("_")[1:] if match is not None else []
        if match is None or set(suffixes) - _SUFFIXES:
            raise CatalogError(f"{where}: VMSTATE_{macro} not understood")
        elements = None if "VARRAY" in suffixes else self.size(given[2], where) if "ARRAY" in suffixes else 1
        nested += [name for name in map(text_of, given) if name in self.found]
        name = text_of(given[0])
        if "TEST" in suffixes:
            test = text_of(given[-1])
            return Field(path, 0, name, macro, "test", test, self.reads(test), elements)
        return Field(path, 0, name, macro, "equal" if "EQUAL" in suffixes else "plain", elements=elements)

    def size(self, node: Node, where: str) -> int:
        return 8 if re.fullmatch(r"sizeof\s*\(\s*target_ulong\s*\)", text_of(node)) else self.values.node(node, where)


def _list(node: Node | None) -> list[Node]:
    if node is None:
        return []
    if node.type == "compound_literal_expression":
        node = child(node, "value")
    return [n for n in node.named_children if n.type != "comment"]


def _masks(unit: Unit, values: Evaluator) -> list[Mask]:
    """Statements of cpu_pre_save that fill the `mig_` copies of the words."""
    functions = unit.functions
    body = functions.get("cpu_pre_save")
    if body is None:
        raise CatalogError(f"{unit.path}: no cpu_pre_save")
    bound: dict[str, Node] = {}
    for node in walk(body, "init_declarator"):
        value = node.child_by_field_name("value")
        if value is not None:
            bound[text_of(child(node, "declarator"))] = value
    local: dict[str, int] = {}
    for name, value in bound.items():
        try:
            local[name] = values.node(value, unit.where(value))
        except CatalogError:
            continue  # pointers to the CPU; a mask that is not constant is noticed where it is used
    values = values.binding(local)
    found: list[Mask] = []
    for node in walk(body, "assignment_expression"):
        left = text_of(child(node, "left"))
        match = re.fullmatch(r"cpu->mig_(msr_mask|insns_flags2?|nb_BATs)", left)
        if match is None:
            continue
        where = unit.where(node)
        operator, right = text_of(child(node, "operator")), child(node, "right")
        gate = _gate(node)
        if operator == "|=":
            found.append(Mask(match[1], "or", values.node(right, where), gate))
        elif any(mask.word == match[1] for mask in found):
            raise CatalogError(f"{where}: {left} is assigned twice")
        elif operator == "=" and text_of(right) == f"env->{match[1]}":
            found.append(Mask(match[1], "and", 0xFFFF_FFFF_FFFF_FFFF, gate))
        elif operator == "=" and right.type == "binary_expression":
            if (text_of(child(right, "left")), text_of(child(right, "operator"))) != (f"env->{match[1]}", "&"):
                raise CatalogError(f"{where}: {text_of(node)!r} not understood")
            found.append(Mask(match[1], "and", values.node(child(right, "right"), where), gate))
        else:
            raise CatalogError(f"{where}: {text_of(node)!r} not understood")
    return found


def _gate(node: Node) -> str:
    """Returns the condition that a statement stands under, as the member of the CPU that it reads."""
    while node.parent is not None:
        node = node.parent
        if node.type == "if_statement":
            return text_of(child(node, "condition")).strip("()").removeprefix("cpu->")
    return ""
