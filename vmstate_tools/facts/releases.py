"""The releases in the catalog: `data/catalog/releases.csv`, from 0.10 on."""

from __future__ import annotations

from functools import cache, lru_cache

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts.tables import Row, holding, rows
from vmstate_tools.release import Release


@cache
def by_release() -> dict[Release, Row]:
    """Returns the row of each release, oldest first: release, date, commit, kind, families_as, fields_as."""
    return {Release(row["release"]): row for row in rows("catalog", "releases")}


def mainline() -> list[str]:
    """Returns the names of all releases that are neither stable ones nor the development state, oldest first."""
    return [row["release"] for row in rows("catalog", "releases") if row["kind"] == "release"]


@lru_cache(maxsize=1024)
def resolve(release: str, nearest: bool = False) -> str:
    """Returns the catalogued release that answers for a given one.

    A stable release that is not catalogued (its source was not at hand, or it is newer) is answered by the
    newest catalogued one before it in its series: `7.2.21` by `7.2.0`.

    Parameters
    ----------
    release : `2.7`, `2.7.0` or `v2.7.0`.
    nearest : for a series that is not catalogued, take the newest release before it instead of failing.

    Raises
    ------
    CatalogError : the text names no release, or one of a series that the catalog lacks.
    """
    wanted, known = Release(release), by_release()
    if wanted in known:
        return known[wanted]["release"]
    older = [r for r in known if r <= wanted and known[r]["kind"] != "development"]
    series = [r for r in older if r.series == wanted.series]
    if series:
        return known[max(series)]["release"]
    if nearest and older:
        return known[max(older)]["release"]
    ends = f"{known[min(known)]['release']} to {known[max(known)]['release']}" if known else "nothing"
    raise CatalogError(f"QEMU {release} is not in the catalog, which covers {ends}")


def expect_release(release: str) -> None:
    """Accepts a release that QEMU had, and one that is newer than the catalog.

    Raises
    ------
    CatalogError : QEMU never had such a release.
    """
    if Release(release) < max(by_release()):
        resolve(release)


@cache
def rows_at(name: str, release: str) -> tuple[Row, ...]:
    """Returns the rows of `data/catalog/NAME.csv` that hold in a catalogued release."""
    return tuple(holding(rows("catalog", name), Release(release)))
