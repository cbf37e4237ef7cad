"""Properties of devices with their defaults, from the lists that their classes add."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.initialisers import braced, items, members, string, symbol, text
from vmstate_tools.qemu_source.macros import tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope

_LIST = re.compile(r"\bProperty\s+(\w+)\s*\[[^\]]*\]\s*=\s*\{")
#: Members that hold the default: `.defval` until 2.9, then a union of signed and unsigned.
_DEFAULTS = ("defval", "defval.u", "defval.i")


class Property(NamedTuple):
    """A Property is one property of a list.

    Attributes
    ----------
    list : symbol of the list.
    info : symbol of the PropertyInfo, which says the type.
    default : as text; '' where the property has none.
    bit : number of the bit of a flag word; '' for other properties.
    field, state : the member it sets, of the C type `state`.
    """

    file: str
    list: str
    position: int
    name: str
    info: str
    default: str
    bit: str
    field: str
    state: str


def properties(scope: Scope, layout: Layout) -> Iterator[Property]:
    """Reads the lists of properties of one file."""
    view = scope.view
    for match in _LIST.finditer(view.text):
        tokens = scope.expand(tokenize(braced(view.text, match.end() - 1)), match.start())
        for position, item in enumerate(items(tokens) or [], 1):
            try:
                parts = members(item)
            except CatalogError:
                continue
            name = string(parts["name"]) if "name" in parts else None
            if name is None:
                continue
            state, field = _field(parts.get("offset", []))
            yield Property(
                scope.path,
                match[1],
                position,
                name,
                symbol(parts.get("info", [])),
                _default(parts, scope, layout),
                _number(parts["bitnr"], scope, layout) if "bitnr" in parts else "",
                field,
                state,
            )


def _default(parts: dict[str, list[str]], scope: Scope, layout: Layout) -> str:
    for key in _DEFAULTS:
        if key in parts:
            return _number(parts[key], scope, layout)
    if "defval" in {key.split(".")[0] for key in parts}:
        return text(next(value for key, value in parts.items() if key.startswith("defval")))
    return ""


def _number(tokens: list[str], scope: Scope, layout: Layout) -> str:
    try:
        return str(layout.integer(tokens, scope))
    except CatalogError:
        return text(tokens)


def _field(tokens: list[str]) -> tuple[str, str]:
    try:
        queue = [expressions.parse(tokens)]
    except CatalogError:
        return "", ""
    while queue:
        node = queue.pop(0)
        if node[0] == "offsetof":
            return text(" ".join(node[1]).split(" ")), "".join(node[2])
        queue += [part for part in node[1:] if isinstance(part, tuple) and part and isinstance(part[0], str)]
    return "", ""
