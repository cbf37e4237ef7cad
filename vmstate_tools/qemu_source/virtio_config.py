"""Sizes of virtio devices' configuration: fixed ones, and those that depend on the features offered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source.devices import class_functions, types
from vmstate_tools.qemu_source.initialisers import items, members
from vmstate_tools.qemu_source.macros import tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope

_INIT = re.compile(r"\bvirtio_(?:common_)?init\s*\(([^;]*)\)\s*;")
#: By a function (since 4.1), or by a loop through the table.
_FROM_FEATURES = re.compile(
    r"\bvirtio_(?:feature_)?get_config_size\s*\(\s*&?\s*(\w+)|\b(\w+)\s*\[\s*\w+\s*\]\s*\.\s*end\b"
)
_IF = r"(?:\bif\s*\(([^{};]*)\)\s*\{?\s*)?"
_RETURN = re.compile(rf"{_IF}\breturn\s+([^;]+);")
_NAME = re.compile(r"VIRTIO_\w*F_\w+")
_REALIZE = re.compile(r"->\s*(?:realize|init|instance_init)\s*=\s*(\w+)\s*;")


class VirtioConfig(NamedTuple):
    """How many bytes a device's configuration has.

    Attributes
    ----------
    device : QOM type; the function that sets the size up, where that is no type's own.
    when : '' where the size is fixed; `min` and `max`, the limits; names of features, of which one has to be offered
        for the configuration to reach this size, `!` before the first if none may be; or the member of the device
        that it depends on.
    size : bytes.
    """

    device: str
    file: str
    when: str
    size: str


def config_sizes(scope: Scope, layout: Layout) -> Iterator[tuple[str, VirtioConfig | str]]:
    """Yields (what was read, the size, or why it was not understood) for one file."""
    owners: dict[str, list[str]] = {}
    for type_ in types(scope, layout):
        for _, source, _ in class_functions(scope, type_.class_init):
            for match in _REALIZE.finditer(source):
                owners.setdefault(match[1], []).append(type_.name or type_.symbol)
    for name, chunk in scope.view.functions.items():
        source = scope.view.slice(chunk)
        body = source.find("{")
        for match in _INIT.finditer(source, body):
            tokens = (items(tokenize(f"{{{match[1]}}}")) or [[]])[-1]
            for device in owners.get(name, [name]):
                try:
                    for when, size in _sizes(tokens, source, scope, layout):
                        yield device, VirtioConfig(device, scope.path, when, str(size))
                except CatalogError as error:
                    yield device, f"size of the configuration: {error}"


def _sizes(tokens: list[str], function: str, scope: Scope, layout: Layout) -> Iterator[tuple[str, int]]:
    source = "".join(tokens).strip()
    called = _FROM_FEATURES.search(source)
    if called is not None:
        at_least = re.match(r"MAX\s*\(\s*([A-Z]\w*)\s*,", source)
        if at_least is not None:
            yield "min", _number(at_least[1], function, scope, layout)
        yield from _table(called[1] or called[2], scope, layout)
        return
    own = re.fullmatch(r"(\w+)\s*\(\s*\w+\s*\)", source)
    if own is not None and own[1] in scope.view.functions:
        yield from _returned(scope.view.slice(scope.view.functions[own[1]]), scope, layout)
        return
    variable = re.fullmatch(r"(?:\w+\s*->\s*)?(\w+)", source)
    if variable is not None and not source.isdigit():
        yield from _assigned(variable[1], function, scope, layout)
        return
    yield "", _number(source, function, scope, layout)


def _assigned(variable: str, function: str, scope: Scope, layout: Layout) -> Iterator[tuple[str, int]]:
    """Reads what a variable or member is set to in the function, or anywhere in the file."""
    assigned = re.compile(rf"{_IF}\b{variable}\s*=(?!=)\s*([^;]+);")
    found = assigned.findall(function) or assigned.findall(scope.view.text)
    given = {(condition, value.strip()) for condition, value in found if value.strip() not in ("0", variable)}
    if not given:
        raise CatalogError(f"{variable} is set elsewhere")
    # What features make of it replaces what the device began with.
    by_features = {item for item in given if _FROM_FEATURES.search(item[1])}
    for condition, value in sorted(by_features or given):
        for when, size in _sizes(tokenize(value), "", scope, layout):
            yield when or _when(condition), size


def _when(condition: str) -> str:
    """Returns the features or the members that a condition names, `!` before the first where they are denied."""
    names = _NAME.findall(condition) or re.findall(r"->\s*(\w+)", condition)
    return ("!" if condition.lstrip().startswith("!") else "") + " ".join(dict.fromkeys(names))


def _number(source: str, function: str, scope: Scope, layout: Layout) -> int:
    member = re.fullmatch(r"sizeof\s*\(\s*(\w+)\s*->\s*(\w+)\s*\)", source)
    if member is not None:
        declared = re.search(rf"\b(\w+)\s*\*\s*{member[1]}\b", function)
        if declared is not None:
            return layout.size_of(layout.member(layout.named(declared[1], scope), member[2]).type)
    return layout.integer(scope.expand(tokenize(source)), scope)


def _table(name: str, scope: Scope, layout: Layout) -> Iterator[tuple[str, int]]:
    owner = _holder(name, scope)
    chunk = owner.view.variables[name]
    tokens = owner.expand(tokenize(owner.view.text[chunk.body : chunk.end].strip(" =;\n")), chunk.start)
    listed = items(tokens) or []
    if listed and listed[0][0] == ".":
        parts = members(tokens)
        for key, when in (("min_size", "min"), ("max_size", "max")):
            if key in parts:
                yield when, layout.integer(parts[key], owner)
        yield from _table("".join(parts["feature_sizes"]).strip("& "), owner, layout)
        return
    # Spelled before macros are expanded: the names of features.
    spelled = items(tokenize(owner.view.text[chunk.body : chunk.end].strip(" =;\n"))) or []
    for item, names in zip(listed, spelled, strict=True):
        parts = members(item) if items(item) else {}
        if "end" in parts:
            yield " ".join(_NAME.findall("".join(names))), layout.integer(parts["end"], owner)


def _holder(name: str, scope: Scope) -> Scope:
    """Finds the file that defines a table: the file itself, or another of the same folder."""
    if name in scope.view.variables:
        return scope
    folder = scope.path.rsplit("/", 1)[0]
    for path in scope.program.revision.blobs:
        if path.startswith(f"{folder}/virtio") and path.endswith(".c"):
            other = scope.program.scope(path)
            if name in other.view.variables:
                return other
    raise CatalogError(f"table {name} not found")


def _returned(function: str, scope: Scope, layout: Layout) -> Iterator[tuple[str, int]]:
    """Reads a function that returns one size or another."""
    for match in _RETURN.finditer(function):
        yield _when(match[1] or ""), layout.integer(scope.expand(tokenize(match[2])), scope)
