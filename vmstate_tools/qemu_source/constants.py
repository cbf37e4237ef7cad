"""Constants of QEMU's source: enumerators, registers' numbers, values of QAPI's enums, macros of other headers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.macros import split, tokenize

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.c_types import Resolver
    from vmstate_tools.qemu_source.expressions import Tree
    from vmstate_tools.qemu_source.program import Scope


@dataclass
class Constants:
    """Constants are the values of the names of one program that stand for a number."""

    layout: Resolver
    _constants: dict[tuple[str, str], int] = field(default_factory=dict)
    _enums: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    _busy: set[tuple[str, str]] = field(default_factory=set)

    def value(self, name: str, scope: Scope) -> int:
        """Returns the value of an enumerator, or of a constant that a register's macro gives."""
        key = (scope.path, name)
        if key in self._constants:
            return self._constants[key]
        if key in self._busy:
            raise CatalogError(f"{name} refers to itself")
        self._busy.add(key)
        try:
            found = self._constant(name, scope)
        finally:
            self._busy.discard(key)
        self._constants[key] = found
        return found

    def _constant(self, name: str, scope: Scope) -> int:
        program = self.layout.program
        if name in ("true", "false", "NULL"):
            return int(name == "true")
        if name in scope.view.enumerators:
            return self._enumerators(scope, scope.view.enumerators[name])[name]
        for path in scope.visible(program.enumerators, name):
            found = self._enumerators(program.scope(path), program.view(path).enumerators[name])
            if name in found:
                return found[name]
        if name in program.qapi_enumerators:
            return program.qapi_enumerators[name]
        register = re.fullmatch(r"([RA])_(\w+)", name)
        if register is not None:
            for path in program.closure(scope.path):
                view = program.view(path)
                if register[2] in view.registers:
                    at = view.registers[register[2]]
                    return self._register(program.scope(path), view.text[at : at + 400], register[1])
        # A macro that no included header gives, because QEMU's build finds the header otherwise.
        values = set()
        for path in program.macros.get(name):
            macro = program.view(path).own[name][-1][1]
            if macro is not None and macro.params is None:
                other = program.scope(path)
                try:
                    values.add(self.layout.integer(other.expand(list(macro.body)), other))
                except CatalogError:
                    continue
        if len(values) == 1:
            return values.pop()
        raise CatalogError(f"constant {name} not found")

    def _register(self, scope: Scope, text: str, kind: str) -> int:
        match = re.match(r"REG(\d*)\s*\(\s*\w+\s*,([^;]*?)\)\s*(?:\n|FIELD|REG|\Z)", text)
        if match is None:
            raise CatalogError(f"register {text[:40]!r} not understood")
        address = self.layout.integer(scope.expand(tokenize(match[2])), scope)
        return address // (int(match[1] or 32) // 8) if kind == "R" else address

    def _enumerators(self, scope: Scope, at: int) -> dict[str, int]:
        key = (scope.path, at)
        if key not in self._enums:
            found: dict[str, int] = {}
            self._enums[key] = found
            text = scope.view.text
            start = text.index("{", at)
            tokens = scope.expand(tokenize(text[start + 1 : text.index("}", start)]), at)
            value = -1
            for item in split(tokens):
                if not item:
                    continue
                given = item.index("=") if "=" in item else None
                name = next(t for t in item if t != " ")
                try:
                    value = value + 1 if given is None else self._enum_value(item[given + 1 :], found, scope)
                except CatalogError:
                    break
                found[name] = value
        return self._enums[key]

    def _enum_value(self, tokens: list[str], known: dict[str, int], scope: Scope) -> int:
        def other(tree: Tree) -> int:
            if tree[0] == "name" and tree[1] in known:
                return known[tree[1]]
            return self.layout.leaf(tree, scope)

        return expressions.value(expressions.parse(tokens), other)
