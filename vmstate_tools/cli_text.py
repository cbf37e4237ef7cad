"""What commands print: lines, tables, JSON, complaints. Nothing here takes long to import."""

from __future__ import annotations

import os
import sys

from vmstate_tools.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


def say(*lines: str) -> None:
    for line in lines or ("",):
        sys.stdout.write(printable(line) + "\n")


def complain(problem: Exception | str) -> None:
    """One line on stderr."""
    if isinstance(problem, OSError) and problem.strerror:
        name = f"{problem.filename}: " if problem.filename is not None else ""
        problem = f"{name}{problem.strerror}"
    text = str(problem) or type(problem).__name__
    sys.stdout.flush()
    sys.stderr.write(f"vmstate: {printable(text)}\n")


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    import json

    json.dump(document, sys.stdout, indent=1, default=_plain)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    """What JSON has no type for: bytes as hex."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    raise TypeError(f"{type(value).__name__} in a JSON document")


def columns() -> int:
    """The terminal's width; 80 where there is none."""
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return 80


def wrapped(text: str, indent: int = 2) -> list[str]:
    """Text as indented lines that fit the terminal, broken between words."""
    space = " " * indent
    width = max(columns(), 20)
    lines = [space]
    for word in text.split():
        line = lines[-1] + ("" if lines[-1] == space else " ") + word
        if len(line) > width and lines[-1] != space:
            lines.append(space + word)
        else:
            lines[-1] = line
    return lines


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table that fits the terminal: columns called `>…` are numbers; these and `=…` stay whole, others are cut."""
    table = [[printable(cell) for cell in row] for row in rows]
    head = [name.lstrip(">=") for name in names]
    widths = [max(map(_width, column)) for column in zip(head, *table, strict=True)]
    excess = sum(widths) + 2 * (len(names) - 1) - columns()
    while excess > 0:  # from the widest that may be cut, until it is as wide as the next
        flexible = sorted((w for w, name in zip(widths, names, strict=True) if name[0] not in ">=" and w > 1))
        if not flexible:
            break
        widest, next_ = flexible[-1], max((w for w in flexible if w < flexible[-1]), default=1)
        among = [i for i, w in enumerate(widths) if w == widest and names[i][0] not in ">="]
        step = max(1, min(widest - next_, -(-excess // len(among))))
        for i in among:
            cut = min(step, max(excess, 0))
            widths[i] -= cut
            excess -= cut
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() and "NO_COLOR" not in os.environ else ("", "")
    right = [name[0] == ">" for name in names]
    out = [bold + _line(head, widths, right) + plain]
    out += [_line(row, widths, right) for row in table]
    sys.stdout.write("\n".join(out) + "\n")


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    for cell, width, numeric in zip(cells, widths, right, strict=True):
        if (space := width - _width(cell)) < 0:
            while _width(cell) > width - 1:
                cell = cell[: width - 1] if cell.isascii() else cell[:-1]
            space = width - 1 - _width(cell)
            cell += "…"
        parts.append(" " * space + cell if numeric else cell + " " * space)
    return "  ".join(parts).rstrip()


def _width(text: str) -> int:
    """Columns of a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
