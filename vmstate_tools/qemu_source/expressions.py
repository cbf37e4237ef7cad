"""Expressions of C: parsed from tokens into a tree, and evaluated where they are constant."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

from vmstate_tools.errors import CatalogError

#: A node: a tuple of its kind and its parts. Kinds: number, string, name, unary, binary, choice, call, index, member,
#: cast, sizeof, sizeof type, offsetof, compound.
Tree = tuple[Any, ...]

_TYPE_WORDS = frozenset(
    [
        "struct",
        "union",
        "enum",
        "const",
        "volatile",
        "unsigned",
        "signed",
        "int",
        "char",
        "long",
        "short",
        "void",
        "float",
        "double",
        "bool",
        "_Bool",
        "typeof",
        "__typeof__",
        "__typeof",
        "size_t",
        "ssize_t",
    ]
)
_TYPE_NAME = re.compile(r"u?int(?:\d+|ptr|max)_t|target_u?long|hwaddr|ram_addr_t|\w+_t|[A-Z]\w*[a-z]\w*|float\d+")
_LEVELS = (("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!="), ("<", ">", "<=", ">="), ("<<", ">>"),
           ("+", "-"), ("*", "/", "%"))  # fmt: skip
_PRECEDENCE = {op: level for level, ops in enumerate(_LEVELS) for op in ops}


def parse(tokens: list[str], is_type: Callable[[str], bool] | None = None) -> Tree:
    """Parses one expression.

    `is_type` says whether a name is a type's; without it, names are judged by their spelling.

    Raises
    ------
    CatalogError : the tokens are no expression.
    """
    return _parsed(tuple(t for t in tokens if t != " "), is_type)


@lru_cache(maxsize=100_000)
def _parsed(tokens: tuple[str, ...], is_type: Callable[[str], bool] | None) -> Tree:
    parser = _Parser(tokens, is_type or (lambda name: bool(_TYPE_NAME.fullmatch(name))))
    tree = parser.choice()
    if parser.at != len(tokens):
        parser.fail()
    return tree


class _Parser:
    def __init__(self, tokens: tuple[str, ...], is_type: Callable[[str], bool]) -> None:
        self.tokens = tokens
        self.at = 0
        self.is_type = is_type

    def fail(self) -> NoReturn:
        raise CatalogError(f"expression {' '.join(self.tokens)[:80]!r} not understood")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, token: str = "") -> str:
        found = self.peek()
        if not found or (token and found != token):
            self.fail()
        self.at += 1
        return found

    def choice(self) -> Tree:
        condition = self.binary(0)
        if self.peek() != "?":
            return condition
        self.take()
        yes = condition if self.peek() == ":" else self.choice()
        self.take(":")
        return ("choice", condition, yes, self.choice())

    def binary(self, level: int) -> Tree:
        left = self.unary()
        while (found := _PRECEDENCE.get(self.peek(), -1)) >= level:
            op = self.take()
            left = ("binary", op, left, self.binary(found + 1))
        return left

    def unary(self) -> Tree:
        token = self.peek()
        if token in ("-", "+", "!", "~", "*", "&"):
            self.take()
            return ("unary", token, self.unary())
        if token in ("sizeof", "__alignof__", "_Alignof"):
            self.take()
            if self.peek() == "(" and self._type_follows(self.at + 1):
                return ("sizeof type", self._parenthesized())
            return ("sizeof", self.unary())
        if token == "(" and self._type_follows(self.at + 1):
            start = self.at
            type_ = self._parenthesized()
            if self.peek() == "{":
                return self.postfix(("compound", type_, self._braced()))
            if self.peek() and self.peek() not in (")", ",", "]", "}", "?", ":") and self.peek() not in _PRECEDENCE:
                return ("cast", type_, self.unary())
            known = type_[-1] in ("*", *_TYPE_WORDS) or type_[-1].endswith("_t")
            if self.peek() in ("-", "*", "&") and known:
                return ("cast", type_, self.unary())
            self.at = start
        return self.postfix(self.primary())

    def _type_follows(self, at: int) -> bool:
        token = self.tokens[at] if at < len(self.tokens) else ""
        if token in _TYPE_WORDS:
            return True
        if not re.match(r"[A-Za-z_]", token):
            return False
        following = self.tokens[at + 1] if at + 1 < len(self.tokens) else ""
        return following in (")", "*", "[") and (self.is_type(token) or self._pointer(at + 1))

    def _pointer(self, at: int) -> bool:
        while at < len(self.tokens) and self.tokens[at] == "*":
            at += 1
        return self.tokens[at - 1] == "*" and self.tokens[at : at + 1] == (")",)

    def _parenthesized(self) -> tuple[str, ...]:
        return self._balanced("(", ")")

    def _braced(self) -> tuple[str, ...]:
        return self._balanced("{", "}")

    def _balanced(self, opening: str, closing: str) -> tuple[str, ...]:
        self.take(opening)
        start, depth = self.at, 1
        while depth:
            token = self.take()
            depth += (token == opening) - (token == closing)
        return self.tokens[start : self.at - 1]

    def primary(self) -> Tree:
        token = self.take()
        if token == "(":
            if self.peek() == "{":  # a GNU statement expression is not evaluated
                self.fail()
            inner = self.choice()
            self.take(")")
            return inner
        if token[0] == '"':
            text = token[1:-1]
            while self.peek()[:1] == '"':
                text += self.take()[1:-1]
            return ("string", _unescaped(text))
        if token[0] == "'":
            return ("number", _character(token))
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return ("number", _number(token))
        if token in ("offsetof", "__builtin_offsetof"):
            inner_tokens = list(self._parenthesized())
            comma = _first_comma(inner_tokens)
            return ("offsetof", tuple(inner_tokens[:comma]), tuple(inner_tokens[comma + 1 :]))
        if token == "__builtin_types_compatible_p":
            self._parenthesized()
            return ("number", 0)
        if not re.match(r"[A-Za-z_]", token):
            self.fail()
        return ("name", token)

    def postfix(self, left: Tree) -> Tree:
        while True:
            token = self.peek()
            if token == "[":
                self.take()
                inner = self.choice()
                self.take("]")
                left = ("index", left, inner)
            elif token in (".", "->"):
                self.take()
                left = ("member", left, self.take())
            elif token == "(":
                self.take()
                given: list[Tree] = []
                while self.peek() != ")":
                    given.append(self.choice())
                    if self.peek() == ",":
                        self.take()
                self.take(")")
                left = ("call", left, tuple(given))
            else:
                return left


def _first_comma(tokens: list[str]) -> int:
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token in ("(", "[", "{")) - (token in (")", "]", "}"))
        if token == "," and depth == 0:
            return i
    raise CatalogError(f"offsetof of {' '.join(tokens)[:60]!r} not understood")


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        return str(ast.literal_eval('"' + text.replace("\n", " ") + '"'))
    except (SyntaxError, ValueError):
        return text


def _character(token: str) -> int:
    text = _unescaped(token[1:-1])
    value = 0
    for character in text:
        value = value << 8 | ord(character)
    return value


def _number(token: str) -> int | float:
    text = token.rstrip("uUlL")
    try:
        if re.fullmatch(r"0[0-7]+", text):
            return int(text, 8)
        if re.fullmatch(r"0[bB][01]+|0[xX][0-9a-fA-F]+|\d+", text):
            return int(text, 0)
        return float(token.rstrip("fFlL"))
    except ValueError:
        raise CatalogError(f"number {token!r} not understood") from None


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise CatalogError("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "|": operator.or_,
    "^": operator.xor,
    "&": operator.and_,
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "<": lambda a, b: int(a < b),
    ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b),
    ">=": lambda a, b: int(a >= b),
    "<<": lambda a, b: a << b if 0 <= b < 128 else 0,
    ">>": lambda a, b: a >> b if 0 <= b < 128 else 0,
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": lambda a, b: a - b * _divide(a, b),
}


def operate(op: str, left: int, right: int) -> int:
    """Applies a binary operator, other than && and ||."""
    return _OPERATIONS[op](left, right)


def value(tree: Tree, other: Callable[[Tree], int]) -> int:
    """Evaluates a tree to an integer; names, sizes, casts and what else depends on declarations go to `other`.

    Raises
    ------
    CatalogError : not constant.
    """
    kind = tree[0]
    if kind == "number":
        if not isinstance(tree[1], int):
            raise CatalogError("a fraction is no integer")
        return tree[1]
    if kind == "unary":
        if tree[1] in ("*", "&"):
            return other(tree)
        inner = value(tree[2], other)
        return {"-": -inner, "+": inner, "!": int(not inner), "~": ~inner}[tree[1]]
    if kind == "binary":
        op = tree[1]
        left = value(tree[2], other)
        if op == "&&":
            return int(bool(left) and bool(value(tree[3], other)))
        if op == "||":
            return int(bool(left) or bool(value(tree[3], other)))
        return operate(op, left, value(tree[3], other))
    if kind == "choice":
        return value(tree[2] if value(tree[1], other) else tree[3], other)
    return other(tree)


def integer(tokens: list[str], name: Callable[[str], int]) -> int:
    """Evaluates an expression of numbers and names, as in `#if`.

    Raises
    ------
    CatalogError : not an expression, or one of other things.
    """

    def other(tree: Tree) -> int:
        if tree[0] == "name":
            return name(tree[1])
        raise CatalogError(f"{tree[0]} in a condition")

    return value(parse(tokens, lambda _: False), other)
