"""Enough of C to read facts from QEMU's source: preprocessing, parsing (tree-sitter), constant evaluation.

Conditionals are decided for one configuration, function-like macros are expanded, and the result is parsed.
Object-like macros stay names: they are evaluated when an expression asks for them. What cannot be evaluated
is a `CatalogError` that names file and line.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

import tree_sitter_c
from tree_sitter import Language, Parser, Query, QueryCursor

from vmstate_tools.errors import CatalogError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tree_sitter import Node

_LANGUAGE = Language(tree_sitter_c.language())
_ENUMERATORS = Query(_LANGUAGE, "(enumerator) @enumerator")

#: Macros of QEMU's general headers that the ppc files lean on, by their meaning.
PRELUDE = """
#define glue(x, y) xglue(x, y)
#define xglue(x, y) x ## y
#define stringify(s) tostring(s)
#define tostring(s) #s
#define type_init(f)
#define FIELD(r, f, shift, length) enum { R_##r##_##f##_MASK = ((1ULL << (length)) - 1) << (shift) };
#define BIT_ULL(n) (1ULL << (n))
#define MAKE_64BIT_MASK(shift, length) (((~0ULL) >> (64 - (length))) << (shift))
#define DEFINE_MACHINE(n, f) static const TypeInfo machine_##f = { .name = n, .class_init = f };
#define MACHINE_TYPE_NAME(n) n
#define POWERPC_CPU_TYPE_NAME(n) n
"""

_COMMENT_OR_LITERAL = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_TOKEN = re.compile(
    r"\s+|[A-Za-z_]\w*|\.?\d(?:[eEpP][+-]|[\w.])*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|##|.", re.DOTALL
)
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")


@dataclass(frozen=True)
class Macro:
    """A Macro is a `#define`; `params` is None where it takes none."""

    name: str
    params: tuple[str, ...] | None
    body: str
    path: str
    line: int


@dataclass
class Unit:
    """A Unit is one file after preprocessing; lines are numbered as in the original.

    Attributes
    ----------
    text : the active lines, function-like macros expanded.
    macros : what the file defined; a name defined twice, differently, maps to None (not to be evaluated).
    """

    path: str
    text: str
    macros: dict[str, Macro | None]

    @cached_property
    def root(self) -> Node:
        return Parser(_LANGUAGE).parse(self.text.encode("latin-1")).root_node

    @cached_property
    def functions(self) -> dict[str, Node]:
        """Returns function name → function_definition node."""
        return {function_name(n): n for n in self.root.children if n.type == "function_definition"}

    @cached_property
    def enumerators(self) -> dict[str, tuple[Unit, Node | None, int]]:
        """Returns every enumerator: the expression it counts from, and how far it is from that one."""
        found: dict[str, tuple[Unit, Node | None, int]] = {}
        lists = {n.parent for n in QueryCursor(_ENUMERATORS).captures(self.root).get("enumerator", [])}
        for body in lists:
            base: Node | None = None
            offset = 0
            for item in body.named_children if body is not None else ():
                if item.type == "enumerator":
                    value = item.child_by_field_name("value")
                    base, offset = (value, 0) if value is not None else (base, offset)
                    found[text_of(child(item, "name"))] = (self, base, offset)
                    offset += 1
        return found

    def declarations(self) -> Iterator[Node]:
        """Yields the init_declarator nodes at file scope."""
        for node in self.root.children:
            if node.type == "declaration":
                yield from walk(node, "init_declarator")

    def where(self, node: Node) -> str:
        return f"{self.path}:{node.start_point.row + 1}"


def text_of(node: Node) -> str:
    """Returns the text of a node, bytes as Latin-1."""
    return (node.text or b"").decode("latin-1")


def child(node: Node, name: str) -> Node:
    """Returns the child that a grammar rule always has."""
    found = node.child_by_field_name(name)
    if found is None:
        raise CatalogError(f"line {node.start_point.row + 1}: {node.type} without {name}")
    return found


def function_name(definition: Node) -> str:
    """Returns the name of the function that a definition defines."""
    node = definition.child_by_field_name("declarator")
    while node is not None and node.type != "identifier":
        node = node.child_by_field_name("declarator")
    return text_of(node) if node is not None else ""


def walk(node: Node, *types: str) -> Iterator[Node]:
    """Descendants of the given types, in source order; does not descend into a match."""
    stack = [node]
    while stack:
        item = stack.pop()
        if item.type in types:
            yield item
        else:
            stack.extend(reversed(item.named_children))


def designated(node: Node) -> dict[str, Node]:
    """Returns designator → value of one initializer list."""
    found: dict[str, Node] = {}
    for pair in node.named_children:
        if pair.type == "initializer_pair":
            designator = pair.child_by_field_name("designator")
            value = pair.child_by_field_name("value")
            assert designator is not None and value is not None
            found[text_of(designator).lstrip(".")] = value
    return found


# Preprocessing


def preprocess(
    text: str,
    path: str,
    config: Mapping[str, str],
    macros: Mapping[str, Macro | None] | None = None,
    expand: bool = True,
) -> Unit:
    """Decides conditionals for `config` (names defined, with their values) and expands function-like macros."""
    known: dict[str, Macro | None] = dict(macros) if macros is not None else dict(prelude())
    own: dict[str, Macro | None] = {}
    out: list[str] = []
    pending: list[str] = []
    stack: list[tuple[bool, bool, bool]] = []  # enclosing active, active now, some branch taken

    def flush() -> None:
        if pending:
            chunk = "\n".join(pending) + "\n"
            out.append(_expand_functions(chunk, known, path) if expand else chunk)
            pending.clear()

    active = True
    for number, line, height in _logical_lines(_strip_comments(text)):
        directive = re.match(r"\s*#\s*(\w*)\s*(.*)", line, re.DOTALL)
        if directive is None:
            pending.append((line if active else "") + "\n" * (height - 1))
            continue
        word, rest = directive[1], directive[2].strip()
        if word in ("if", "ifdef", "ifndef"):
            yes = active and _condition(word, rest, config, known, f"{path}:{number}")
            stack.append((active, yes, yes))
            active = yes
        elif word in ("elif", "else", "endif"):
            if not stack:
                raise CatalogError(f"{path}:{number}: #{word} without #if")
            outer, _, taken = stack.pop()
            if word == "endif":
                active = outer
            else:
                yes = outer and not taken
                yes = yes and (word == "else" or _condition("if", rest, config, known, f"{path}:{number}"))
                stack.append((outer, yes, taken or yes))
                active = yes
        elif active and word in ("define", "undef"):
            flush()
            if word == "undef":
                known.pop(rest, None)
                own.pop(rest, None)
            else:
                macro = _definition(rest, path, number)
                old = own.get(macro.name, macro)
                same = old is not None and (old.params, old.body) == (macro.params, macro.body)
                known[macro.name] = own[macro.name] = macro if same else None
        pending.append("\n" * (height - 1))
    if stack:
        raise CatalogError(f"{path}: #if without #endif")
    flush()
    return Unit(path, "".join(out), own)


@cache
def prelude() -> dict[str, Macro | None]:
    """Returns the macros that `PRELUDE` defines, by name."""
    return preprocess(PRELUDE, "prelude", {}, {}).macros


def _strip_comments(text: str) -> str:
    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return " " + "\n" * found.count("\n") if found[0] == "/" else found

    return _COMMENT_OR_LITERAL.sub(blank, text)


def _logical_lines(text: str) -> Iterator[tuple[int, str, int]]:
    """Yields (line number, line with continuations joined, physical lines it took)."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        while line.endswith("\\") and at + 1 < len(lines):
            at += 1
            line = line[:-1] + " " + lines[at]
        at += 1
        yield start + 1, line, at - start


