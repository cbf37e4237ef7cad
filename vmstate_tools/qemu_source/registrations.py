"""Sections that QEMU registers by a call: vmstate_register and its like, register_savevm and its like."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.initialisers import string, symbol, text
from vmstate_tools.qemu_source.macros import arguments, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope

_CALL = re.compile(r"\b(vmstate_register(?:_with_alias_id|_any)?|register_savevm(?:_live)?)\s*\(")
#: Where these functions are defined, and call one another.
_OWN = re.compile(r"(?:migration/)?savevm\.c|include/migration/.*|include/hw/hw\.h|stubs/.*")


class Registration(NamedTuple):
    """A Registration is one call that registers a section.

    Attributes
    ----------
    function : the function that makes the call.
    how : the function called.
    device : what is given as the device, whose path becomes part of the idstr; '' for none.
    idstr : as given; '' where the description's name is taken, or where it is made when QEMU runs.
    instance, version, alias : numbers as text, or the expression where it is no constant; -1 counts upwards.
    vmsd : symbol of the description; '' for functions of the device's own.
    """

    file: str
    function: str
    how: str
    device: str
    idstr: str
    instance: str
    version: str
    alias: str
    vmsd: str


def registrations(scope: Scope, layout: Layout) -> Iterator[Registration]:
    """Reads the calls in one file, in its order."""
    if _OWN.fullmatch(scope.path):
        return
    view = scope.view
    for chunk in view.functions.values():
        body = view.text[chunk.body : chunk.end]
        for match in _CALL.finditer(body):
            given = arguments(tokenize(body[match.end() - 1 : match.end() + 1500]), 0)
            if given is not None:
                yield _registration(scope, layout, chunk.name, match[1], given[0], chunk.start)


def _registration(
    scope: Scope, layout: Layout, function: str, how: str, given: list[list[str]], place: int
) -> Registration:
    args = [scope.expand(a, place) for a in given]

    def number(at: int) -> str:
        if at >= len(args):
            return ""
        try:
            value = layout.integer(args[at], scope)
        except CatalogError:
            return text(given[at])
        return str(-1 if value in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF) else value)

    device = "" if text(args[0]) == "NULL" else text(given[0])
    if how.startswith("register_savevm"):
        # Until 4.2 the device came first.
        at = next(
            (i for i, a in enumerate(args[:2]) if string(a) is not None), len(args) - 5 if how.endswith("live") else 1
        )
        at = max(at, 0)
        device = device if at else ""
        idstr = string(args[at]) if at < len(args) else None
        return Registration(scope.path, function, how, device, idstr or "", number(at + 1), number(at + 2), "", "")
    if how == "vmstate_register_any":
        return Registration(
            scope.path, function, how, device, "", "-1", "", "", symbol(args[1]) if len(args) > 1 else ""
        )
    vmsd = symbol(args[2]) if len(args) > 2 else ""
    alias = number(4) if how.endswith("alias_id") else ""
    return Registration(scope.path, function, how, device, "", number(1), "", "" if alias == "-1" else alias, vmsd)
