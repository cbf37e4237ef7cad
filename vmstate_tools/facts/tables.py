"""The tables of facts below `data/`, read as they stand: each cell is text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from functools import cache

from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.release import Release

Row = Mapping[str, str]


@cache
def rows(folder: str, name: str) -> tuple[Row, ...]:
    """Returns the rows of `data/FOLDER/NAME.csv`, or of `NAME.csv.zst` where that is it, column → cell.

    Raises
    ------
    CatalogError : there is no such table.
    """
    lines = csv.reader(io.StringIO(text(folder, name), newline=""))
    columns = next(lines)
    return tuple([dict(zip(columns, line, strict=True)) for line in lines])  # half the time of a DictReader


@cache
def text(folder: str, name: str) -> str:
    """Returns `data/FOLDER/NAME.csv`, or `NAME.csv.zst` where that is it, as text.

    Raises
    ------
    CatalogError : there is no such table.
    """
    path = data_path(folder, f"{name}.csv")
    packed = data_path(folder, f"{name}.csv.zst")
    if packed.exists():
        from vmstate_tools.source import zstd

        return zstd.decompress(packed.read_bytes()).decode()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise CatalogError(f"the catalog has no {name}.csv ({path})") from None


class Column:
    """The rows of a table by what stands in one of its columns.

    A few values are looked for in the text of the table, which takes a tenth of the time of reading it; for many, the
    whole table is read once.

    Raises
    ------
    CatalogError : there is no such table.
    """

    _FEW = 60

    def __init__(self, folder: str, name: str, column: str) -> None:
        self._folder, self._name, self._column = folder, name, column
        self._text = text(folder, name)
        self._columns = self._text.partition("\n")[0].rstrip("\r").split(",")
        self._found: dict[str, list[Row]] = {}
        self._whole = False

    def get(self, value: str) -> list[Row]:
        """Returns the rows that have a value there, [] where none has."""
        if not self._whole and len(self._found) >= self._FEW:
            self.names()
        if value not in self._found:
            if self._whole:
                return []
            self._found[value] = self._search(value)
        return self._found[value]

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and bool(self.get(value))

    def names(self) -> Iterable[str]:
        """Returns every value of the column."""
        if not self._whole:
            self._found = {}
            for row in rows(self._folder, self._name):
                self._found.setdefault(row[self._column], []).append(row)
            self._whole = True
        return self._found.keys()

    def _search(self, value: str) -> list[Row]:
        if not value or any(c in value for c in '",\r\n'):  # such a cell stands in quotes, or is looked for in vain
            return [row for row in rows(self._folder, self._name) if row[self._column] == value]
        whole, lines, at = self._text, [], 0
        before, behind = ("\n", ",") if self._columns[0] == self._column else (",", "")
        while (at := whole.find(f"{before}{value}{behind}", at)) >= 0:
            at += before == "\n"  # what is found stands in this line
            end = whole.find("\n", at)
            lines.append(whole[whole.rfind("\n", 0, at) + 1 : end if end >= 0 else len(whole)].rstrip("\r"))
            at = end if end >= 0 else len(whole)
        found = (dict(zip(self._columns, line, strict=True)) for line in csv.reader(lines))
        return [row for row in found if row[self._column] == value]


def holds(row: Row, release: Release) -> bool:
    """Tells whether a row holds in a release: not before its `since`, not after its `until` ("": still).

    A last release of two numbers (`9.2`) includes its stable releases.
    """
    until = row["until"]
    if until.count(".") == 1:
        return release.within(row["since"], None) and release.numbers[:2] <= Release(until).numbers[:2]
    return release.within(row["since"], until)


def holding(table: Iterable[Row], release: Release) -> list[Row]:
    """Returns the rows that hold in a release."""
    spans: dict[tuple[str, str], bool] = {}  # thousands of rows have a few dozen of them
    held = []
    for row in table:
        span = row["since"], row["until"]
        if span not in spans:
            spans[span] = holds(row, release)
        if spans[span]:
            held.append(row)
    return held