def _definition(rest: str, path: str, line: int) -> Macro:
    match = re.match(r"(\w+)(\(([^)]*)\))?\s*(.*)", rest, re.DOTALL)
    if match is None:
        raise CatalogError(f"{path}:{line}: #define {rest!r} not understood")
    params = None if match[2] is None else tuple(p.strip() for p in match[3].split(",") if p.strip())
    return Macro(match[1], params, match[4].strip(), path, line)


def _condition(word: str, rest: str, config: Mapping[str, str], macros: Mapping[str, Macro | None], where: str) -> bool:
    def is_defined(name: str) -> bool:
        return name in config or name in macros

    if word != "if":
        return is_defined(rest.split()[0]) == (word == "ifdef")
    # What remains after defined() are numbers, operators and names; a name unknown to the preprocessor is 0.
    expression = re.sub(
        r"defined\s*\(\s*(\w+)\s*\)|defined\s+(\w+)", lambda m: str(int(is_defined(m[1] or m[2]))), rest
    )

    def value(match: re.Match[str]) -> str:
        if match[0] in config:
            return config[match[0]] or "1"
        macro = macros.get(match[0])
        return f"({macro.body})" if macro is not None and macro.params is None and macro.body else "0"

    expression = re.sub(r"\b[A-Za-z_]\w*(?:\s*\([^()]*\))?", value, expression)
    try:
        return bool(Evaluator({}, {}).expression(expression, where))
    except CatalogError as error:
        raise CatalogError(f"{where}: #if {rest} not understood ({error})") from None


