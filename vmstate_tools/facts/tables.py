"""The tables of facts below `data/`, read as they stand: each cell is text."""

from __future__ import annotations

import csv
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
    path = data_path(folder, f"{name}.csv")
    packed = data_path(folder, f"{name}.csv.zst")
    if packed.exists():
        from vmstate_tools.source import zstd

        text = zstd.decompress(packed.read_bytes()).decode()
        lines = csv.reader(text.splitlines())
        columns = next(lines)
        return tuple([dict(zip(columns, line, strict=True)) for line in lines])
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            columns = next(lines)
            return tuple([dict(zip(columns, line, strict=True)) for line in lines])  # half the time of a DictReader
    except FileNotFoundError:
        raise CatalogError(f"the catalog has no {name}.csv ({path})") from None


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
