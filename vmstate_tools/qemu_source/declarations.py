"""Declarations of C: specifiers and declarators, and the places of a struct's members."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.c_types import HOST, VOID, Member, Type, pointer
from vmstate_tools.qemu_source.macros import parts_at

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.c_types import Resolver
    from vmstate_tools.qemu_source.program import Scope

_QUALIFIERS = frozenset(
    [
        "const",
        "volatile",
        "static",
        "extern",
        "inline",
        "register",
        "restrict",
        "__restrict",
        "_Noreturn",
        "__inline__",
        "G_GNUC_UNUSED",
        "typedef",
        "__extension__",
        "coroutine_fn",
        "signed",
        "auto",
        "_Atomic",
        "__thread",
        "TSA_NO_TSA",
    ]
)
_BASIC = frozenset(["char", "short", "int", "long", "unsigned", "float", "double", "void", "bool", "_Bool"])


class Placement:
    """Puts the members of a struct or union one after the other, by the System V ABI for x86-64."""

    def __init__(self, layout: Resolver, scope: Scope, union: bool, packed: bool) -> None:
        self.layout = layout
        self.scope = scope
        self.union = union
        self.packed = packed
        self.at: int | None = 0  # bits
        self.align = 1
        self.size: int | None = 0

    def place(
        self, declarations: list[list[str]], members: dict[str, Member], type_: Type, attributes: list[str]
    ) -> None:
        for tokens in declarations:
            reader = Declaration(self.layout, self.scope, tokens)
            try:
                declared = reader.read()
            except CatalogError:
                self.at = self.size = None  # what follows has no known place
                continue
            for name, member_type, bits in declared:
                offset = self._next(member_type, bits, reader.aligned)
                members[name or f"<{len(members)}>"] = Member(member_type, offset, bits)
        aligned = _aligned(attributes, self.layout, self.scope)
        self.align = max(self.align, aligned)
        if self.size is not None:
            end = -(-self.size // 8)
            type_.size = -(-end // self.align) * self.align
        type_.align = self.align

    def _next(self, type_: Type, bits: int | None, aligned: int) -> int | None:
        size = self.layout.known_size(type_)
        if type_.kind == "array" and type_.count is None and type_.members is None:
            size = 0  # a flexible array member
        align = 1 if self.packed else self.layout.alignment(type_)
        align = max(align, aligned)
        if bits != 0 or not self.packed:
            self.align = max(self.align, align)
        start = 0 if self.union else self.at
        if start is None or size is None:
            self.at = self.size = None
            return None
        if bits is not None:
            unit = 8 * size
            if bits == 0 or (not self.packed and start // unit != (start + bits - 1) // unit):
                start = -(-start // unit) * unit
            end = start + bits
        else:
            start = -(-start // (8 * align)) * 8 * align
            end = start + 8 * size
        if not self.union:
            self.at = end
        if self.size is not None:
            self.size = max(self.size, end)
        return start // 8


class Declaration:
    """A Declaration has specifiers and declarators."""

    def __init__(self, layout: Resolver, scope: Scope, tokens: list[str]) -> None:
        self.layout = layout
        self.scope = scope
        self.tokens = tokens
        self.at = 0
        self.aligned = 1

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def read(self) -> list[tuple[str, Type, int | None]]:
        base = self._base()
        found: list[tuple[str, Type, int | None]] = []
        while True:
            name, type_ = self._declarator(base)
            bits = None
            if self.peek() == ":":
                self.at += 1
                start = self.at
                while self.peek() not in (",", "", "__attribute__"):
                    self.at += 1
                bits = self.layout.integer(self.tokens[start : self.at], self.scope)
            self._attributes()
            if not (bits is not None and bits == 0 and not name) or self.peek() == "":
                found.append((name, type_, bits))
            if self.peek() != ",":
                return found
            self.at += 1

    def _attributes(self) -> None:
        while self.peek() in ("__attribute__", "__attribute", "_Alignas") or self.peek() in _QUALIFIERS:
            word = self.peek()
            self.at += 1
            if word not in _QUALIFIERS:
                start = self.at
                self._skip("(", ")")
                self.aligned = max(self.aligned, _aligned(self.tokens[start : self.at], self.layout, self.scope))

    def _skip(self, opening: str, closing: str) -> None:
        depth = 0
        while self.at < len(self.tokens):
            depth += (self.tokens[self.at] == opening) - (self.tokens[self.at] == closing)
            self.at += 1
            if depth == 0:
                return
        raise CatalogError(f"declaration {' '.join(self.tokens)[:60]!r} not understood")

    def _base(self) -> Type:
        words: list[str] = []
        while True:
            self._attributes()
            token = self.peek()
            if token in ("struct", "union", "enum"):
                return self._aggregate()
            if token in ("typeof", "__typeof__", "__typeof"):
                self.at += 1
                start = self.at + 1
                self._skip("(", ")")
                return self._typeof(self.tokens[start : self.at - 1])
            if token in _BASIC:
                words.append(token)
            elif not words and re.match(r"[A-Za-z_]", token):
                self.at += 1
                self._attributes()
                return self.layout.named(token, self.scope)
            else:
                break
            self.at += 1
        if not words:
            raise CatalogError(f"declaration {' '.join(self.tokens)[:60]!r} not understood")
        return self._basic(words)

    def _basic(self, words: list[str]) -> Type:
        name = next(
            (w for w in ("char", "short", "long", "float", "double", "bool", "_Bool", "void") if w in words), "int"
        )
        if "long" in words and "double" in words:
            return Type("number", "long double", 16, 16)
        if name == "void":
            return VOID
        size = HOST[name][0]
        return Type("number", name, size, size, signed="unsigned" not in words)

    def _typeof(self, tokens: list[str]) -> Type:
        try:
            tree = expressions.parse(tokens)
        except CatalogError:
            return self.layout.type_of_tokens(tokens, self.scope)
        if tree[0] == "name" and self.layout.is_type(tree[1], self.scope):
            return self.layout.named(tree[1], self.scope)
        return self.layout.type_of(tree, self.scope)

    def _aggregate(self) -> Type:
        start = self.at
        word = self.peek()
        self.at += 1
        self._attributes()
        tag = ""
        if re.match(r"[A-Za-z_]", self.peek()):
            tag = self.peek()
            self.at += 1
        self._attributes()
        if self.peek() == "{":
            self._skip("{", "}")
            while self.peek() in ("__attribute__", "__attribute"):
                self.at += 1
                self._skip("(", ")")
            if word == "enum":
                return Type("number", tag, 4, 4)
            return Type(word, f"{word} {tag}".strip(), body=(self.scope, self.tokens[start : self.at]))
        return self.layout.named(f"{word} {tag}", self.scope)

    def _declarator(self, base: Type) -> tuple[str, Type]:
        self._attributes()
        while self.peek() == "*":
            self.at += 1
            base = pointer(base)
            self._attributes()
        name, inner = "", None
        if self.peek() == "(" and self.tokens[self.at + 1 : self.at + 2] in (["*"], ["("], ["^"]):
            start = self.at + 1
            self._skip("(", ")")
            inner = self.tokens[start : self.at - 1]
        elif re.match(r"[A-Za-z_]", self.peek()):
            name = self.peek()
            self.at += 1
        type_ = self._suffixes(base)
        if inner is not None:
            part = Declaration(self.layout, self.scope, inner)
            return part._declarator(type_)
        return name, type_

    def _suffixes(self, base: Type) -> Type:
        self._attributes()
        if self.peek() == "[":
            start = self.at + 1
            self._skip("[", "]")
            inner = self.tokens[start : self.at - 1]
            count = None
            if inner:
                try:
                    count = self.layout.integer(inner, self.scope)
                except CatalogError:
                    of = self._suffixes(base)
                    return Type("array", f"array of {' '.join(inner)[:40]}", None, 1, of, None, members={})
            of = self._suffixes(base)
            return Type("array", base.name, None, 1, of, count)
        if self.peek() == "(":
            self._skip("(", ")")
            self._suffixes(base)
            return Type("function", base.name)
        return base


def _aligned(tokens: list[str], layout: Resolver, scope: Scope) -> int:
    for i, token in enumerate(tokens):
        if token in ("aligned", "__aligned__"):
            if tokens[i + 1 : i + 2] != ["("]:
                return 16
            end = i + 2
            depth = 1
            while end < len(tokens) and depth:
                depth += (tokens[end] == "(") - (tokens[end] == ")")
                end += 1
            try:
                return layout.integer(tokens[i + 2 : end - 1], scope)
            except CatalogError:
                return 1
    return 1


def member_declarations(tokens: list[str]) -> list[list[str]]:
    """Splits the inside of a struct at its semicolons."""
    ended = parts_at(";", tokens)[:-1]
    return [part for part in ended if part and part[0] not in ("QEMU_BUILD_BUG_ON", "_Static_assert")]
