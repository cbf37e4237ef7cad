"""The tables of `data/source` as pandas frames: every device of every release x.y.0."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from vmstate_tools.facts import device_history
from vmstate_tools.facts.tables import holding, rows
from vmstate_tools.release import Release

if TYPE_CHECKING:
    import pandas as pd

#: Columns of numbers; an empty cell is missing.
_NUMBERS = frozenset(
    "description position size num start version minimum minimum_old struct_version from_last".split()  # noqa: SIM905
)
_WORDS = frozenset("type info flags targets how driver list machine file".split())  # noqa: SIM905
#: Tables whose version column is text: an expression where it is no constant.
_TEXT_VERSION = ("registrations",)


def source(name: str, release: str | None = None) -> pd.DataFrame:
    """Returns a table of `data/source` as a frame: a row per fact, with the releases between which it holds.

    Parameters
    ----------
    name : descriptions, fields, subsections, registrations, types, properties, machine_lists, machine_members, compat,
        problems or releases; `data/source/README.md` says what their columns are.
    release : only rows that hold in this release. `fields` and `subsections` are those of the descriptions that do.

    Returns
    -------
    Numbers are Int64, names that repeat are categories, `since` and `until` are categories in order of release
    (`until` is missing where a row still holds); all else is text.

    Raises
    ------
    CatalogError : there is no such table, or the release is none.
    """
    import pandas as pd

    found = list(rows("source", name))
    if release is not None:
        if name in ("fields", "subsections"):
            kept = {row["description"] for row in holding(rows("source", "descriptions"), Release(release))}
            found = [row for row in found if row["description"] in kept]
        else:
            found = holding(found, Release(release)) if found and "since" in found[0] else found
    frame = pd.DataFrame(found, columns=list(rows("source", name)[0]))
    ordered = pd.CategoricalDtype([row["release"] for row in rows("source", "releases")], ordered=True)
    for column in frame:
        if column in ("since", "until"):
            frame[column] = frame[column].where(frame[column] != "").astype(ordered)
        elif column in _NUMBERS and not (name in _TEXT_VERSION and column == "version"):
            frame[column] = pd.to_numeric(frame[column].where(frame[column] != "")).astype("Int64")
        elif column in _WORDS:
            frame[column] = frame[column].astype("category")
    return frame


def device_changes(device: str | None = None, broken: bool = False) -> pd.DataFrame:
    """Returns the steps at which VMState descriptions changed: a row per description and release.

    Parameters
    ----------
    device : a device type or the name of a description, with the descriptions inside it; all where None.
    broken : only steps at which streams stopped to load in one direction or both though the version is the same.

    Returns
    -------
    Columns: those of `device_history.Change`, and broken; `what` is a tuple of the changes in words.

    Raises
    ------
    CatalogError : nothing is called that.
    """
    import pandas as pd

    names: list[str | None] = [None] if device is None else list(device_history.described_by(device))
    found = [change for name in names for change in device_history.changes(name) if change.broken or not broken]
    columns = [*device_history.Change.__dataclass_fields__, "broken"]
    frame = pd.DataFrame([{**asdict(c), "broken": c.broken} for c in found], columns=columns)
    ordered = pd.CategoricalDtype([row["release"] for row in rows("source", "releases")], ordered=True)
    return frame.astype({"before": ordered, "release": ordered})
