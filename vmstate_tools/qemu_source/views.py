"""One C file as one configuration sees it: its active text, its macros, and what it declares at file scope."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.qemu_source import expressions, macros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.macros import Macro
    from vmstate_tools.qemu_source.targets import Target

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w*)((?:[^\n]*\\\n)*[^\n]*)\n?", re.MULTILINE)
_DEFINED = re.compile(r"defined\s*\(\s*(\w+)\s*\)|defined\s+(\w+)")
_BOUNDARY = re.compile(r"[{};]|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'")
_AGGREGATE = re.compile(r"\b(struct|union|enum)\b\s*(?:QEMU_\w+\s*|__attribute__\s*\(\(.*?\)\)\s*)?(\w*)[^;{}()=]*\Z")
_FUNCTION = re.compile(r"\b(\w+)\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)[\s\w]*\Z")
_VARIABLE = re.compile(r"([\w\s*]*?)\b(\w+)\s*((?:\[[^\]]*\]\s*)*)(?:__attribute__\s*\(\(.*\)\)\s*)?=\s*\Z")
_TAG = re.compile(r"\b(struct|union|enum)\s+(?:QEMU_\w+\s+)?(\w+)\s*(?:QEMU_PACKED\s*)?\{")
_ENUM = re.compile(r"\benum\b[\w\s]*\{([^{}]*)\}", re.DOTALL)
_ENUMERATOR = re.compile(r"(?:\A|,)\s*(\w+)")
_REGISTER = re.compile(r"\bREG\d*\s*\(\s*(\w+)\s*,")

#: How much of what stands before a brace is looked at, in characters.
_HEAD = 400


@dataclass(frozen=True, slots=True)
class Chunk:
    """A Chunk is a piece of a file's active text at file scope: one declaration, definition or use of a macro.

    `kind` is function, variable or other; `name` is the function's or the variable's, `type` what stands before it.
    """

    start: int
    end: int
    kind: str
    name: str
    type: str
    body: int


@dataclass
class View:
    """A file as one configuration sees it; lines are numbered as in the original.

    Attributes
    ----------
    text : the active lines without comments.
    own : name → its definitions, each with its place; None where the name was undefined there.
    includes : what is included, in order.
    """

    text: str
    own: dict[str, list[tuple[int, Macro | None]]]
    includes: list[str]
    asked: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def chunks(self) -> list[Chunk]:
        return list(chunks(self.text))

    @cached_property
    def variables(self) -> dict[str, Chunk]:
        return {c.name: c for c in self.chunks if c.kind == "variable"}

    @cached_property
    def functions(self) -> dict[str, Chunk]:
        return {c.name: c for c in self.chunks if c.kind == "function"}

    @cached_property
    def tags(self) -> dict[tuple[str, str], int]:
        """Returns (struct, union or enum, its tag) → where its definition begins."""
        return {(m[1], m[2]): m.start() for m in _TAG.finditer(self.text)}

    @cached_property
    def typedefs(self) -> dict[str, Chunk]:
        found: dict[str, Chunk] = {}
        for chunk in self.chunks:
            text = self.slice(chunk) if chunk.kind == "other" else ""
            start = text.find("typedef")
            if start >= 0 and "{" not in text[:start]:
                # A macro's use without a semicolon may stand before it.
                own = replace(chunk, start=chunk.start + start)
                for name in _typedef_names(text[start:]):
                    found.setdefault(name, own)
        return found

    @cached_property
    def enumerators(self) -> dict[str, int]:
        """Returns enumerator → where its enum begins."""
        found: dict[str, int] = {}
        for match in _ENUM.finditer(self.text):
            for item in _ENUMERATOR.finditer(re.sub(r"\([^()]*(?:\([^()]*\)[^()]*)*\)", "", match[1])):
                found.setdefault(item[1], match.start())
        return found

    @cached_property
    def registers(self) -> dict[str, int]:
        """Returns name of a register given by REG32 and its like (hw/registerfields.h) → where."""
        return {m[1]: m.start() for m in _REGISTER.finditer(self.text)}

    @cached_property
    def _lines(self) -> list[int]:
        return [m.start() for m in re.finditer("\n", self.text)]

    def slice(self, chunk: Chunk) -> str:
        return self.text[chunk.start : chunk.end]

    def line(self, place: int) -> int:
        """Returns the number of the line, from 1, that a place in the text is on."""
        return bisect_right(self._lines, place - 1) + 1

    def macro(self, name: str, place: int) -> tuple[bool, Macro | None]:
        """Tells whether the file itself says what a name stands for at a place, and what."""
        found: tuple[bool, Macro | None] = (False, None)
        for at, macro in self.own.get(name, ()):
            if at > place and found[0]:
                break
            found = (True, macro)
        return found


class SourceFile:
    """One file's text, whatever the configuration; its views are made at need and shared between configurations."""

    def __init__(self, text: str) -> None:
        self.text = _without_comments(text)
        self._views: list[View] = []

    @cached_property
    def parts(self) -> list[tuple[str, str, int, int]]:
        """Returns (directive or '' for text, its argument, start, end), in order."""
        found: list[tuple[str, str, int, int]] = []
        last = 0
        for match in _DIRECTIVE.finditer(self.text):
            if match.start() > last:
                found.append(("", "", last, match.start()))
            found.append((match[1], match[2].replace("\\\n", " ").strip(), match.start(), match.end()))
            last = match.end()
        if last < len(self.text):
            found.append(("", "", last, len(self.text)))
        return found

    def view(self, target: Target) -> View:
        """Returns the file as a target sees it."""
        for view in self._views:
            if all(target.value(name) == value for name, value in view.asked.items()):
                return view
        view = _view(self, target)
        self._views.append(view)
        return view


