"""Types of C and their sizes on a 64-bit Linux host, from the declarations in QEMU's source; constants and enumerators.

Everything is resolved when it is asked for. What lies outside QEMU's source (the C library's types, GLib's) is a
short table; a type that is in neither has no size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.macros import stripped, tokenize

if TYPE_CHECKING:
    from vmstate_tools.qemu_source.expressions import Tree
    from vmstate_tools.qemu_source.program import Program, Scope

#: Size in bytes (and alignment, where it is another) of types that QEMU's source does not define.
_HOST: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("char", "bool", "_Bool", "int8_t", "uint8_t", "gchar", "guchar", "guint8", "gint8"), (1, 1)),
    **dict.fromkeys(("short", "int16_t", "uint16_t", "sa_family_t", "guint16", "mode16_t"), (2, 2)),
    **dict.fromkeys(
        ("int", "unsigned", "float", "int32_t", "uint32_t", "gint", "guint", "gboolean", "pid_t", "uid_t", "gid_t",
         "mode_t", "socklen_t", "guint32", "gint32", "GQuark", "pthread_once_t", "pthread_key_t", "__u32", "__s32",
         "uint_fast8_t"),
        (4, 4),
    ),
    **dict.fromkeys(
        ("long", "double", "int64_t", "uint64_t", "size_t", "ssize_t", "intptr_t", "uintptr_t", "off_t", "time_t",
         "ptrdiff_t", "gsize", "gpointer", "guint64", "gint64", "pthread_t", "intmax_t", "uintmax_t", "dev_t", "ino_t",
         "clock_t", "uint_fast16_t", "uint_fast32_t", "uint_fast64_t", "int_fast16_t", "int_fast32_t", "GMutex",
         "suseconds_t", "__u64", "__s64", "gulong", "pixman_image_t*"),
        (8, 8),
    ),
    "__u8": (1, 1), "__s8": (1, 1), "__u16": (2, 2), "__s16": (2, 2), "__le16": (2, 2), "__le32": (4, 4),
    "__le64": (8, 8), "__be16": (2, 2), "__be32": (4, 4), "__be64": (8, 8), "int_fast8_t": (1, 1),
    "__int128_t": (16, 16), "__uint128_t": (16, 16), "__int128": (16, 16),
    "pthread_mutex_t": (40, 8), "pthread_cond_t": (48, 8), "pthread_rwlock_t": (56, 8), "sem_t": (32, 8),
    "GCond": (16, 8), "GRWLock": (16, 8), "GQueue": (24, 8), "GList": (24, 8), "GSList": (16, 8), "GPollFD": (8, 4),
    "GSource": (96, 8), "GString": (24, 8), "sigjmp_buf": (200, 8), "jmp_buf": (200, 8), "va_list": (24, 8),
    "sigset_t": (128, 8), "pixman_color_t": (8, 2), "pixman_region16_t": (16, 8), "pixman_format_code_t": (4, 4),
    "struct timeval": (16, 8), "struct timespec": (16, 8), "struct tm": (56, 8), "struct iovec": (16, 8),
    "struct sockaddr": (16, 2), "struct sockaddr_in": (16, 4), "struct sockaddr_in6": (28, 4),
    "struct sockaddr_un": (110, 2), "struct sockaddr_storage": (128, 8), "struct in_addr": (4, 4),
    "struct in6_addr": (16, 4), "struct termios": (60, 4), "struct stat": (144, 8), "struct sigaction": (152, 8),
    "struct ibv_qp_cap": (20, 4),
    # spice-protocol's qxl_dev.h, usbredir's usbredirproto.h
    "QXLMemSlot": (16, 1), "QXLSurfaceCreate": (40, 1),
    "struct usb_redir_device_connect_header": (10, 1), "struct usb_redir_interface_info_header": (132, 4),
}  # fmt: skip
#: Offsets of members of the host's structs that QEMU's source asks for.
_HOST_MEMBERS = {("struct iovec", "iov_base"): 0, ("struct iovec", "iov_len"): 8}
_SIGNED = frozenset(
    [
        "char",
        "short",
        "int",
        "long",
        "int8_t",
        "int16_t",
        "int32_t",
        "int64_t",
        "ssize_t",
        "intptr_t",
        "off_t",
        "time_t",
        "gint",
    ]
)
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


@dataclass(eq=False)
class Type:
    """A type of C.

    `kind` is number, pointer, array, struct, union, function or unknown. A struct's members are laid out when its
    size or one of them is asked for.
    """

    kind: str
    name: str = ""
    size: int | None = None
    align: int = 1
    of: Type | None = None
    count: int | None = None
    signed: bool = False
    body: tuple[Scope, list[str]] | None = None
    members: dict[str, Member] | None = None
    busy: bool = False


@dataclass(eq=False)
class Member:
    """A member of a struct: its type and its offset in bytes (None where a type before it has no known size)."""

    type: Type
    offset: int | None
    bits: int | None = None


POINTER_SIZE = 8
UNKNOWN = Type("unknown")
VOID = Type("number", "void", 1, 1)


def pointer(of: Type) -> Type:
    return Type("pointer", of.name, POINTER_SIZE, POINTER_SIZE, of)


@dataclass
class Layout:
    """Types and constants of one program."""

    program: Program
    _named: dict[tuple[str, str], Type] = field(default_factory=dict)
    _constants: dict[tuple[str, str], int] = field(default_factory=dict)
    _enums: dict[tuple[str, int], dict[str, int]] = field(default_factory=dict)
    _busy: set[tuple[str, str]] = field(default_factory=set)

    # -- constants --------------------------------------------------------------------------------------------------

    def integer(self, tokens: list[str], scope: Scope) -> int:
        """Evaluates tokens, whose macros are expanded, to an integer.

        Raises
        ------
        CatalogError : not a constant that can be evaluated.
        """
        tree = expressions.parse(tokens)
        return self.value(tree, scope)

    def value(self, tree: Tree, scope: Scope) -> int:
        return expressions.value(tree, lambda t: self._other(t, scope))

    def _other(self, tree: Tree, scope: Scope) -> int:
        kind = tree[0]
        if kind == "name":
            return self.constant(tree[1], scope)
        if kind == "sizeof type":
            return self.size_of(self.type_of_tokens(list(tree[1]), scope))
        if kind == "sizeof":
            if tree[1][0] == "name" and self._is_type(tree[1][1], scope):
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

    def constant(self, name: str, scope: Scope) -> int:
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
        program = self.program
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
                    values.add(self.integer(other.expand(list(macro.body)), other))
                except CatalogError:
                    continue
        if len(values) == 1:
            return values.pop()
        raise CatalogError(f"constant {name} not found")

    def _register(self, scope: Scope, text: str, kind: str) -> int:
        match = re.match(r"REG(\d*)\s*\(\s*\w+\s*,([^;]*?)\)\s*(?:\n|FIELD|REG|\Z)", text)
        if match is None:
            raise CatalogError(f"register {text[:40]!r} not understood")
        address = self.integer(scope.expand(tokenize(match[2])), scope)
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
            return self._other(tree, scope)

        return expressions.value(expressions.parse(tokens), other)

    # -- types ------------------------------------------------------------------------------------------------------

    def size_of(self, type_: Type) -> int:
        """Returns the size in bytes.

        Raises
        ------
        CatalogError : not known.
        """
        size = self._size(type_)
        if size is None:
            raise CatalogError(f"size of {type_.name or type_.kind} not known")
        return size

    def _size(self, type_: Type) -> int | None:
        if type_.kind == "array":
            inner = self._size(type_.of or UNKNOWN)
            return None if inner is None or type_.count is None else inner * type_.count
        if type_.kind in ("struct", "union"):
            self.complete(type_)
        return type_.size

    def _align(self, type_: Type) -> int:
        if type_.kind == "array":
            return self._align(type_.of or UNKNOWN)
        if type_.kind in ("struct", "union"):
            self.complete(type_)
        return type_.align

    def member(self, type_: Type, name: str) -> Member:
        """Finds a member, also in members without a name."""
        self.complete(type_)
        members = type_.members or {}
        if (type_.name, name) in _HOST_MEMBERS:
            return Member(Type("number", "long", 8, 8), _HOST_MEMBERS[type_.name, name])
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

    def _is_type(self, name: str, scope: Scope) -> bool:
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
        if name in _HOST:
            size, align = _HOST[name]
            return Type("number", name, size, align, signed=name in _SIGNED)
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
            declarations = _declarations(tokens[start + 1 : end])
            _Placement(self, scope, type_.kind == "union", packed).place(declarations, members, type_, attributes)
        finally:
            type_.members = members
            type_.busy = False

    def declared(self, tokens: list[str], scope: Scope) -> list[tuple[str, Type]]:
        """Reads one declaration (macros expanded): names ('' for a type name alone) and their types."""
        tokens = [t for t in tokens if t != " "]
        while tokens and tokens[-1] == ";":
            tokens.pop()
        reader = _Declaration(self, scope, tokens)
        return [(name, type_) for name, type_, _ in reader.read()]


class _Placement:
    """Puts the members of a struct or union one after the other, by the System V ABI for x86-64."""

    def __init__(self, layout: Layout, scope: Scope, union: bool, packed: bool) -> None:
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
            reader = _Declaration(self.layout, self.scope, tokens)
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
        size = self.layout._size(type_)
        if type_.kind == "array" and type_.count is None and type_.members is None:
            size = 0  # a flexible array member
        align = 1 if self.packed else self.layout._align(type_)
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


class _Declaration:
    """A declaration: specifiers and declarators."""

    def __init__(self, layout: Layout, scope: Scope, tokens: list[str]) -> None:
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
        size = _HOST[name][0]
        return Type("number", name, size, size, signed="unsigned" not in words)

    def _typeof(self, tokens: list[str]) -> Type:
        try:
            tree = expressions.parse(tokens)
        except CatalogError:
            return self.layout.type_of_tokens(tokens, self.scope)
        if tree[0] == "name" and self.layout._is_type(tree[1], self.scope):
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
            part = _Declaration(self.layout, self.scope, inner)
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


def _aligned(tokens: list[str], layout: Layout, scope: Scope) -> int:
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


def split(tokens: list[str]) -> list[list[str]]:
    """Splits tokens at the commas that stand in no bracket; white space around the parts is dropped."""
    parts: list[list[str]] = []
    depth, start = 0, 0
    for i, token in enumerate(tokens):
        if token in ("(", "[", "{"):
            depth += 1
        elif token in (")", "]", "}"):
            depth -= 1
        elif token == "," and depth == 0:
            parts.append(stripped(tokens[start:i]))
            start = i + 1
    parts.append(stripped(tokens[start:]))
    return parts


def _declarations(tokens: list[str]) -> list[list[str]]:
    """Splits the inside of a struct at its semicolons."""
    found: list[list[str]] = []
    depth, start = 0, 0
    for i, token in enumerate(tokens):
        if token in ("(", "[", "{"):
            depth += 1
        elif token in (")", "]", "}"):
            depth -= 1
        elif token == ";" and depth == 0:
            if i > start and tokens[start] not in ("QEMU_BUILD_BUG_ON", "_Static_assert"):
                found.append(tokens[start:i])
            start = i + 1
    return found


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