def _expand_functions(text: str, macros: Mapping[str, Macro | None], path: str) -> str:
    called = {name: macros[name] for name in set(_CALL.findall(text)) if name in macros}
    if not any(m is not None and m.params is not None for m in called.values()):
        return text
    functions = {m.name: m for m in macros.values() if m is not None and m.params is not None}
    return _expand(_TOKEN.findall(text), functions, frozenset(), path)


def _expand(tokens: list[str], functions: Mapping[str, Macro], hidden: frozenset[str], path: str) -> str:
    if not functions.keys() & set(tokens):
        return "".join(tokens)
    out: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        macro = functions.get(token) if token not in hidden else None
        call = _arguments(tokens, at + 1) if macro is not None else None
        if macro is None or call is None:
            out.append(token)
            at += 1
            continue
        args, end = call
        out.append(_remembered(macro, args, functions, hidden, path))
        # Lines keep their numbers: the newlines inside the call follow its expansion.
        out.append("\n" * "".join(tokens[at:end]).count("\n"))
        at = end
    return "".join(out)


def _arguments(tokens: list[str], at: int) -> tuple[list[str], int] | None:
    while at < len(tokens) and tokens[at].isspace():
        at += 1
    if at >= len(tokens) or tokens[at] != "(":
        return None
    depth, args, start = 0, [], at + 1
    for i in range(at, len(tokens)):
        if tokens[i] in "([{":
            depth += 1
        elif tokens[i] in ")]}":
            depth -= 1
        if depth == 0 or (depth == 1 and tokens[i] == ","):
            args.append("".join(tokens[start:i]).replace("\n", " ").strip())
            start = i + 1
            if depth == 0:
                return args, i + 1
    return None


_expansions: dict[tuple[object, ...], str] = {}


def _remembered(
    macro: Macro, args: list[str], functions: Mapping[str, Macro], hidden: frozenset[str], path: str
) -> str:
    """Returns the expansion of a call; calls with plain arguments are cached, as every revision has the same ones."""
    if any("(" in arg for arg in args):
        return _substitute(macro, args, functions, hidden, path)
    reached: dict[str, Macro] = {macro.name: macro}
    queue = [macro]
    while queue:
        for name in _names(queue.pop().body) & functions.keys() - reached.keys():
            reached[name] = functions[name]
            queue.append(functions[name])
    meaning = tuple(sorted((m.name, m.params, m.body) for m in reached.values()))
    key = (macro.name, meaning, tuple(args), hidden)
    if key not in _expansions:
        if len(_expansions) > 20_000:
            _expansions.clear()
        _expansions[key] = _substitute(macro, args, functions, hidden, path)
    return _expansions[key]


