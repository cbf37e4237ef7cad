"""What of a virtio device travels outside VMState descriptions: hooks of its class, and what functions write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from vmstate_tools.qemu_source.devices import class_functions, types

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.qemu_source.layout import Layout
    from vmstate_tools.qemu_source.program import Scope

_HOOK = re.compile(
    r"->\s*((?:save|load)(?:_\w+)?|has_extra_state|has_variable_vring_alignment|(?:pre|post)_(?:save|load))"
    r"\s*=\s*(\w+)\s*;"
)
_TAKES_FILE = re.compile(r"\bQEMUFile\s*\*\s*(\w+)")
_STEP = re.compile(
    r"(?P<word>\b(?:if|for|while|else|switch)\b)|(?P<brace>[{};])"
    r"|(?P<call>(?:->\s*)?\b[A-Za-z_]\w*)\s*\((?=(?P<arguments>(?:[^();]|\((?:[^()]|\([^()]*\))*\))*)\))"
)
_READS = re.compile(r"\bqemu_get_\w+\s*\(|load\w*\s*\(")
_COMMA = re.compile(r",(?![^()]*\))")
_CHECKS = frozenset(("qemu_file_get_error", "sizeof", "offsetof", "ARRAY_SIZE", "qemu_fflush"))


class VirtioHook(NamedTuple):
    """A function or description that a class of a virtio device or transport names for its state."""

    device: str
    file: str
    hook: str
    symbol: str


class VirtioWrite(NamedTuple):
    """One step of a function that writes to the stream.

    Attributes
    ----------
    type : `be32`, `buffer` and so on for what qemu_put_… writes; `call` for a function that is handed the stream.
    member : the variable or member written, its last name; for a call, the function's name, or the description's that
        vmstate_save_state writes.
    inside : the statements around it, from outside in: `for`, `if`, `else`, …
    """

    file: str
    function: str
    position: str
    type: str
    member: str
    inside: str


def hooks(scope: Scope, layout: Layout) -> Iterator[VirtioHook]:
    """Yields the hooks for state of the virtio classes of one file, device by device."""
    for type_ in types(scope, layout):
        if not type_.name:
            continue
        if type_.virtio_vmsd:
            yield VirtioHook(type_.name, scope.path, "vmsd", type_.virtio_vmsd)
        for _, source, _ in class_functions(scope, type_.class_init):
            for match in _HOOK.finditer(source):
                yield VirtioHook(type_.name, scope.path, match[1], match[2])


def writes(scope: Scope) -> Iterator[VirtioWrite]:
    """Yields what the functions of one file that take a stream write to it, in order."""
    for name, chunk in scope.view.functions.items():
        source = scope.view.slice(chunk)
        body = source.find("{", chunk.body - chunk.start)
        stream = _TAKES_FILE.search(source[:body])
        if stream is None or "load" in name or _READS.search(source, body):
            continue
        for position, (kind, member, inside) in enumerate(_steps(source[body:], stream[1]), 1):
            yield VirtioWrite(scope.path, name, str(position), kind, member, inside)


def _steps(source: str, stream: str) -> Iterator[tuple[str, str, str]]:
    blocks: list[str] = []  # of each open brace: the statement it belongs to, '' for none
    waiting: list[str] = []  # statements whose block has not begun
    for match in _STEP.finditer(source):
        if match["word"]:
            if not (match["word"] == "if" and waiting and waiting[-1] == "else"):
                waiting.append(match["word"])
        elif match["brace"] == "{":
            blocks.append(" ".join(waiting))
            waiting = []
        elif match["brace"] == "}":
            if blocks:
                blocks.pop()
            waiting = []
        elif match["brace"] == ";":
            if not _in_parentheses(source, match.start()):
                waiting = []
        else:
            given = [a.strip() for a in _COMMA.split(match["arguments"])]
            if stream in given and match["call"].lstrip("-> ") not in _CHECKS:
                inside = " ".join(filter(None, [*blocks, *waiting]))
                yield (*_written(match["call"].lstrip("-> "), [a for a in given if a != stream]), inside)


def _in_parentheses(source: str, at: int) -> bool:
    """Tells whether a semicolon is one of a `for`."""
    line = source[source.rfind("\n", 0, at) + 1 : at]
    return line.count("(") > line.count(")")


def _written(function: str, arguments: list[str]) -> tuple[str, str]:
    if function.startswith("qemu_put_"):
        kind = function.removeprefix("qemu_put_")
        at = -1 if kind == "virtqueue_element" else 0  # which is handed the device first, since 2.12
        return kind, _last_name(arguments[at] if arguments else "")
    if function.startswith("vmstate_save"):
        return "description", _last_name(arguments[0] if arguments else "")
    return "call", function


def _last_name(text: str) -> str:
    text = re.sub(r"\[[^\]]*\]|\(\s*\w+\s*\*+\s*\)", "", text)
    called = re.match(r"\w+(?=\()", text)
    names = re.findall(r"[A-Za-z_]\w*", text)
    return called[0] if called is not None else names[-1] if names else text
