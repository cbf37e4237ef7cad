"""Initialisers of C as tokens: lists, designated members, strings, the symbols they refer to."""

from __future__ import annotations

import re

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions
from vmstate_tools.qemu_source.macros import split, stripped


def items(tokens: list[str]) -> list[list[str]] | None:
    """Splits a list in braces, also one behind a type in parentheses, into its items; None where it is no list."""
    tokens = stripped(tokens)
    while tokens and tokens[0] in ("(", "&"):
        if tokens[0] == "&":
            tokens = stripped(tokens[1:])
            continue
        depth = 0
        end = 0
        for end, token in enumerate(tokens):  # noqa: B007
            depth += (token == "(") - (token == ")")
            if depth == 0:
                break
        inner, rest = tokens[1:end], stripped(tokens[end + 1 :])
        tokens = rest if rest else stripped(inner)
        if rest and rest[0] != "{":
            return None
    if not tokens or tokens[0] != "{" or tokens[-1] != "}":
        return None
    return [item for item in split(tokens[1:-1]) if item]


def members(tokens: list[str]) -> dict[str, list[str]]:
    """Reads `{ .a = x, .b = y }`: member → tokens of its value. A member named by `a.b` keeps the dot.

    Raises
    ------
    CatalogError : no list, or one with values that name no member.
    """
    found: dict[str, list[str]] = {}
    listed = items(tokens)
    if listed is None:
        raise CatalogError(f"{text(tokens)[:60]!r} is no initialiser")
    for item in listed:
        if item[0] != "." or "=" not in item:
            if text(item) in ("0", "NULL") and len(listed) == 1:
                return {}
            raise CatalogError(f"{text(item)[:60]!r} names no member")
        at = item.index("=")
        found["".join(t for t in item[1:at] if t != " ")] = stripped(item[at + 1 :])
    return found


def text(tokens: list[str]) -> str:
    """Returns tokens as text without white space, but for the blanks between two words."""
    return re.sub(r"(?<!\w) | (?!\w)", "", "".join(tokens)).strip()


def string(tokens: list[str]) -> str | None:
    """Returns the string that tokens are; None where they are none (NULL, a variable)."""
    try:
        tree = expressions.parse(tokens)
    except CatalogError:
        return None
    return str(tree[1]) if tree[0] == "string" else None


def symbol(tokens: list[str]) -> str:
    """Returns the symbol that an address or a function is, without & and parentheses; '' for NULL."""
    words = [t for t in tokens if t not in (" ", "&", "(", ")")]
    if len(words) == 1 and re.fullmatch(r"[A-Za-z_]\w*", words[0]):
        return "" if words[0] == "NULL" else words[0]
    if words == ["0"] or not words:
        return ""
    return text(tokens)


def braced(source: str, at: int) -> str:
    """Returns what begins with the brace at a place, up to its partner."""
    depth = 0
    for match in re.compile(r"[{}]|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'").finditer(source, at):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0:
            return source[at : match.end()]
    raise CatalogError("a brace is not closed")