def _substitute(
    macro: Macro, args: list[str], functions: Mapping[str, Macro], hidden: frozenset[str], path: str
) -> str:
    params = macro.params or ()
    if params and params[-1] == "...":
        fixed = len(params) - 1
        args = [*args[:fixed], ", ".join(args[fixed:])]
        params = (*params[:-1], "__VA_ARGS__")
    if not params and args == [""]:
        args = []
    if len(args) != len(params):
        raise CatalogError(f"{path}: {macro.name} takes {len(params)} arguments, {len(args)} given")
    raw = dict(zip(params, args, strict=True))
    body = _body(macro.body)
    out: list[str] = []
    at = 0
    while at < len(body):
        token = body[at]
        following = body[at + 1] if at + 1 < len(body) else ""
        if token == "#" and following in raw:
            out.append('"' + raw[following].replace("\\", "\\\\").replace('"', '\\"') + '"')
            at += 1
        elif token == "##":
            out.append(raw.get(following, following))
            at += 1
        elif token in raw and following != "##":
            out.append(_expand(_TOKEN.findall(raw[token]), functions, hidden, path))
        else:
            out.append(raw.get(token, token))
        at += 1
    again = _TOKEN.findall("".join(out))
    return _expand(again, functions, hidden | {macro.name}, path).replace("\n", " ")


@cache
def _names(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_]\w*", text))


@cache
def _body(text: str) -> list[str]:
    """Tokens of a macro's body, without the space around ##."""
    return _TOKEN.findall(re.sub(r"\s*##\s*", "##", text))


# Evaluation


@dataclass(frozen=True)
class CInt:
    """A CInt is an integer with its C type: `bits` 32 or 64."""

    value: int
    bits: int = 32
    signed: bool = True

    def fit(self) -> CInt:
        value = self.value & ((1 << self.bits) - 1)
        if self.signed and value >> (self.bits - 1):
            value -= 1 << self.bits
        return CInt(value, self.bits, self.signed)


_BINARY = {
    "|": int.__or__,
    "&": int.__and__,
    "^": int.__xor__,
    "+": int.__add__,
    "-": int.__sub__,
    "*": int.__mul__,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "<<": int.__lshift__,
    ">>": int.__rshift__,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b),
    ">=": lambda a, b: int(a >= b),
    "&&": lambda a, b: int(bool(a and b)),
    "||": lambda a, b: int(bool(a or b)),
}
_TYPES = {
    "int": (32, True),
    "uint32_t": (32, False),
    "int32_t": (32, True),
    "uint64_t": (64, False),
    "int64_t": (64, True),
    "target_ulong": (64, False),
    "unsigned": (32, False),
}


