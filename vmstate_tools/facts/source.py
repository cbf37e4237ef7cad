"""What QEMU's source says of every device and machine type in each release x.y.0: the tables of `data/source`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import tables
from vmstate_tools.facts.tables import Column, Row
from vmstate_tools.release import Release

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = {"description", "position", "version", "minimum", "minimum_old", "size", "num", "start", "struct_version"}
_NUMBERS |= {"bit", "from_last"}
_YES_OR_NO = {"abstract", "unmigratable", "early_setup"}


def rows(table: str) -> tuple[Row, ...]:
    """Returns the rows of `data/source/TABLE.csv.zst`, column → cell, all text.

    Raises
    ------
    CatalogError : there is no such table.
    """
    return tables.rows("source", table)


@cache
def releases() -> tuple[str, ...]:
    """Returns the releases x.y.0 that the tables are of, oldest first."""
    return tuple(row["release"] for row in rows("releases"))


@cache
def _places() -> dict[str, int]:
    return {release: at for at, release in enumerate(releases())}


@cache
def place(release: str | Release) -> int:
    """Returns the place of a release among `releases`; a stable release has the place of its x.y.0.

    Raises
    ------
    CatalogError : the tables are not of that release.
    """
    name = f"{Release(release).series}.0"
    if name not in _places():
        raise CatalogError(f"data/source has no QEMU {name}: its releases are {releases()[0]} to {releases()[-1]}")
    return _places()[name]


def span(row: Row) -> tuple[int, int]:
    """Returns the places of the first release that a row holds in, and of the first after that in which it does not."""
    return _places()[row["since"]], _places()[row["until"]] + 1 if row["until"] else len(releases())


def holding(found: Iterable[Row], at: int) -> list[Row]:
    """Returns the rows that hold in the release of a place."""
    return [row for row in found if span(row)[0] <= at < span(row)[1]]


def edges(found: Iterable[Row]) -> list[int]:
    """Returns the places of the releases at which a row begins to hold or no longer holds, but for the first and the
    end.
    """
    return sorted({at for row in found for at in span(row)} - {0, len(releases())})


@cache
def by(table: str, column: str) -> Column:
    """Returns the rows of a table by what stands in one of its columns.

    Raises
    ------
    CatalogError : there is no such table.
    """
    return Column("source", table, column)


def frame(found: Iterable[Row], columns: Iterable[str] = ()) -> pd.DataFrame:
    """Returns rows as a DataFrame.

    Numbers are Int64 (NA: not understood), yes or no is bool, since and until are `Release` (until: None where a row
    holds in the newest), all else is text.
    """
    import pandas as pd

    made = pd.DataFrame([dict(row) for row in found], columns=list(columns) or None)
    for name in made.columns:
        cells = made[name]
        if name in ("since", "until"):
            made[name] = pd.Series([Release(c) if c else None for c in cells], index=made.index, dtype=object)
        elif name in _YES_OR_NO:
            made[name] = cells == "1"
        elif name in _NUMBERS:
            made[name] = pd.to_numeric(cells, errors="coerce").astype("Int64")
        else:
            made[name] = cells.astype("str")
    return made


def table_frame(table: str, found: Iterable[Row] | None = None, release: str | None = None) -> pd.DataFrame:
    """Returns rows of a table as `frame` does, all its rows by default; with `release`, the rows that hold in it."""
    chosen = list(rows(table) if found is None else found)
    if release is not None:
        chosen = holding(chosen, place(release))
    return frame(chosen, rows(table)[0].keys())


def descriptions(release: str | None = None) -> pd.DataFrame:
    """Returns every form of every VMStateDescription of QEMU's devices; with `release`, that release's.

    Returns
    -------
    A row per form: description (Int64, its number), name, file, symbol, targets, since, until (`Release`), version,
    minimum, minimum_old (Int64), unmigratable, early_setup (bool), priority, needed, hooks.

    Raises
    ------
    CatalogError : the tables are not of that release.
    """
    return table_frame("descriptions", release=release)


def fields(name: str, release: str | None = None) -> pd.DataFrame:
    """Returns the fields of the descriptions of a name, in stream order, of each form or of those of a release.

    Returns
    -------
    A row per field: description and position (Int64), name, type, info, vmsd, flags, size in bytes, num, start,
    version, struct_version (Int64), num_member, size_member, test, state, and the form's file, targets, since, until.

    Raises
    ------
    CatalogError : the tables are not of that release, or no description has that name.
    """
    forms = by("descriptions", "name").get(name)
    if not forms:
        raise CatalogError(f"no description is called {name!r} in QEMU {releases()[0]} to {releases()[-1]}")
    if release is not None:
        forms = holding(forms, place(release))
    whole = [
        {**row, **{key: form[key] for key in ("file", "targets", "since", "until")}}
        for form in forms
        for row in by("fields", "description").get(form["description"])
    ]
    return frame(whole, [*rows("fields")[0], "file", "targets", "since", "until"])


def types(release: str | None = None) -> pd.DataFrame:
    """Returns the QOM types: name, parent, abstract (bool), file, symbol, targets, the descriptions of their class,
    the lists of properties it adds, PCI ids, since, until (`Release`).

    Raises
    ------
    CatalogError : the tables are not of that release.
    """
    return table_frame("types", release=release)


def registrations(release: str | None = None) -> pd.DataFrame:
    """Returns the calls that register a section: file, function, how, device, idstr, instance, version, alias, vmsd,
    targets, since, until (`Release`).

    Raises
    ------
    CatalogError : the tables are not of that release.
    """
    return table_frame("registrations", release=release)


def machine_types(release: str | None = None) -> pd.DataFrame:
    """Returns the machine types with the compatibility lists that they apply: machine, file, targets, list, from_last
    (Int64; 1: applied last, which wins), since, until (`Release`). A machine type without a list has one row.

    Raises
    ------
    CatalogError : the tables are not of that release.
    """
    return table_frame("machine_lists", release=release)


def problems(release: str | None = None) -> pd.DataFrame:
    """Returns what was not understood in the source: file, what, problem, since, until (`Release`).

    Raises
    ------
    CatalogError : the tables are not of that release.
    """
    return table_frame("problems", release=release)
