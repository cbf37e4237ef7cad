"""QOM types that a loop registers from a table: a name, ids and a description for each row of the table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.initialisers import items, members
from vmstate_tools.qemu_source.macros import tokenize

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope

#: Member of a table's row → tokens of its value.
Row = Mapping[str, list[str]]

_MEMBER = re.compile(r"\b(\w+)\s*(?:\[\s*\w+\s*\]\s*)?(?:->|\.)\s*(\w+)")


def rows(scope: Scope, layout: Layout, name: str, place: int) -> Iterator[Row]:
    """Yields the rows of the table that an expression like `info->name`, at a place of a file, reads.

    None where no table is found.
    """
    match = _MEMBER.search(name)
    table = _table(scope, match[1], place) if match is not None else None
    chunk = scope.view.variables.get(table or "")
    if chunk is None:
        return
    initialiser = scope.view.text[chunk.body : chunk.end].rstrip("; \n")
    names = _member_names(scope, layout, table or "")
    for item in items(scope.expand(tokenize(initialiser), chunk.start)) or []:
        row = _row(item, names)
        if row and match is not None and match[2] in row:
            yield row


def bound(tokens: list[str], row: Row) -> list[str]:
    """Puts the row's values in place of expressions like `info->name` or `table[i].name`."""
    text = _MEMBER.sub(lambda m: "".join(row[m[2]]) if m[2] in row else m[0], "".join(tokens))
    return tokenize(text)


def _table(scope: Scope, base: str, place: int) -> str | None:
    variables = scope.view.variables
    if base in variables:
        return base
    text = scope.view.text
    for found in re.findall(rf"\b{base}\s*=\s*&?\s*(\w+)", text):
        if found in variables and items_follow(scope, found):
            return str(found)
    function = next((c.name for c in scope.view.functions.values() if c.start <= place < c.end), "")
    for found in re.findall(rf"\b{function}\s*\(\s*&?\s*(\w+)\b", text) if function else []:
        if found in variables:
            return str(found)
        if found != base:
            inner = re.search(rf"\b{found}\s*=\s*&?\s*(\w+)\b", text)
            if inner is not None and inner[1] in variables:
                return inner[1]
    return None


def items_follow(scope: Scope, name: str) -> bool:
    """Tells whether a variable is initialised by a list."""
    chunk = scope.view.variables[name]
    return scope.view.text[chunk.body : chunk.end].lstrip(" =\n").startswith("{")


def _member_names(scope: Scope, layout: Layout, table: str) -> list[str]:
    try:
        type_ = layout.variable(table, scope)
        element = type_.of if type_.kind == "array" and type_.of is not None else type_
        layout.complete(element)
    except CatalogError:
        return []
    return list(element.members or {})


def _row(item: list[str], names: list[str]) -> Row:
    try:
        return members(item)
    except CatalogError:
        pass
    found: dict[str, list[str]] = {}
    at = 0
    for value in items(item) or []:
        if value[0] == "." and "=" in value:
            equals = value.index("=")
            name = "".join(t for t in value[1:equals] if t != " ")
            found[name] = value[equals + 1 :]
            at = names.index(name) + 1 if name in names else len(names)
        elif at < len(names):
            found[names[at]] = value
            at += 1
    return found
