"""What commands print: lines, tables, JSON, CSV, complaints. Nothing here takes long to import."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from vmstate_tools.errors import plain_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, TextIO

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def standard_output() -> TextIO:
    """Returns standard output. Raises OSError where whoever called the command closed it."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    return sys.stdout


def say(*lines: str) -> None:
    """Prints lines, an empty one where none is given; characters that control a terminal become escapes."""
    out = standard_output()
    for line in lines or ("",):
        out.write(printable(line) + "\n")


def complain(problem: Exception | str) -> None:
    """Prints one line on stderr."""
    if isinstance(problem, OSError) and problem.strerror:
        name = f"{problem.filename}: " if problem.filename is not None else ""
        problem = f"{name}{problem.strerror}"
    text = str(problem) or type(problem).__name__
    if sys.stdout is not None:
        sys.stdout.flush()
    if sys.stderr is not None:
        sys.stderr.write(f"vmstate: {printable(text)}\n")


def print_json(document: Any) -> None:
    """Prints one JSON document."""
    standard_output().write(json_text(document, indent=1) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON, in ASCII; bytes as hex digits, and names of files that are not UTF-8 as `plain_text`."""
    import json

    text = json.dumps(value, indent=indent, default=_plain)
    return text if "\\ud" not in text else json.dumps(_without_surrogates(value), indent=indent, default=_plain)


def _without_surrogates(value: Any) -> Any:
    """Returns the value with each text as `plain_text`: half a surrogate pair is no JSON for most readers."""
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_surrogates(each) for each in value]
    return plain_text(value) if isinstance(value, str) else value


def csv_text(rows: Iterable[Iterable[Any]], *, for_spreadsheet: bool = False) -> str:
    """Returns rows as CSV, lines ended by a newline alone; None is an empty cell.

    With `for_spreadsheet`, text that a spreadsheet would take for a formula gets a `'` before it.
    """
    import csv
    import io

    if for_spreadsheet:
        rows = ([_no_formula(cell) for cell in row] for row in rows)
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _plain(value: Any) -> Any:
    """Returns what stands in JSON for a value that JSON has no type for: the hex digits of bytes."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    raise TypeError(f"{type(value).__name__} in a JSON document")


def columns() -> int:
    """Returns the terminal's width in characters; 80 where there is none."""
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):
        return 80


def wrapped(text: str, indent: int = 2) -> list[str]:
    """Returns text as indented lines that fit the terminal, broken between words."""
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
    """Prints rows as `print_columns` does."""
    print_columns(names, list(zip(*rows, strict=True)) or [()] * len(names))


def print_columns(names: Sequence[str], columns_: Sequence[Sequence[str]]) -> None:
    """Prints a table that fits the terminal.

    A column whose name begins with `>` holds numbers, and is flush right; it and one whose name begins with `=` stay
    whole. Cells of other columns are cut where the terminal is too narrow.
    """
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
    form = "  ".join(form for form, _ in fitted)
    lines = [(form % row).rstrip() for row in zip(*(cells for _, cells in fitted), strict=True)]
    out = standard_output()
    if out.isatty() and "NO_COLOR" not in os.environ:
        lines[0] = f"\033[1m{lines[0]}\033[0m"
    out.write("\n".join(lines) + "\n")


class _Column:
    """A column of a table with its head; its cells are taken all at once where each character is one column wide."""

    def __init__(self, head: str, cells: Sequence[str]) -> None:
        self.cells = [head, *cells]
        together = "".join(self.cells)
        if not together.isprintable():
            self.cells = list(map(printable, self.cells))
        self.narrow = together.replace("…", "").isascii()
        self.width = max(map(len if self.narrow else _width, self.cells))

    def fitted(self, width: int, right: bool) -> tuple[str, list[str]]:
        """Returns the column's part of a `%` format, and its cells, none of which is wider than `width`."""
        cells = self.cells
        if self.narrow:
            if self.width > width:
                cells = [cell if len(cell) <= width else cell[: width - 1] + "…" for cell in cells]
            return f"%{'' if right else '-'}{width}s", cells
        if self.width > width:
            cells = [_cut(cell, width) for cell in cells]
        spaces = [" " * (width - _width(cell)) for cell in cells]
        return "%s", [space + cell if right else cell + space for cell, space in zip(cells, spaces, strict=True)]


def _cut(text: str, width: int) -> str:
    """Returns the text, or as much of its beginning as fits into `width` columns with an ellipsis behind it."""
    if _width(text) <= width:
        return text
    if text.isascii():
        return text[: width - 1] + "…"
    while _width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _width(text: str) -> int:
    """Returns how many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
