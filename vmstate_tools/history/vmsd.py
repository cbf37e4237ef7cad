"""The CPU section as `machine.c` describes it: fields, how each is treated, subsections, and the pre_save masks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.history.csource import designated, text_of, walk
from vmstate_tools.history.ppc import constants

if TYPE_CHECKING:
    from tree_sitter import Node

    from vmstate_tools.history.csource import Evaluator, Unit
    from vmstate_tools.history.ppc import Tree

ROOT = "vmstate_ppc_cpu"


class Field(NamedTuple):
    """One field, or with `macro` "SUBSECTION" / "VMSD" what surrounds fields.

    `treatment`: plain, equal, test (only where `test` says so), unused, and for a subsection the same words
    with `test` naming its `needed` function. `count` is elements, or bytes of an unused field; None where it
    depends on the CPU.
    """

    vmsd: str
    position: int
    name: str
    macro: str
    treatment: str
    test: str
    count: int | None
    version: int | None
    minimum: int | None


class Mask(NamedTuple):
    """What `cpu_pre_save` does to a word on the way out: keep (and), clear (andnot) or set (or) bits."""

    word: str
    op: str
    value: int
    gate: str


def read(tree: Tree) -> tuple[list[Field], list[Mask]]:
    """Fields in stream order and the pre_save masks; both empty before the CPU section was a VMStateDescription.

    Raises
    ------
    CatalogError : a construct that is not understood, with revision, file and line.
    """
    try:
        unit = tree.unit("machine.c", expand=False)
        values = constants(tree)
        found = {}
        for node in walk(unit.root, "init_declarator"):
            name = next(walk(node, "identifier"), None)
            value = node.child_by_field_name("value")
            declared = text_of(node.parent.child_by_field_name("type")) if node.parent is not None else ""  # type: ignore[arg-type]
            if declared == "VMStateDescription" and name is not None and value is not None:
                found[text_of(name)] = value
        if ROOT not in found:
            return [], []
        rows: list[Field] = []
        _describe(unit, found, ROOT, "cpu", "", values, rows)
        return rows, _masks(unit, values)
    except CatalogError as error:
        raise CatalogError(f"{tree.revision}: {error}") from None


def _describe(
    unit: Unit,
    found: dict[str, Node],
    symbol: str,
    path: str,
    needed: str,
    values: Evaluator,
    rows: list[Field],
) -> None:
    node = found[symbol]
    where = unit.where(node)
    parts = designated(node)
    known = {"name", "version_id", "minimum_version_id", "minimum_version_id_old", "load_state_old", "needed",
             "pre_save", "post_load", "pre_load", "fields", "subsections"}  # fmt: skip
    if parts.keys() - known:
        raise CatalogError(f"{where}: {symbol}: {sorted(parts.keys() - known)} not understood")
    needed = text_of(parts["needed"]) if "needed" in parts else needed
    version, minimum = (values.node(parts[k], where) for k in ("version_id", "minimum_version_id"))
    name = values.text(parts["name"], where)
    treatment = "test" if needed else "plain"
    rows.append(Field(path, 0, name, symbol, treatment, needed, None, version, minimum))
    position = 0
    for item in _list(parts["fields"]):
        row = _field(unit, item, path, values)
        if row is not None:
            position += 1
            rows.append(row._replace(position=position))
    for item in _list(parts.get("subsections")):
        if item.type == "initializer_list":  # until 2.3: a pair of description and condition
            pairs = designated(item)
            if "vmsd" not in pairs:
                continue
            target, condition = text_of(pairs["vmsd"]), text_of(pairs["needed"])
        else:
            target, condition = text_of(item), ""
        if target in ("NULL", "0"):
            continue
        target = target.lstrip("&")
        _describe(unit, found, target, f"{path}/{target.removeprefix('vmstate_')}", condition, values, rows)


def _list(node: Node | None) -> list[Node]:
    if node is None:
        return []
    if node.type == "compound_literal_expression":
        node = node.child_by_field_name("value") or node
    return [n for n in node.named_children if n.type != "comment"]


def _field(unit: Unit, item: Node, path: str, values: Evaluator) -> Field | None:
    where = unit.where(item)
    if item.type == "initializer_list":
        if not item.named_children or text_of(item.named_children[0]) in ("0", "NULL"):
            return None
        parts = designated(item)
        info = text_of(parts["info"]).lstrip("&")
        test = text_of(parts["field_exists"]) if "field_exists" in parts else ""
        name = values.text(parts["name"], where)
        return Field(path, 0, name, info, "test" if test else "plain", test, 1, None, None)
    if item.type != "call_expression":
        raise CatalogError(f"{where}: field {text_of(item)[:60]!r} not understood")
    macro = text_of(item.child_by_field_name("function")).removeprefix("VMSTATE_")  # type: ignore[arg-type]
    args = item.child_by_field_name("arguments")
    assert args is not None
    given = [a for a in args.named_children if a.type != "comment"]
    if macro == "END_OF_LIST":
        return None
    if macro == "UNUSED":
        return Field(path, 0, "", macro, "unused", "", _size(values, given[0], where), None, None)
    name = text_of(given[0])
    kinds = re.fullmatch(
        r"(UINTTL|U?INT(?:8|16|32|64)|BOOL|FLOAT64|CPUDOUBLE|AVR|FPR|VSR|SLB|STRUCT)((?:_[A-Z0-9]+)*)", macro
    )
    if kinds is None:
        raise CatalogError(f"{where}: VMSTATE_{macro} not understood")
    suffixes = kinds[2].split("_")[1:]
    if set(suffixes) - {"EQUAL", "TEST", "ARRAY", "V", "VARRAY", "POINTER", "INT32", "SUB"}:
        raise CatalogError(f"{where}: VMSTATE_{macro} not understood")
    count: int | None = 1
    if "ARRAY" in suffixes:
        # NAME(field, state, n): vsr is declared with twice the registers, of which `n` are meant
        count = values.node(given[2], where)
    elif "VARRAY" in suffixes:
        count = None
    test = text_of(given[-1]) if "TEST" in suffixes else ""
    treatment = "equal" if "EQUAL" in suffixes else "test" if test else "plain"
    return Field(path, 0, name, macro, treatment, test, count, None, None)


def _size(values: Evaluator, node: Node, where: str) -> int:
    match = re.fullmatch(r"sizeof\s*\(\s*target_ulong\s*\)", text_of(node))
    return 8 if match else values.node(node, where)


def _masks(unit: Unit, values: Evaluator) -> list[Mask]:
    """Statements of cpu_pre_save that fill the `mig_` copies of the words."""
    functions = unit.functions()
    body = functions.get("cpu_pre_save")
    if body is None:
        raise CatalogError(f"{unit.path}: no cpu_pre_save")
    bound: dict[str, Node] = {}
    for node in walk(body, "init_declarator"):
        value = node.child_by_field_name("value")
        if value is not None:
            bound[text_of(node.child_by_field_name("declarator"))] = value  # type: ignore[arg-type]
    local: dict[str, int] = {}
    for name, value in bound.items():
        try:
            local[name] = values.node(value, unit.where(value))
        except CatalogError:
            continue  # pointers to the CPU; a mask that is not constant is noticed where it is used
    values = values.binding(local)
    found: list[Mask] = []
    for node in walk(body, "assignment_expression"):
        left = text_of(node.child_by_field_name("left"))  # type: ignore[arg-type]
        match = re.fullmatch(r"cpu->mig_(msr_mask|insns_flags2?|nb_BATs)", left)
        if match is None:
            continue
        where = unit.where(node)
        operator, right = text_of(node.child_by_field_name("operator")), node.child_by_field_name("right")  # type: ignore[arg-type]
        assert right is not None
        gate = _gate(node)
        if operator == "|=":
            found.append(Mask(match[1], "or", values.node(right, where), gate))
        elif operator == "=" and text_of(right) == f"env->{match[1]}":
            found.append(Mask(match[1], "and", 0xFFFF_FFFF_FFFF_FFFF, gate))
        elif operator == "=" and right.type == "binary_expression":
            source, mask = right.child_by_field_name("left"), right.child_by_field_name("right")
            assert source is not None and mask is not None
            if text_of(source) != f"env->{match[1]}" or text_of(right.child_by_field_name("operator")) != "&":  # type: ignore[arg-type]
                raise CatalogError(f"{where}: {text_of(node)!r} not understood")
            found.append(Mask(match[1], "and", values.node(mask, where), gate))
        else:
            raise CatalogError(f"{where}: {text_of(node)!r} not understood")
    return found


def _gate(node: Node) -> str:
    """The condition a statement stands under, as the member of the CPU it reads."""
    while node.parent is not None:
        node = node.parent
        if node.type == "if_statement":
            return text_of(node.child_by_field_name("condition")).strip("()").removeprefix("cpu->")  # type: ignore[arg-type]
    return ""
