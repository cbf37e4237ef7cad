"""Which value a property of a device has on a machine type in a release: defaults, and what machine types set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import source
from vmstate_tools.facts.tables import Row

if TYPE_CHECKING:
    import pandas as pd

_PROXY = re.compile(r"(virtio-\w+|vhost-\w+(?:-\w+)*)-(?:pci|ccw)(?:-(?:non-)?transitional)?")


@dataclass(frozen=True)
class Setting:
    """What a machine type sets for every device of a driver: an entry of one of its compatibility lists."""

    driver: str
    property: str
    value: str
    list: str


@dataclass(frozen=True)
class Value:
    """The value of a property of a device on a machine type in a release x.y.0.

    Attributes
    ----------
    value : as QEMU's source spells it (`off`, `0`, `1`); None where it is not known.
    default : the device's own default; None where it is not known.
    set_by : the compatibility list and the driver it names, `hw_compat_2_11 e1000`; "" for the default.
    unknown : why the value is not known, "" where it is.
    """

    device: str
    property: str
    machine: str
    release: str
    value: str | None
    default: str | None
    set_by: str
    unknown: str


def near_in(name: str, names: Iterable[str]) -> str:
    """Returns `; near: a, b` for the names that are like one, "" where none is."""
    import difflib

    known = sorted(names)
    lower = name.lower()
    found = [n for n in known if n.lower() == lower] + difflib.get_close_matches(name, known, 3, 0.7)
    found += [n for n in known if len(lower) > 2 and lower in n.lower()][:3]
    return f"; near: {', '.join(list(dict.fromkeys(found))[:5])}" if found else ""


def type_in(name: str, at: int, target: str = "") -> Row | None:
    """Returns the QOM type of a name in the release of a place, of a target's own where there are several."""
    held = source.holding(source.by("types", "name").get(name), at)
    return min(held, key=lambda row: _rank(row, target), default=None)


def _rank(row: Row, target: str) -> tuple[bool, bool]:
    return bool(target and row["targets"]) and target not in row["targets"].split(), not row["vmsd"]


def lineage(device: str, at: int, target: str = "") -> list[Row]:
    """Returns the QOM type of a device and its parents, itself first; [] where the release has no such type.

    The type between virtio-net-pci and virtio-pci has a name that is made when QEMU runs (since 3.1): it is passed
    over.
    """
    found: list[Row] = []
    name = device
    while (row := type_in(name, at, target)) is not None and row not in found:
        found.append(row)
        name = row["parent"]
        if name.endswith("-base") and type_in(name, at, target) is None and _PROXY.fullmatch(name[:-5]):
            name = "virtio-pci"
    return found


def behind(device: str, at: int) -> str:
    """Returns the virtio device behind a virtio-…-pci or -ccw device, which has most of its properties; else ""."""
    match = _PROXY.fullmatch(device)
    inner = f"{match[1]}-device" if match else ""
    return inner if inner and type_in(inner, at) is not None else ""


def _lineages(device: str, at: int, target: str) -> list[Row]:
    inner = behind(device, at)
    return lineage(device, at, target) + (lineage(inner, at, target) if inner else [])


def _of_file(found: list[Row], file: str) -> list[Row]:
    return [row for row in found if row["file"] == file] or found


def own_properties(item: Row, at: int) -> Iterator[Row]:
    """Yields the properties that a type's class adds itself; where a name is twice there, the last counts first."""
    for symbol in reversed(item["properties"].split()):
        yield from _of_file(source.holding(source.by("properties", "list").get(symbol), at), item["file"])


def properties_in(device: str, at: int, target: str = "") -> dict[str, Row]:
    """Returns the properties of a device in the release of a place, those it inherits as well: name → row."""
    found: dict[str, Row] = {}
    for item in _lineages(device, at, target):
        for row in own_properties(item, at):
            found.setdefault(row["name"], row)
    return found


def properties(device: str, release: str, target: str = "") -> pd.DataFrame:
    """Returns the properties of a device type in a release, those of its parents and its virtio device included.

    Returns
    -------
    A row per property: name, default (text; "" for none), info, bit (Int64), field, state, list, file, targets, since,
    until (`Release`).

    Raises
    ------
    CatalogError : the tables are not of that release, or it has no such device type.
    """
    at = source.place(release)
    if not lineage(device, at, target):
        raise CatalogError(_no_type(device, at))
    columns = ("name", "default", "info", "bit", "field", "state", "list", "file", "targets", "since", "until")
    return source.frame(properties_in(device, at, target).values(), columns)


def _no_type(device: str, at: int) -> str:
    known = {row["name"] for row in source.holding(source.rows("types"), at)}
    return f"QEMU {source.releases()[at]} has no device type {device!r}" + near_in(device, known)


