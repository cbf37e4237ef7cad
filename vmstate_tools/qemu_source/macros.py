"""Macros of C: tokens, definitions, and the expansion of a piece of text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from vmstate_tools.errors import CatalogError

#: Finds the macro of a name where one is visible.
Lookup = Callable[[str], "Macro | None"]

_TOKEN = re.compile(
    r"\s+|[A-Za-z_]\w*|\.?\d(?:[eEpP][+-]|[\w.])*|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
    r"|->|\+\+|--|<<=|>>=|<<|>>|[<>=!]=|&&|\|\||##|\.\.\.|[-+*/%&|^]=|.",
    re.DOTALL,
)
_DEFINITION = re.compile(r"\s*([A-Za-z_]\w*)(\(([^)]*)\))?(.*)", re.DOTALL)
_WORDS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")


@dataclass(frozen=True, slots=True)
class Macro:
    """A `#define`: its parameters (None where it takes none) and the tokens it stands for."""

    name: str
    params: tuple[str, ...] | None
    variadic: str
    body: tuple[str, ...]


def tokenize(text: str) -> list[str]:
    """Splits text into tokens; white space between two tokens is one token of a single blank."""
    return [token if token[0] > " " else " " for token in _TOKEN.findall(text)]


@lru_cache(maxsize=200_000)
def definition(text: str) -> Macro | None:
    """Reads what follows `#define`; None where that is no definition."""
    match = _DEFINITION.match(text)
    if match is None:
        return None
    name, given, inner, rest = match.groups()
    params: tuple[str, ...] | None = None
    variadic = ""
    if given is not None:
        names = [p.strip() for p in inner.split(",") if p.strip()]
        if names and names[-1].endswith("..."):
            variadic = names.pop().removesuffix("...").strip() or "__VA_ARGS__"
        params = tuple(names)
    body = re.sub(r"\s*##\s*", "##", rest.strip())
    return Macro(name, params, variadic, tuple(tokenize(body)))


def expand(tokens: list[str], lookup: Lookup, hidden: frozenset[str] = frozenset()) -> list[str]:
    """Expands every macro in `tokens`.

    Raises
    ------
    CatalogError : a macro is given another number of arguments than it takes.
    """
    out: list[str] = []
    at, end = 0, len(tokens)
    while at < end:
        token = tokens[at]
        at += 1
        macro = lookup(token) if token[0] in _WORDS and token not in hidden else None
        while macro is not None:
            name = macro.name
            if macro.params is None:
                body = _joined(macro.body, {}, {})
            else:
                call = arguments(tokens, at)
                if call is None:
                    break
                given, at = call
                body = _substituted(macro, given, lookup, hidden)
            out += expand(body, lookup, hidden | {name})
            # What an expansion ends in may be the name of a macro whose arguments follow in the text.
            macro = None
            if out and at < end and tokens[at] in ("(", " "):
                last = out[-1]
                follow = lookup(last) if last[0] in _WORDS and last not in hidden and last != name else None
                if follow is not None and follow.params is not None and arguments(tokens, at) is not None:
                    out.pop()
                    token, macro = last, follow
            token = ""
        if token:
            out.append(token)
    return out


def arguments(tokens: list[str], at: int) -> tuple[list[list[str]], int] | None:
    """Splits the arguments in parentheses at `at`; None where none follow. The second value is where they end."""
    end = len(tokens)
    while at < end and tokens[at] == " ":
        at += 1
    if at >= end or tokens[at] != "(":
        return None
    depth, start = 0, at + 1
    given: list[list[str]] = []
    for i in range(at, end):
        token = tokens[i]
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
            if depth == 0:
                given.append(stripped(tokens[start:i]))
                return given, i + 1
        elif token == "," and depth == 1:  # in C, braces and brackets protect no comma
            given.append(stripped(tokens[start:i]))
            start = i + 1
    return None


def closing(text: str, at: int) -> int:
    """Returns the place behind the parenthesis that closes the one at a place; 0 where none does."""
    depth = 0
    for match in re.compile(r"[()]|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'").finditer(text, at):
        depth += (match[0] == "(") - (match[0] == ")")
        if depth == 0:
            return match.end()
    return 0


def stripped(tokens: list[str]) -> list[str]:
    """Returns the tokens without the white space around them."""
    start, end = 0, len(tokens)
    while start < end and tokens[start] == " ":
        start += 1
    while end > start and tokens[end - 1] == " ":
        end -= 1
    return tokens[start:end]


def parts_at(mark: str, tokens: list[str]) -> list[list[str]]:
    """Returns the tokens between the marks that stand in no bracket; the last part is what follows the last mark."""
    parts: list[list[str]] = []
    depth, start = 0, 0
    for i, token in enumerate(tokens):
        if token in ("(", "[", "{"):
            depth += 1
        elif token in (")", "]", "}"):
            depth -= 1
        elif token == mark and depth == 0:
            parts.append(tokens[start:i])
            start = i + 1
    return [*parts, tokens[start:]]


def split(tokens: list[str]) -> list[list[str]]:
    """Splits tokens at the commas that stand in no bracket; white space around the parts is dropped."""
    return [stripped(part) for part in parts_at(",", tokens)]


def _substituted(macro: Macro, given: list[list[str]], lookup: Lookup, hidden: frozenset[str]) -> list[str]:
    params = macro.params or ()
    if not params and not macro.variadic and given == [[]]:
        given = []
    if macro.variadic:
        rest: list[str] = []
        for i, argument in enumerate(given[len(params) :]):
            rest += ([",", " "] if i else []) + argument
        given = [*given[: len(params)], rest]
        params = (*params, macro.variadic)
    if len(given) != len(params):
        raise CatalogError(f"{macro.name} takes {len(params)} arguments, {len(given)} given")
    raw = dict(zip(params, given, strict=True))
    if macro.variadic == "__VA_ARGS__" or "__VA_OPT__" not in macro.body:
        expanded: dict[str, list[str]] = {}
        needed = set(macro.body) & raw.keys()
        for name in needed:
            expanded[name] = expand(raw[name], lookup, hidden)
        return _joined(macro.body, raw, expanded)
    return _joined(macro.body, raw, {name: expand(tokens, lookup, hidden) for name, tokens in raw.items()})


def _joined(body: tuple[str, ...], raw: dict[str, list[str]], expanded: dict[str, list[str]]) -> list[str]:
    """Puts arguments in place of parameters; # makes a string, ## joins two tokens."""
    if not raw and "##" not in body:
        return list(body)
    out: list[str] = []
    at, end = 0, len(body)
    while at < end:
        token = body[at]
        at += 1
        if token == "#" and raw:
            while at < end and body[at] == " ":
                at += 1
            if at < end and body[at] in raw:
                out.append(_string(raw[body[at]]))
                at += 1
            else:
                out.append(token)
        elif token == "##" and at < end:
            right = list(raw[body[at]]) if body[at] in raw else [body[at]]
            at += 1
            # GNU: a comma before an empty variadic argument goes with it.
            if out and out[-1] == "," and not right:
                out.pop()
            elif out and right and out[-1] not in (",", " "):
                out[-1] += right.pop(0)
                out += right
            else:
                out += right
        elif token in raw:
            out += raw[token] if at < end and body[at] == "##" else expanded[token]
            if not raw[token] and at < end and body[at] == "##":
                out.append(" ")
        else:
            out.append(token)
    return out


def _string(tokens: list[str]) -> str:
    text = "".join(t.replace("\\", "\\\\").replace('"', '\\"') if t[0] in "\"'" else t for t in tokens)
    return f'"{text}"'
