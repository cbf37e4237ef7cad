"""What commands print: lines, tables, JSON, complaints. Nothing here takes long to import."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from vmstate_tools.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


# Arrays of more values than this are one row of a table.
FOLD = 64


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
    for word in text.split(" "):
        line = lines[-1] + ("" if lines[-1] == space else " ") + word
        if len(line) > width and lines[-1] != space:
            lines.append(space + word)
        else:
            lines[-1] = line
    return [line.rstrip() for line in lines]


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table that fits the terminal: columns called `>…` are numbers; these and `=…` stay whole, others are cut."""
    print_columns(names, list(zip(*rows, strict=True)) or [()] * len(names))


def print_columns(names: Sequence[str], columns_: Sequence[Sequence[str]]) -> None:
    """The same, column by column."""
    cells = [_Column(name.lstrip(">="), column) for name, column in zip(names, columns_, strict=True)]
    widths = [column.width for column in cells]
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
    fitted = [c.fitted(w, n[0] == ">") for c, w, n in zip(cells, widths, names, strict=True)]
    lines = [*map(str.rstrip, map("  ".join, zip(*fitted, strict=True)))]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        lines[0] = f"\033[1m{lines[0]}\033[0m"
    sys.stdout.write("\n".join(lines) + "\n")


class _Column:
    """A column of a table, its head first; all at once where nothing in it is out of the ordinary."""

    def __init__(self, head: str, cells: Sequence[str]) -> None:
        self.cells = [head, *cells]
        together = "".join(self.cells)
        if not together.isprintable():
            self.cells = list(map(printable, self.cells))
        self.narrow = together.replace("…", "").isascii()
        self.width = max(map(len if self.narrow else _width, self.cells))

    def fitted(self, width: int, right: bool) -> list[str]:
        cells = self.cells
        if self.narrow:
            if self.width > width:
                cells = [cell if len(cell) <= width else cell[: width - 1] + "…" for cell in cells]
            return [*map(str.rjust if right else str.ljust, cells, [width] * len(cells))]
        if self.width > width:
            cells = [_cut(cell, width) for cell in cells]
        spaces = [" " * (width - _width(cell)) for cell in cells]
        return [space + cell if right else cell + space for cell, space in zip(cells, spaces, strict=True)]


def _cut(text: str, width: int) -> str:
    """At most so wide, with an ellipsis where something is missing."""
    if _width(text) <= width:
        return text
    if text.isascii():
        return text[: width - 1] + "…"
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _width(text: str) -> int:
    """Columns of a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