def _without_comments(text: str) -> str:
    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return " " + "\n" * found.count("\n") if found[0] == "/" else found

    return _COMMENT.sub(blank, text)


def _view(file: SourceFile, target: Target) -> View:
    out: list[str] = []
    length = 0
    own: dict[str, list[tuple[int, Macro | None]]] = {}
    includes: list[str] = []
    asked: dict[str, str | None] = {}
    stack: list[tuple[bool, bool]] = []  # enclosing text is active; some branch was taken
    active = True

    def value(name: str) -> str | None:
        if name in own:
            macro = own[name][-1][1]
            return "".join(macro.body) if macro is not None and macro.params is None else None if macro is None else ""
        if name not in asked:
            asked[name] = target.value(name)
        return asked[name]

    def holds(word: str, rest: str) -> bool:
        if word == "if":
            return _condition(rest, value)
        name = rest.split()[0] if rest else ""
        return (value(name) is not None) == (word == "ifdef")

    for word, rest, start, end in file.parts:
        newlines = file.text.count("\n", start, end)
        piece = "\n" * newlines
        if word == "":
            piece = file.text[start:end] if active else piece
        elif word in ("if", "ifdef", "ifndef"):
            yes = active and holds(word, rest)
            stack.append((active, yes))
            active = yes
        elif word in ("elif", "else", "endif") and stack:
            outer, taken = stack.pop()
            if word == "endif":
                active = outer
            else:
                active = outer and not taken and (word == "else" or holds("if", rest))
                stack.append((outer, taken or active))
        elif word == "define" and active:
            macro = macros.definition(rest)
            if macro is not None:
                own.setdefault(macro.name, []).append((length, macro))
        elif word == "undef" and active and rest:
            own.setdefault(rest.split()[0], []).append((length, None))
        elif word == "include" and active and rest[:1] in ('"', "<"):
            includes.append(rest[1:].split('"' if rest[0] == '"' else ">")[0])
        out.append(piece)
        length += len(piece)
    return View("".join(out), own, includes, asked)


