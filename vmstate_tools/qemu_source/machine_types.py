"""Machine types: which compatibility lists each applies, in which order, and what its class sets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.devices import types
from vmstate_tools.qemu_source.initialisers import braced, items, members, string, text
from vmstate_tools.qemu_source.macros import arguments, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope

_LIST = re.compile(r"\b(?:GlobalProperty|CompatProperty)\s+(\w+)\s*\[[^\]]*\]\s*=\s*\{")
_OLD_MACHINE = re.compile(r"\bQEMUMachine\s+(\w+)\s*=\s*\{")
#: What a macro's argument (whether the machine type is the latest) switches off.
_NEVER = re.compile(r"\bif\s*\(\s*(?:0|false)\s*\)\s*\{[^{}]*\}")
_CLASS_WORDS = frozenset(
    [
        "m",
        "mc",
        "oc",
        "klass",
        "machine",
        "smc",
        "vmc",
        "pcmc",
        "xmc",
        "x86mc",
        "s390mc",
        "mc_",
        "machine_class",
        "class",
        "s",
    ]
)
_EVENT = re.compile(
    r"\b(?:GlobalProperty|CompatProperty)\s+(?P<local>\w+)\s*\[[^\]]*\]\s*=\s*(?=\{)"
    r"|\bcompat_props_add\s*\((?P<add>[^;]*)\)\s*;"
    r"|->\s*compat_props\s*=\s*(?P<assign>[^;=]+);"
    r"|->\s*(?P<member>\w+)\s*=\s*(?P<value>[^;=]+);"
    r"|\b(?P<call>\w+)\s*\(\s*(?P<first>\w+)\s*[,)]"
)


class CompatRow(NamedTuple):
    """A CompatRow is one entry of a compatibility list: a property of a driver that gets a value."""

    file: str
    list: str
    position: int
    driver: str
    property: str
    value: str


@dataclass(frozen=True)
class MachineType:
    """A machine type as its own class says it; what its parent's class does comes before.

    Attributes
    ----------
    name : as `-machine` takes it.
    lists : compatibility lists in the order in which they are applied; a later entry wins.
    members : what its class sets, member and value as text, the last that is set.
    """

    file: str
    name: str
    lists: tuple[str, ...] = ()
    members: tuple[tuple[str, str], ...] = ()
    line: int = field(default=0, compare=False)


def compat_rows(scope: Scope, layout: Layout) -> Iterator[CompatRow]:
    """Reads the compatibility lists of one file, also inside functions and inside descriptions of machines."""
    view = scope.view
    for match in _LIST.finditer(view.text):
        around = next((c.name for c in view.functions.values() if c.start <= match.start() < c.end), "")
        name = f"{around}.{match[1]}" if around else match[1]
        tokens = scope.expand(tokenize(braced(view.text, match.end() - 1)), match.start())
        yield from _rows(scope.path, name, tokens)
    for function, made, place in _functions_that_make_lists(scope):
        for match in _LIST.finditer(made):
            tokens = scope.expand(tokenize(braced(made, match.end() - 1)), place)
            yield from _rows(scope.path, f"{function}.{match[1]}", tokens)
    for match in _OLD_MACHINE.finditer(view.text):
        tokens = scope.expand(tokenize(braced(view.text, match.end() - 1)), match.start())
        parts = _members(tokens)
        if items(parts.get("compat_props", [])) is not None:
            yield from _rows(scope.path, f"{match[1]}.compat_props", parts["compat_props"])


def _functions_that_make_lists(scope: Scope) -> Iterator[tuple[str, str, int]]:
    """Functions whose lists a macro makes (SET_MACHINE_COMPAT, 2.4 to 3.1)."""
    view = scope.view
    for chunk in view.functions.values():
        source = view.slice(chunk)
        if "SET_MACHINE_COMPAT" in source:
            made = "".join(scope.tokens(chunk))
            yield chunk.name, made[made.find("{") :], chunk.start


def _rows(path: str, name: str, tokens: list[str]) -> Iterator[CompatRow]:
    for position, item in enumerate(items(tokens) or [], 1):
        try:
            parts = members(item)
            values = [parts.get(key, []) for key in ("driver", "property", "value")]
        except CatalogError:
            values = (items(item) or [])[:3]
        if len(values) == 3 and string(values[0]) is not None:
            driver, property_, value = (string(v) if string(v) is not None else text(v) for v in values)
            yield CompatRow(path, name, position, driver or "", property_ or "", value or "")


def _members(tokens: list[str]) -> dict[str, list[str]]:
    try:
        return members(tokens)
    except CatalogError:
        return {}


def machine_types(scope: Scope, layout: Layout) -> Iterator[MachineType]:
    """Reads the machine types of one file, of QOM (since 2.1 some, since 2.4 all) or of a table of QEMUMachine."""
    view = scope.view
    for match in _OLD_MACHINE.finditer(view.text):
        tokens = scope.expand(tokenize(braced(view.text, match.end() - 1)), match.start())
        parts = _members(tokens)
        name = string(parts["name"]) if "name" in parts else None
        if name is None:
            continue
        compat = parts.get("compat_props", [])
        lists = (f"{match[1]}.compat_props",) if items(compat) is not None else tuple(_symbols(compat))
        known = {k: text(v) for k, v in parts.items() if k not in ("name", "desc", "compat_props")}
        yield MachineType(scope.path, name, lists, tuple(sorted(known.items())), view.line(match.start()))
    for type_ in types(scope, layout):
        if type_.name is not None and type_.name.endswith("-machine") and type_.class_init:
            found = _Options()
            found.follow(scope, type_.class_init)
            yield MachineType(
                scope.path,
                type_.name.removesuffix("-machine"),
                tuple(found.lists),
                tuple(sorted(found.members.items())),
                type_.line,
            )


def _symbols(tokens: list[str]) -> list[str]:
    return [t for t in tokens if re.fullmatch(r"[a-z_]\w*", t)][:1]


class _Options:
    """What the functions that make up a machine type's class do, in order."""

    def __init__(self) -> None:
        self.lists: list[str] = []
        self.members: dict[str, str] = {}
        self.depth = 0

    def follow(self, scope: Scope, function: str) -> None:
        found = scope.function(function)
        if found is None or self.depth > 40:
            return
        here, source, place = found
        body = "".join(here.expand(tokenize(source[source.find("{") :]), place))
        body = _NEVER.sub("", body)
        local: set[str] = set()
        self.depth += 1
        for match in _EVENT.finditer(body):
            self._event(match, here, function, local)
        self.depth -= 1

    def _event(self, match: re.Match[str], here: Scope, function: str, local: set[str]) -> None:
        def named(name: str) -> str:
            return f"{function}.{name}" if name in local else name

        if match["local"]:
            local.add(match["local"])
            if "g_array_append_val" in match.string:
                self.lists.append(named(match["local"]))  # SET_MACHINE_COMPAT since 2.7
        elif match["add"] is not None:
            given = arguments(tokenize(f"({match['add']})"), 0)
            if given is not None and len(given[0]) > 1:
                self.lists.append(named(text(given[0][1])))
        elif match["assign"]:
            if re.fullmatch(r"\w+", match["assign"].strip()) and match["assign"].strip() != "NULL":
                self.lists = [named(match["assign"].strip())]  # it replaces what was there, until 2.6
        elif match["member"]:
            self.members[match["member"]] = text(tokenize(match["value"]))[:80]
        elif match["first"] in _CLASS_WORDS and match["call"] != function:
            self.follow(here, match["call"])
