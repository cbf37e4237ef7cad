"""The VMState descriptions of QEMU's source: fields, versions, hooks, subsections, as the macros of a revision say.

A macro like VMSTATE_UINT32 is expanded to the initialiser it stands for in that revision; no macro is known by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.initialisers import braced, items, members, string, symbol, text
from vmstate_tools.qemu_source.macros import tokenize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope

_DESCRIPTION = re.compile(r"\bVMStateDescription\s+(\w+)\s*(\[[^\]]*\]\s*)?=\s*\{")
_INFO = re.compile(r"\bVMStateInfo\s+(\w+)\s*=\s*\{\s*\.name\s*=\s*([^,}]+)")
_HOOKS = ("pre_load", "post_load", "pre_save", "post_save", "pre_load_errp", "post_load_errp", "pre_save_errp",
          "dev_unplug_pending", "load_state_old", "load_state_old_size")  # fmt: skip
_KNOWN = {
    "name", "version_id", "minimum_version_id", "minimum_version_id_old", "unmigratable", "early_setup", "priority",
    "needed", "fields", "subsections", *_HOOKS,
}  # fmt: skip
_FIELD = {
    "name", "err_hint", "offset", "size", "start", "num", "num_offset", "size_offset", "info", "flags", "vmsd",
    "version_id", "struct_version_id", "field_exists",
}  # fmt: skip


class Field(NamedTuple):
    """A Field is one entry of a description's field list.

    Attributes
    ----------
    name : as a stream's description spells it.
    info : symbol of the VMStateInfo; '' for a struct.
    vmsd : symbol of the description of a struct or of a list's elements.
    flags : names of VMS_ flags without the prefix, joined by |.
    size : bytes of one element in QEMU's memory; None where the source's types are not known.
    num : number of elements of an array, of rows where it is multiplied; None where it is not known.
    num_member, size_member : members that give the number of elements, and the bytes, when the guest runs.
    start : bytes or elements that a list's or a partial buffer's first one is away.
    version, struct_version : version_id and struct_version_id.
    test : the function that says whether the field is there.
    state : the C type that the field is a member of.
    problem : what was not understood.
    """

    name: str
    info: str = ""
    vmsd: str = ""
    flags: str = ""
    size: int | None = 0
    num: int | None = 0
    num_member: str = ""
    size_member: str = ""
    start: int | None = 0
    version: int | None = 0
    struct_version: int | None = 0
    test: str = ""
    state: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Description:
    """A Description is one VMStateDescription.

    `subsections` pairs the symbol of each with the function that says whether it is needed, where the list says so
    (until 2.3); `needed` is the description's own.
    """

    file: str
    symbol: str
    name: str | None
    version: int | None = 0
    minimum: int | None = 0
    minimum_old: int | None = 0
    unmigratable: bool = False
    early_setup: bool = False
    priority: str = ""
    needed: str = ""
    hooks: tuple[tuple[str, str], ...] = ()
    fields: tuple[Field, ...] = ()
    subsections: tuple[tuple[str, str], ...] = ()
    problem: str = ""
    line: int = field(default=0, compare=False)


def descriptions(scope: Scope, layout: Layout) -> Iterator[Description]:
    """Reads the descriptions of one file, in its order, also the ones that its macros make."""
    reader = _Reader(scope, layout)
    view = scope.view
    for match in _DESCRIPTION.finditer(view.text):
        tokens = scope.expand(tokenize(braced(view.text, match.end() - 1)), match.start())
        for i, item in enumerate(items(tokens) or [] if match[2] else [tokens]):
            # An array's name stands for its first element.
            yield from reader.description(f"{match[1]}[{i}]" if i else match[1], item, view.line(match.start()))
    for line, made in scope.made:
        for match in _DESCRIPTION.finditer(made):
            yield from reader.description(match[1], tokenize(braced(made, match.end() - 1)), line)


def infos(scope: Scope, layout: Layout) -> Iterator[tuple[str, str]]:
    """Reads the kinds of fields that one file defines: (symbol of the VMStateInfo, type as a stream spells it)."""
    for match in _INFO.finditer(scope.view.text):
        name = string(scope.expand(tokenize(match[2]), match.start()))
        if name is not None:
            yield match[1], name


class _Reader:
    def __init__(self, scope: Scope, layout: Layout) -> None:
        self.scope = scope
        self.layout = layout

    def description(self, name: str, tokens: list[str], line: int) -> Iterator[Description]:
        """Reads one description; descriptions inside it, as compound literals, follow it."""
        found = Description(self.scope.path, name, None, line=line)
        try:
            parts = members(tokens)
        except CatalogError as error:
            yield replace(found, problem=str(error))
            return
        problems = [f"{key} not understood" for key in sorted(parts.keys() - _KNOWN)]
        inside: list[Description] = []
        subsections = self._subsections(name, parts.get("subsections", []), line, inside, problems)
        yield replace(
            found,
            name=string(parts["name"]) if "name" in parts else None,
            version=self._integer(parts.get("version_id"), problems),
            minimum=self._integer(parts.get("minimum_version_id"), problems),
            minimum_old=self._integer(parts.get("minimum_version_id_old"), problems),
            unmigratable=bool(self._integer(parts.get("unmigratable"), problems)),
            early_setup=bool(self._integer(parts.get("early_setup"), problems)),
            priority=text(parts.get("priority", [])).removeprefix("MIG_PRI_"),
            needed=symbol(parts.get("needed", [])),
            hooks=tuple((h, symbol(parts[h])) for h in _HOOKS if symbol(parts.get(h, []))),
            fields=tuple(self._fields(name, parts.get("fields", []), line, inside, problems)),
            subsections=tuple(subsections),
            problem="; ".join(problems),
        )
        yield from inside

    def _listed(self, tokens: list[str], problems: list[str]) -> list[list[str]]:
        """Returns the items of a list that stands here, or of the variable that is named here."""
        listed = items(tokens)
        name = symbol(tokens)
        if listed is None and name:
            chunk = self.scope.view.variables.get(name)
            if chunk is None:
                problems.append(f"list {name} not found")
                return []
            initialiser = self.scope.view.text[chunk.body : chunk.end].rstrip("; \n")
            listed = items(self.scope.expand(tokenize(initialiser), chunk.start))
        return listed or []

    def _subsections(
        self, name: str, tokens: list[str], line: int, inside: list[Description], problems: list[str]
    ) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for i, item in enumerate(self._listed(tokens, problems)):
            needed = ""
            if item[0] == "{":  # until 2.3: a pair of description and condition
                pair = members(item)
                if not symbol(pair.get("vmsd", [])):
                    continue
                item, needed = pair["vmsd"], symbol(pair.get("needed", []))
            made = items(item)
            if made is not None:
                target = f"{name}.{i}"
                inside += self.description(target, item, line)
            else:
                target = symbol(item)
            if target:
                found.append((target, needed))
        return found

    def _fields(
        self, name: str, tokens: list[str], line: int, inside: list[Description], problems: list[str]
    ) -> Iterator[Field]:
        for i, item in enumerate(self._listed(tokens, problems)):
            try:
                parts = members(item)
            except CatalogError as error:
                # A macro that is not visible, or a value in place of a member: the field is there, unread.
                if text(item) != "{}":
                    yield Field("", problem=str(error))
                continue
            if "name" not in parts or text(parts.get("flags", [])) == "VMS_END":
                continue
            yield self._field(f"{name}.{i}", parts, line, inside)

    def _field(self, place: str, parts: dict[str, list[str]], line: int, inside: list[Description]) -> Field:
        problems = [f"{key} not understood" for key in sorted(parts.keys() - _FIELD)]
        name = string(parts["name"])
        if name is None:
            problems.append(f"name {text(parts['name'])[:60]} not understood")
        vmsd = symbol(parts.get("vmsd", []))
        if items(parts.get("vmsd", [])) is not None:
            vmsd = place
            inside += self.description(place, parts["vmsd"], line)
        flags = [f for f in re.findall(r"VMS_(\w+)", "".join(parts.get("flags", []))) if f != "SINGLE"]
        state = _offset(parts.get("offset", []))[0]
        return Field(
            name or "",
            symbol(parts.get("info", [])),
            vmsd,
            "|".join(flags),
            self._integer(parts.get("size"), problems),
            self._integer(parts.get("num"), problems),
            _offset(parts.get("num_offset", []))[1],
            _offset(parts.get("size_offset", []))[1],
            self._integer(parts.get("start"), problems),
            self._integer(parts.get("version_id"), problems),
            self._integer(parts.get("struct_version_id"), problems),
            symbol(parts.get("field_exists", [])),
            state,
            "; ".join(problems),
        )

    def _integer(self, tokens: list[str] | None, problems: list[str]) -> int | None:
        if not tokens:
            return 0
        try:
            return self.layout.integer(tokens, self.scope)
        except CatalogError as error:
            problems.append(str(error))
            return None


def _offset(tokens: list[str]) -> tuple[str, str]:
    """Returns the (C type, member) that an offset is taken of, '' where it is no offsetof."""
    try:
        tree = expressions.parse(tokens)
    except CatalogError:
        return "", ""
    queue = [tree]
    while queue:
        node = queue.pop(0)
        if node[0] == "offsetof":
            return text(" ".join(node[1]).split(" ")), "".join(node[2])
        queue += [part for part in node[1:] if isinstance(part, tuple) and part and isinstance(part[0], str)]
    return "", ""