def _condition(text: str, value: object) -> bool:
    assert callable(value)
    text = _DEFINED.sub(lambda m: str(int(value(m[1] or m[2]) is not None)), text)

    def number(name: str, depth: int = 0) -> int:
        body = value(name)
        if not body or depth > 8:
            return 0
        try:
            return expressions.integer(macros.tokenize(body), lambda n: number(n, depth + 1))
        except CatalogError:
            return 0

    # What a condition calls (GLIB_CHECK_VERSION, __has_include, …) is the host's.
    text = re.sub(r"\b[A-Za-z_]\w*\s*\([^()]*\)", "0", text)
    try:
        return expressions.integer(macros.tokenize(text), number) != 0
    except CatalogError:
        return False


def chunks(text: str) -> Iterator[Chunk]:
    """Splits text into what stands at file scope."""
    depth, start = 0, 0
    kind, name, type_, body = "other", "", "", 0
    ends_at_brace = False
    for match in _BOUNDARY.finditer(text):
        mark = match[0]
        if mark == "{":
            if depth == 0 and kind == "other":
                head = text[max(start, match.start() - _HEAD) : match.start()]
                kind, name, type_ = _head(head)
                body = match.start()
                ends_at_brace = kind == "function"
                if kind == "extern":  # extern "C" {: what is inside stands at file scope
                    kind, start = "other", match.end()
                    continue
            depth += 1
        elif mark == "}":
            if depth:
                depth -= 1
            if depth == 0 and ends_at_brace:
                yield Chunk(start, match.end(), kind, name, type_, body)
                start = match.end()
                kind, ends_at_brace = "other", False
        elif mark == ";" and depth == 0:
            if kind == "other" and body == 0:
                equals = text.find("=", start, match.start())
                found = _VARIABLE.search(text[max(start, equals - _HEAD) : equals + 1]) if equals > 0 else None
                if found is not None:
                    kind, name, type_, body = "variable", found[2], found[1], equals + 1
            yield Chunk(start, match.end(), kind, name, type_, body)
            start, body = match.end(), 0
            kind, name, type_ = "other", "", ""
            continue
        if depth == 0 and not ends_at_brace and kind == "other" and mark == "}":
            body = body or match.start()
    if text[start:].strip():
        yield Chunk(start, len(text), "other", "", "", 0)


def _head(head: str) -> tuple[str, str, str]:
    """Tells from what stands before a brace at file scope what begins there: kind, name, type."""
    if head.rstrip().endswith("="):
        found = _VARIABLE.search(head)
        return ("variable", found[2], found[1]) if found is not None else ("other", "", "")
    if re.search(r"\bextern\s*\"C\"\s*\Z", head):
        return "extern", "", ""
    if _AGGREGATE.search(head):
        return "other", "", ""
    found = _FUNCTION.search(head)
    if found is not None:
        return "function", found[1], ""
    return "other", "", ""


def _typedef_names(text: str) -> list[str]:
    """Names that a typedef gives."""
    tail = text.rsplit("}", 1)[-1] if "}" in text else text.removeprefix("typedef")
    if "{" not in text and (braceless := re.match(r"\s*(?:struct|union|enum)\s+(\w+)\s+(\w+)\s*;", tail)):
        return [braceless[2]]
    tail = re.sub(r"__attribute__\s*\(\(.*?\)\)|\[[^\]]*\]|QEMU_\w+\s*(?:\([^()]*\))?", "", tail.rstrip("; \n"))
    pointer = re.search(r"\(\s*\*?\s*(\w+)\s*\)\s*\(", tail)
    if pointer is not None:
        return [pointer[1]]
    made = re.match(r"\s*[A-Z_]{4,}\s*\([^()]*\)\s*(\w+)\s*\Z", tail)  # by a macro like QTAILQ_HEAD
    if made is not None:
        return [made[1]]
    function = re.match(r"[\w\s*]*?\b(\w+)\s*\(", tail)
    if function is not None:
        return [function[1]]
    return [m[-1] for part in tail.split(",") if (m := re.findall(r"\w+", part))]