class Evaluator:
    """An Evaluator works out constant expressions over macros and enumerators.

    `enumerators` maps a name to (unit, expression node, names counted from it); `TARGET_PPC64` is assumed
    for the width of `target_ulong`.
    """

    def __init__(
        self,
        macros: Mapping[str, Macro | None],
        enumerators: Mapping[str, tuple[Unit, Node | None, int]],
    ) -> None:
        self.macros = macros
        self.enumerators = enumerators
        self._cache: dict[str, CInt] = {}
        both = (*prelude().values(), *macros.values())
        self._functions = {m.name: m for m in both if m is not None and m.params is not None}

    def expression(self, text: str, where: str) -> int:
        """Returns the value of an expression given as text."""
        return self._text(text, where).value

    def node(self, node: Node, where: str) -> int:
        """Returns the value of an expression node, as an unsigned 64-bit word."""
        return self._node(node, where).value & 0xFFFF_FFFF_FFFF_FFFF

    def constant(self, name: str) -> int:
        return self._name(name, name).value & 0xFFFF_FFFF_FFFF_FFFF

    def binding(self, names: Mapping[str, int]) -> Evaluator:
        """Returns the same constants, with some names bound to 64-bit unsigned integers."""
        other = copy(self)
        other._cache = {**self._cache, **{n: CInt(v, 64, signed=False) for n, v in names.items()}}
        return other

    def text(self, node: Node, where: str) -> str:
        """Returns the value of a string expression: literals, and macros that stand for literals, joined."""
        if node.type == "concatenated_string":
            return "".join(self.text(n, where) for n in node.named_children)
        if node.type == "string_literal":
            return text_of(node)[1:-1]
        if node.type == "parenthesized_expression":
            return self.text(node.named_children[0], where)
        if node.type == "identifier":
            macro = self.macros.get(text_of(node))
            if macro is not None and macro.params is None:
                inner = self._parse(macro.body, where)
                return self.text(inner, where)
        raise CatalogError(f"{where}: {text_of(node)!r} is not a string that can be read")

    def _parse(self, text: str, where: str) -> Node:
        text = _expand(_TOKEN.findall(text), self._functions, frozenset(), where)
        tree = Parser(_LANGUAGE).parse(f"int x = {text};".encode("latin-1"))
        found = next(walk(tree.root_node, "init_declarator"), None)
        value = found.child_by_field_name("value") if found is not None else None
        if value is None or tree.root_node.has_error:
            raise CatalogError(f"{where}: expression {text!r} not understood")
        return value

    def _text(self, text: str, where: str) -> CInt:
        return self._node(self._parse(text, where), where)

    def _name(self, name: str, where: str) -> CInt:
        if name not in self._cache:
            macro = self.macros.get(name)
            if name in self.macros and macro is None:
                raise CatalogError(f"{where}: {name} has two definitions")
            if macro is not None and macro.params is None and macro.body not in ("", name):
                self._cache[name] = self._text(macro.body, f"{macro.path}:{macro.line}")
            elif name in self.enumerators:
                unit, node, offset = self.enumerators[name]
                base = CInt(0) if node is None else self._node(node, unit.where(node))
                self._cache[name] = CInt(base.value + offset, base.bits, base.signed).fit()
            else:
                raise CatalogError(f"{where}: nothing known of {name}")
        return self._cache[name]

    def _node(self, node: Node, where: str) -> CInt:
        kind = node.type
        if kind == "identifier":
            return self._name(text_of(node), where)
        if kind == "number_literal":
            return _literal(text_of(node), where)
        if kind == "parenthesized_expression":
            return self._node(node.named_children[0], where)
        if kind == "binary_expression":
            return self._binary(node, where)
        if kind == "unary_expression":
            operand = self._node(child(node, "argument"), where)
            operator = text_of(child(node, "operator"))
            if operator == "!":
                return CInt(int(not operand.value))
            changed = {"~": ~operand.value, "-": -operand.value, "+": operand.value}.get(operator)
            if changed is not None:
                return CInt(changed, operand.bits, operand.signed).fit()
        if kind == "cast_expression":
            name = text_of(child(node, "type"))
            if name in _TYPES:
                inner = self._node(child(node, "value"), where)
                return CInt(inner.value, *_TYPES[name]).fit()
        if kind == "call_expression":
            return self._text(text_of(node), where) if self._is_macro(node) else self._unknown(node, where)
        return self._unknown(node, where)

    def _is_macro(self, node: Node) -> bool:
        return text_of(child(node, "function")) in self._functions

    def _unknown(self, node: Node, where: str) -> CInt:
        raise CatalogError(f"{where}: {node.type} {text_of(node)!r} cannot be evaluated")

    def _binary(self, node: Node, where: str) -> CInt:
        left = self._node(child(node, "left"), where)
        right = self._node(child(node, "right"), where)
        operator = text_of(child(node, "operator"))
        if operator in ("<<", ">>"):
            if not 0 <= right.value < left.bits:
                raise CatalogError(f"{where}: shift of a {left.bits}-bit value by {right.value}")
            return CInt(_BINARY[operator](left.value, right.value), left.bits, left.signed).fit()
        bits = max(left.bits, right.bits)
        signed = all(x.signed or x.bits < bits for x in (left, right))
        left, right = CInt(left.value, bits, signed).fit(), CInt(right.value, bits, signed).fit()
        return CInt(_BINARY[operator](left.value, right.value), bits, signed).fit()


def _literal(text: str, where: str) -> CInt:
    digits = text.rstrip("uUlL")
    suffix = text[len(digits) :].lower()
    try:
        value = int(digits, 8) if re.fullmatch(r"0\d+", digits) else int(digits, 0)
    except ValueError:
        raise CatalogError(f"{where}: number {text!r} not understood") from None
    unsigned = "u" in suffix
    for bits in (32, 64):
        if bits == 32 and "l" in suffix:
            continue
        if not unsigned and value < 1 << (bits - 1):
            return CInt(value, bits, True)
        # A decimal number without u is never unsigned; a hexadecimal or octal one may become so.
        if value < 1 << bits and (unsigned or digits.startswith("0")):
            return CInt(value, bits, False)
    raise CatalogError(f"{where}: number {text!r} does not fit 64 bits")
