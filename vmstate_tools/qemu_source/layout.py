"""Types of C and their sizes on a 64-bit Linux host, from the declarations in QEMU's source.

Everything is resolved when it is asked for. What lies outside QEMU's source (the C library's types, GLib's) is a
short table in `c_types`; a type that is in neither has no size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.c_types import HOST, HOST_MEMBERS, SIGNED, UNKNOWN, Member, Type, pointer
from vmstate_tools.qemu_source.constants import Constants
from vmstate_tools.qemu_source.declarations import Declaration, Placement, member_declarations
from vmstate_tools.qemu_source.macros import split, tokenize

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.expressions import Tree
    from vmstate_tools.qemu_source.program import Program, Scope


@dataclass
class Layout:
    """A Layout has the types and constants of one program."""

    program: Program
    _named: dict[tuple[str, str], Type] = field(default_factory=dict)

    @cached_property
    def constants(self) -> Constants:
        """Returns the constants of the program."""
        return Constants(self)

    # -- values --------------------------------------------------------------------------------------------------

    def integer(self, tokens: list[str], scope: Scope) -> int:
        """Evaluates tokens, whose macros are expanded, to an integer.

        Raises
        ------
        CatalogError : not a constant that can be evaluated.
        """
        tree = expressions.parse(tokens)
        return self.value(tree, scope)

    def value(self, tree: Tree, scope: Scope) -> int:
        return expressions.value(tree, lambda t: self.leaf(t, scope))

    def leaf(self, tree: Tree, scope: Scope) -> int:
        """Evaluates what depends on declarations: a name, a size, a cast, an offset."""
        kind = tree[0]
        if kind == "name":
            return self.constants.value(tree[1], scope)
        if kind == "sizeof type":
            return self.size_of(self.type_of_tokens(list(tree[1]), scope))
        if kind == "sizeof":
            if tree[1][0] == "name" and self.is_type(tree[1][1], scope):
                return self.size_of(self.named(tree[1][1], scope))
            if tree[1][0] == "string":
                return len(tree[1][1]) + 1
            return self.size_of(self.type_of(tree[1], scope))
        if kind == "cast":
            inner = self.value(tree[2], scope)
            type_ = self.type_of_tokens(list(tree[1]), scope)
            if type_.kind == "number" and type_.size:
                inner &= (1 << 8 * type_.size) - 1
                if type_.signed and inner >> (8 * type_.size - 1):
                    inner -= 1 << 8 * type_.size
            return inner
        if kind == "call" and tree[1] == ("name", "__builtin_constant_p"):
            return 1
        if kind == "call" and tree[1] == ("name", "__builtin_choose_expr"):
            return self.value(tree[2][1 if self.value(tree[2][0], scope) else 2], scope)
        if kind == "offsetof":
            return self.offset(self.type_of_tokens(list(tree[1]), scope), expressions.parse(list(tree[2])), scope)
        raise CatalogError(f"{_shown(tree)} is no constant")

    # -- types ------------------------------------------------------------------------------------------------------

    def size_of(self, type_: Type) -> int:
        """Returns the size in bytes.

        Raises
        ------
        CatalogError : not known.
        """
        size = self.known_size(type_)
        if size is None:
            raise CatalogError(f"size of {type_.name or type_.kind} not known")
        return size

    def known_size(self, type_: Type) -> int | None:
        """Returns the size in bytes, None where it is not known."""
        if type_.kind == "array":
            inner = self.known_size(type_.of or UNKNOWN)
            return None if inner is None or type_.count is None else inner * type_.count
        if type_.kind in ("struct", "union"):
            self.complete(type_)
        return type_.size

    def alignment(self, type_: Type) -> int:
        """Returns the alignment in bytes."""
        if type_.kind == "array":
            return self.alignment(type_.of or UNKNOWN)
        if type_.kind in ("struct", "union"):
            self.complete(type_)
        return type_.align

    def member(self, type_: Type, name: str) -> Member:
        """Finds a member, also in members without a name."""
        self.complete(type_)
        members = type_.members or {}
        if (type_.name, name) in HOST_MEMBERS:
            return Member(Type("number", "long", 8, 8), HOST_MEMBERS[type_.name, name])
        if name in members:
            return members[name]
        for key, item in members.items():
            if key.startswith("<") and item.type.kind in ("struct", "union"):
                try:
                    found = self.member(item.type, name)
                except CatalogError:
                    continue
                offset = None if item.offset is None or found.offset is None else item.offset + found.offset
                return Member(found.type, offset, found.bits)
        raise CatalogError(f"{type_.name or type_.kind} has no member {name}")

    def type_of(self, tree: Tree, scope: Scope) -> Type:
        """Returns the type of an expression, as `typeof` does.

        Raises
        ------
        CatalogError : not known.
        """
        kind = tree[0]
        if kind == "member":
            inner = self.type_of(tree[1], scope)
            return self.member(inner.of or UNKNOWN if inner.kind == "pointer" else inner, tree[2]).type
        if kind == "index":
            inner = self.type_of(tree[1], scope)
            if inner.of is not None:
                return inner.of
        if kind == "unary" and tree[1] == "*":
            inner = self.type_of(tree[2], scope)
            if inner.of is not None:
                return inner.of
        if kind == "unary" and tree[1] == "&":
            return pointer(self.type_of(tree[2], scope))
        if kind in ("cast", "compound"):
            return self.type_of_tokens(list(tree[1]), scope)
        if kind in ("number", "sizeof", "sizeof type"):
            return self.named("int", scope)
        if kind == "name":
            return self.variable(tree[1], scope)
        raise CatalogError(f"type of {_shown(tree)} not known")

    def variable(self, name: str, scope: Scope) -> Type:
        """Returns the type of a variable at file scope."""
        chunk = scope.view.variables.get(name)
        if chunk is None:
            raise CatalogError(f"variable {name} not found")
        tokens = [t for t in scope.expand(tokenize(scope.view.text[chunk.start : chunk.body])) if t != " "]
        head = tokens[: tokens.index("=")] if "=" in tokens else tokens
        for _, type_ in self.declared(head, scope):
            if type_.kind == "array" and type_.count is None:
                items = split(scope.expand(tokenize(scope.view.slice(chunk).split("{", 1)[1].rsplit("}", 1)[0])))
                return Type("array", type_.name, None, 1, type_.of, sum(1 for i in items if i))
            return type_
        raise CatalogError(f"variable {name} not understood")

    def offset(self, type_: Type, path: Tree, scope: Scope) -> int:
        """Returns the offset of a member, given as an expression like `a.b[1].c`."""
        return self._offset(type_, path, scope)[0]

    def _offset(self, type_: Type, path: Tree, scope: Scope) -> tuple[int, Type]:
        if path[0] == "name":
            found = self.member(type_, path[1])
            if found.offset is None:
                raise CatalogError(f"offset of {path[1]} not known")
            return found.offset, found.type
        if path[0] == "member":
            base, inner = self._offset(type_, path[1], scope)
            found = self.member(inner, path[2])
            if found.offset is None:
                raise CatalogError(f"offset of {path[2]} not known")
            return base + found.offset, found.type
        if path[0] == "index":
            base, inner = self._offset(type_, path[1], scope)
            if inner.of is None:
                raise CatalogError("index of what is no array")
            return base + self.value(path[2], scope) * self.size_of(inner.of), inner.of
        raise CatalogError(f"offset of {_shown(path)} not understood")

    def type_of_tokens(self, tokens: list[str], scope: Scope) -> Type:
        """Reads a type name, as in a cast or sizeof."""
        for _, type_ in self.declared([t for t in tokens if t != " "], scope):
            return type_
        raise CatalogError(f"type {' '.join(tokens)[:60]} not understood")

    def is_type(self, name: str, scope: Scope) -> bool:
        """Tells whether a name is a type's."""
        return self.named(name, scope).kind != "unknown"

    def named(self, name: str, scope: Scope) -> Type:
        """Returns the type a name stands for: a typedef's, `struct X`, or one of the host's."""
        key = (scope.path, name)
        if key not in self._named:
            self._named[key] = UNKNOWN  # what is defined by itself
            self._named[key] = self._find(name, scope)
        return self._named[key]

    def _find(self, name: str, scope: Scope) -> Type:
        program = self.program
        word, _, tag = name.rpartition(" ")
        if word:
            found = self._tagged(word, tag, scope)
            if found is not None:
                return found
        elif name == "target_ulong" or name == "target_long":
            size = program.target.bits // 8
            return Type("number", name, size, size, signed=name == "target_long")
        if name in HOST:
            size, align = HOST[name]
            return Type("number", name, size, align, signed=name in SIGNED)
        if not word:
            closure = program.closure(scope.path)
            paths = list(scope.visible(program.typedefs, name))
            if name in scope.view.typedefs:
                paths = [scope.path]
            near = self._typedef(name, [p for p in paths if p in closure], scope)
            if near is not None:
                return near
            # A macro of QOM makes the typedef: the struct is called the same.
            for kind in ("struct", "union"):
                found = self._tagged(kind, name, scope, near=True)
                if found is not None:
                    return found
            far = self._typedef(name, [p for p in paths if p not in closure], scope)
            if far is not None:
                return far
            for kind in ("struct", "union"):
                found = self._tagged(kind, name, scope)
                if found is not None:
                    return found
        if re.fullmatch(r"(?:G[A-Z]\w+|Visitor)", name):
            return Type("struct", name)
        if word == "enum":
            return Type("number", name, 4, 4)
        if name in program.qapi_enums:
            return Type("number", name, 4, 4)
        if word in ("struct", "union"):
            return Type(word, name)
        return Type("unknown", name)

    def _typedef(self, name: str, paths: list[str], scope: Scope) -> Type | None:
        forward: Type | None = None
        for path in paths:
            other = self.program.scope(path)
            chunk = other.view.typedefs.get(name)
            if chunk is None:
                continue
            for declared, type_ in self.declared(other.tokens(chunk), other):
                if declared != name or type_.kind == "unknown":
                    continue
                if type_.kind not in ("struct", "union") or type_.body is not None or type_.size is not None:
                    return type_
                # Only named there: its definition is nearer to who asks than to the typedef.
                forward = self._tagged(type_.kind, type_.name.split(" ")[-1], scope) or type_
                if forward.body is not None:
                    return forward
        return forward

    def _tagged(self, word: str, tag: str, scope: Scope, near: bool = False) -> Type | None:
        """Finds a struct, union or enum by its tag; `near`: only in the file itself and in what it includes."""
        program = self.program
        paths = [scope.path] if (word, tag) in scope.view.tags else list(scope.visible(program.tags, (word, tag)))
        if near:
            closure = program.closure(scope.path)
            paths = [p for p in paths if p in closure]
        if not paths and word in ("struct", "union"):
            paths = [p for p in program.closure(scope.path) if (word, tag) in program.view(p).tags]
        for path in paths:
            key = (path, f"{word} {tag}")
            if key in self._named and self._named[key] is not UNKNOWN:
                return self._named[key]
            other = program.scope(path)
            if word == "enum":
                type_ = Type("number", tag, 4, 4)
            else:
                at = other.view.tags[word, tag]
                tokens = tokenize(_definition_at(other.view.text, at))
                type_ = self._aggregate(word, f"{word} {tag}", other.expand(tokens, at), other)
            self._named[key] = type_
            return type_
        return None

    def _aggregate(self, word: str, name: str, tokens: list[str], scope: Scope) -> Type:
        return Type(word, name, body=(scope, [t for t in tokens if t != " "]))

    def complete(self, type_: Type) -> None:
        """Lays out the members of a struct or union."""
        if type_.members is not None or type_.body is None or type_.busy:
            return
        type_.busy = True
        scope, tokens = type_.body
        members: dict[str, Member] = {}
        try:
            start = tokens.index("{")
            end = len(tokens) - 1 - tokens[::-1].index("}")
            attributes = tokens[:start] + tokens[end + 1 :]
            packed = "packed" in attributes or "__packed__" in attributes
            declarations = member_declarations(tokens[start + 1 : end])
            Placement(self, scope, type_.kind == "union", packed).place(declarations, members, type_, attributes)
        finally:
            type_.members = members
            type_.busy = False

    def declared(self, tokens: list[str], scope: Scope) -> list[tuple[str, Type]]:
        """Reads one declaration (macros expanded): names ('' for a type name alone) and their types."""
        tokens = [t for t in tokens if t != " "]
        while tokens and tokens[-1] == ";":
            tokens.pop()
        reader = Declaration(self, scope, tokens)
        return [(name, type_) for name, type_, _ in reader.read()]


def _definition_at(text: str, at: int) -> str:
    """Returns the definition of a struct that begins at a place, with the attributes that follow it."""
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, at):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            rest = re.match(r"[\w\s]*(?:\([^;{}]*\))?", text[match.end() : match.end() + 200])
            return text[at : match.end()] + (rest[0] if rest is not None else "")
    raise CatalogError("struct without end")


def _shown(tree: Tree) -> str:
    return str(tree[1]) if tree[0] == "name" else str(tree[0])