def machine_rows(machine: str, at: int, target: str = "") -> list[Row]:
    """Returns the rows of a machine type and its parents in the release of a place, in the order they are applied."""
    chain: list[list[Row]] = []
    item = type_in(f"{machine}-machine", at, target)
    name: str | None = machine
    while name is not None and len(chain) < 20:
        held = source.holding(source.by("machine_lists", "machine").get(name), at)
        if item is not None:
            held = _of_file(held, item["file"])
        chain.append([row for row in held if _is_of(row, target, held)])
        item = type_in(item["parent"], at, target) if item is not None and item["parent"] else None
        name = item["name"].removesuffix("-machine") if item is not None else None
    return [row for rows in reversed(chain) for row in sorted(rows, key=lambda r: -int(r["from_last"] or 0))]


def _is_of(row: Row, target: str, held: list[Row]) -> bool:
    """Tells whether a row is of the target; without one, of the first set of targets that there is."""
    wanted = next((r["targets"] for r in held if target in r["targets"].split() or not r["targets"]), None)
    return row["targets"] == (held[0]["targets"] if wanted is None else wanted)


def settings(machine: str, at: int, target: str = "") -> list[Setting]:
    """Returns what a machine type sets in the release of a place, in the order it is applied: the last one wins."""
    found: list[Setting] = []
    for row in machine_rows(machine, at, target):
        held = source.holding(source.by("compat", "list").get(row["list"]), at) if row["list"] else []
        for entry in _of_file(held, row["file"]):
            found.append(Setting(entry["driver"], entry["property"], entry["value"], row["list"]))
    return found


def machine_named(machine: str, at: int) -> str:
    """Returns a machine type's own name: that of `pc`, an alias, is `pc-i440fx-…`.

    Raises
    ------
    CatalogError : the release has no such machine type.
    """
    known = {row["machine"] for row in source.holding(source.rows("machine_lists"), at)}
    if machine in known:
        return machine
    for row in source.holding(source.by("machine_members", "member").get("alias"), at):
        if row["value"].strip('"') == machine:
            return row["machine"]
    raise CatalogError(f"QEMU {source.releases()[at]} has no machine type {machine!r}" + near_in(machine, known))


def compat(machine: str, release: str, target: str = "") -> pd.DataFrame:
    """Returns what a machine type sets for the sake of older releases, resolved: where two lists differ, the last wins.

    Returns
    -------
    A row per driver and property: driver, property, value, list (all text).

    Raises
    ------
    CatalogError : the tables are not of that release, or it has no such machine type.
    """
    at = source.place(release)
    found = {(s.driver, s.property): s for s in settings(machine_named(machine, at), at, target)}
    return source.frame([vars(s) for s in found.values()], ("driver", "property", "value", "list"))


def value(device: str, name: str, machine: str, release: str, target: str = "") -> Value:
    """Returns which value a property of a device has on a machine type in a release.

    The entries of the machine type's lists for the device's type, its parents and its virtio device are applied in
    their order, the last one wins.

    Parameters
    ----------
    name : the property.
    target : the system emulator (`x86_64`), where they differ.

    Raises
    ------
    CatalogError : the tables are not of that release, or it has no such device type or machine type.
    """
    at = source.place(release)
    machine = machine_named(machine, at)
    types = _lineages(device, at, target)
    if not types:
        raise CatalogError(_no_type(device, at))
    row = properties_in(device, at, target).get(name)
    drivers = {item["name"] for item in types}
    last = next(
        (s for s in reversed(settings(machine, at, target)) if s.driver in drivers and s.property == name), None
    )
    unknown = _unknown(machine, types, row, at, target)
    default = row["default"] if row is not None else None
    if last is None:
        known = None if unknown else default
        return Value(device, name, machine, source.releases()[at], known, default, "", unknown)
    by = f"{last.list} {last.driver}"
    return Value(device, name, machine, source.releases()[at], last.value, default, by, "")


def _unknown(machine: str, types: list[Row], row: Row | None, at: int, target: str) -> str:
    """Returns why a value that no list sets is not known, "" where it is."""
    if row is None:
        return "no list of properties that was read has it: a device may make properties when QEMU runs"
    read = {(r["file"], r["list"].partition(".")[0]) for r in machine_rows(machine, at, target)}
    read |= {(row["file"], row["list"])}
    for problem in source.holding(source.rows("problems"), at):
        if (problem["file"], problem["what"].split()[0].partition(".")[0]) in read:
            return f"{problem['file']}: {problem['what']}: {problem['problem']}"
    return ""
