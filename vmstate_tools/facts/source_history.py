"""How device types, their properties and machine types changed from release to release, and what that does to a
migration: beside `device_history`, which is about the descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import source
from vmstate_tools.facts.device_history import DEPENDS, LOADS, REFUSED, UNKNOWN, forms_of
from vmstate_tools.facts.properties import behind, lineage, near_in, properties_in, settings
from vmstate_tools.facts.tables import Row

#: What of a PCI device's configuration space the loader compares with its own (`pci_init_cmask` of hw/pci/pci.c).
_COMPARED = ("vendor_id", "device_id", "revision", "class_id")


@dataclass(frozen=True)
class Step:
    """A step at which something else than a description changed.

    Attributes
    ----------
    kind : "device type", "property", "registration" or "machine type".
    release : the first release x.y.0 that is so; `before` is the one before it.
    what : the changes, in words.
    forward, back : as of a `Change`; "depends" on what `why` says.
    """

    kind: str
    name: str
    file: str
    targets: str
    before: str
    release: str
    what: tuple[str, ...]
    forward: str
    back: str
    why: str


def kinds_of(name: str) -> list[str]:
    """Returns what a name is in data/source: "description", "device type", "machine type", "property".

    `DEVICE.PROPERTY` is a property.

    Raises
    ------
    CatalogError : nothing has that name; the message has near ones.
    """
    device, _, property_ = name.rpartition(".")
    found = [
        kind
        for kind, there in (
            ("description", bool(name) and name in source.by("descriptions", "name")),
            ("device type", name in source.by("types", "name") and not name.endswith("-machine")),
            ("machine type", _machine(name) in source.by("machine_lists", "machine")),
            ("property", _is_property(name)),
        )
        if there
    ]
    if not found and device in source.by("types", "name"):
        known = {row for at in range(len(source.releases())) for row in properties_in(device, at)}
        if property_ in known:
            return ["property"]
        raise CatalogError(f"device type {device} has no property {property_!r}{near_in(property_, known)}")
    if not found:
        known = {*_property_names()} - {""}
        for table, column in (("descriptions", "name"), ("types", "name"), ("machine_lists", "machine")):
            known.update(source.by(table, column).names())
        first, last = source.releases()[0], source.releases()[-1]
        raise CatalogError(
            f"no description, device type, machine type or property is called {name!r} in QEMU {first} to {last}"
            + near_in(name, known)
        )
    return found


def _machine(name: str) -> str:
    return name.removesuffix("-machine")


def _is_property(name: str) -> bool:
    return bool(name) and (name in source.by("properties", "name") or name in source.by("compat", "property"))


def _property_names() -> Iterable[str]:
    return {*source.by("properties", "name").names(), *source.by("compat", "property").names()}


def steps(name: str) -> list[Step]:
    """Returns every step of the device type, machine type or property of a name, oldest first; [] for a description.

    Raises
    ------
    CatalogError : nothing has that name.
    """
    kinds = kinds_of(name)
    found: list[Step] = []
    if "device type" in kinds:
        found += type_steps(name)
    if "machine type" in kinds:
        found += machine_steps(_machine(name))
    if "property" in kinds:
        device, _, property_ = name.rpartition(".")
        known = _is_property(name)
        found += property_steps(name, None) if known else property_steps(property_, device)
    found += [step for each in _registered(name, kinds) for step in each]
    return sorted(found, key=lambda step: source.place(step.release))


def _step(
    kind: str, row: Row, name: str, at: int, what: Iterable[str], forward: str, back: str, why: str
) -> Iterator[Step]:
    lines = tuple(dict.fromkeys(what))
    if lines:
        before, release = source.releases()[at - 1], source.releases()[at]
        yield Step(kind, name, row["file"], row.get("targets", ""), before, release, lines, forward, back, why)


def type_steps(name: str) -> Iterator[Step]:
    """Yields how a device type changed: that it came and went, parent, PCI ids; and its properties."""
    rows = source.by("types", "name").get(name)
    for at in source.edges(rows):
        old, new = source.holding(rows, at - 1), source.holding(rows, at)
        if not old:
            yield from _step("device type", new[0], name, at, ["the type comes"], LOADS, REFUSED,
                             "an older QEMU has no such device")  # fmt: skip
        elif not new:
            yield from _step("device type", old[0], name, at, ["the type goes"], REFUSED, LOADS,
                             "the newer QEMU has no such device")  # fmt: skip
        else:
            parents = list(_moved("parent", _cells(old, "parent"), _cells(new, "parent")))
            yield from _step("device type", new[0], name, at, parents, UNKNOWN, UNKNOWN,
                             "what it inherits may be in the stream: see the parent")  # fmt: skip
            yield from _ids(name, at, old, new)
    yield from property_steps(None, name)


def _cells(rows: Iterable[Row], column: str) -> list[str]:
    return sorted({row[column] for row in rows})


def _moved(what: str, old: list[str], new: list[str]) -> Iterator[str]:
    if old != new:
        yield f"{what} {' or '.join(old) or 'none'} → {' or '.join(new) or 'none'}"


def _ids(name: str, at: int, old: list[Row], new: list[Row]) -> Iterator[Step]:
    mine, theirs = (dict(i.split("=", 1) for row in rows for i in row["ids"].split()) for rows in (new, old))
    changed = [k for k in dict.fromkeys([*theirs, *mine]) if k in theirs and k in mine and theirs[k] != mine[k]]
    what = [f"{k} {theirs[k]} → {mine[k]}" for k in changed]
    compared = any(k in _COMPARED for k in changed)
    verdict, why = (REFUSED, "the loader compares it with its own") if compared else (LOADS, "the loader takes it over")
    yield from _step("device type", new[0], name, at, what, verdict, verdict, why)


def property_steps(name: str | None, device: str | None) -> Iterator[Step]:
    """Yields how properties changed: of one name or all, of one device type and its virtio device or of all types."""
    for owner, lists in _lists(name, device).items():
        rows = [row for symbol in lists for row in source.by("properties", "list").get(symbol)]
        rows = [row for row in rows if name is None or row["name"] == name]
        settings_ = [
            row
            for driver in _drivers(owner, inherited=device is not None and name is not None)
            for row in source.by("compat", "driver").get(driver)
            if name is None or row["property"] == name
        ]
        for at in source.edges([*rows, *settings_]):
            yield from _property_step(owner, at, rows, settings_)


def _lists(name: str | None, device: str | None) -> dict[str, set[str]]:
    """Returns device type → its lists of properties."""
    if device is not None:
        found: set[str] = set()
        for at in range(len(source.releases())):
            own = {device, behind(device, at)} - {""}
            for item in (i for each in own for i in lineage(each, at)):
                if name is not None or item["name"] in own:
                    found |= set(item["properties"].split())
        return {device: found}
    lists = {row["list"] for row in source.by("properties", "name").get(name or "")}
    types: dict[str, set[str]] = {}
    for row in source.rows("types"):
        mine = lists & set(row["properties"].split())
        if mine:
            types.setdefault(row["name"], set()).update(mine)
    for row in source.by("compat", "property").get(name or ""):
        types.setdefault(row["driver"], set())
    return types


def _drivers(device: str, inherited: bool) -> set[str]:
    """Returns a device type and its virtio device; with `inherited`, the parents of both as well."""
    own = {device} | {behind(device, at) for at in range(len(source.releases()))} - {""}
    if not inherited:
        return own
    return own | {i["name"] for at in range(len(source.releases())) for each in own for i in lineage(each, at)}


def _property_step(owner: str, at: int, rows: list[Row], settings_: list[Row]) -> Iterator[Step]:
    old, new = source.holding(rows, at - 1), source.holding(rows, at)
    was, now = ({(s["property"], s["value"]) for s in source.holding(settings_, i)} for i in (at - 1, at))
    names = {row["name"] for row in old + new} | {p for p, _ in was ^ now}
    for name in sorted(names):
        theirs, mine = (_cells([r for r in held if r["name"] == name], "default") for held in (old, new))
        kept = [s for s in source.holding(settings_, at) if s["property"] == name and (name, s["value"]) in now - was]
        what = []
        if theirs != mine:
            sign = "comes, default " + _said(mine) if not theirs else "goes" if not mine else ""
            what.append(f"{name} {sign or f'default {_said(theirs)} → {_said(mine)}'}")
        lists = sorted({f"{s['list']} sets {s['driver']}.{name}={s['value']}" for s in kept})
        what += lists
        what += [f"no list sets {owner}.{name}={v} any more" for p, v in sorted(was - now) if p == name]
        row = next((r for r in [*new, *old] if r["name"] == name), kept[0] if kept else (rows + settings_)[0])
        verdict, why = _effect(name, theirs, mine, bool(lists))
        yield from _step("property", row, f"{owner}.{name}", at, what, verdict, verdict, why)


def _said(defaults: list[str]) -> str:
    return " or ".join(d or "none" for d in defaults)


def _effect(name: str, theirs: list[str], mine: list[str], kept: bool) -> tuple[str, str]:
    if kept and theirs != mine:
        return LOADS, "versioned machine types of before keep what was: a compatibility list sets it"
    if kept:
        return DEPENDS, f"on the machine type: a list sets {name}, which these machine types left at its default"
    if theirs == mine:
        return DEPENDS, "on the machine type: those that the list was of have the default now, or are gone"
    if not theirs:
        return UNKNOWN, f"no list keeps what was without {name}: it must be what its default gives"
    if not mine:
        return UNKNOWN, f"where the device does not make {name} when QEMU runs, a command line with it is refused"
    return DEPENDS, f"on the command line: no list keeps the default of {name} for older machine types"


def machine_steps(name: str) -> Iterator[Step]:
    """Yields how a machine type changed: that it came and went, its lists, their entries, what its class sets."""
    rows = source.by("machine_lists", "machine").get(name)
    members = source.by("machine_members", "machine").get(name)
    entries = [row for symbol in {r["list"] for r in rows} for row in source.by("compat", "list").get(symbol)]
    for at in source.edges([*rows, *members, *entries]):
        old, new = source.holding(rows, at - 1), source.holding(rows, at)
        if not old and not new:
            continue
        if not old or not new:
            comes = not old
            verdicts = (LOADS, REFUSED) if comes else (REFUSED, LOADS)
            why = f"the {'older' if comes else 'newer'} QEMU has no such machine type"
            yield from _step("machine type", (old or new)[0], name, at,
                             [f"the machine type {'comes' if comes else 'goes'}"], *verdicts, why)  # fmt: skip
            continue
        yield from _settings_step(name, at, old, new)
        yield from _members_step(name, at, source.holding(members, at - 1), source.holding(members, at), new)


def _settings_step(name: str, at: int, old: list[Row], new: list[Row]) -> Iterator[Step]:
    target = next((t for row in new for t in row["targets"].split()), "")
    was, now = ({(s.driver, s.property): s for s in settings(name, i, target)} for i in (at - 1, at))
    lists = {row["list"] for row in old}
    fresh: list[str] = []
    late: list[str] = []
    for key, item in now.items():
        before = was.get(key)
        if before is None or before.value != item.value:
            line = f"{item.list} sets {item.driver}.{item.property}={item.value}" + (
                f", {before.value} before" if before else ""
            )
            (late if item.list in lists or before else fresh).append(line)
    gone = [f"{s.driver}.{s.property}={s.value} is no longer set" for key, s in was.items() if key not in now]
    yield from _step("machine type", new[0], name, at, fresh, LOADS, LOADS,
                     "it keeps what was the default before")  # fmt: skip
    yield from _step("machine type", new[0], name, at, late + gone, DEPENDS, DEPENDS,
                     "the machine type means something else to the device than in the release before")  # fmt: skip


def _members_step(name: str, at: int, old: list[Row], new: list[Row], rows: list[Row]) -> Iterator[Step]:
    theirs, mine = ({m: _cells([r for r in held if r["member"] == m], "value") for m in _cells(held, "member")}
                    for held in (old, new))  # fmt: skip
    what = [line for m in sorted(theirs | mine) for line in _moved(m, theirs.get(m, []), mine.get(m, []))]
    yield from _step("machine type", rows[0], name, at, what, UNKNOWN, UNKNOWN,
                     "what code of the machine does with it is not in the tables")  # fmt: skip


def _call(row: Row) -> str:
    version = f", version {row['version']}" if row["version"] else ""
    return f"{row['how']}({row['idstr'] or row['vmsd']}, instance {row['instance']}{version})"


def _registered(name: str, kinds: list[str]) -> Iterator[Iterator[Step]]:
    """Yields the steps of the registrations of an idstr, or of the descriptions of a name."""
    symbols = {form.symbol for form in forms_of(name)} if "description" in kinds else set()
    files = {form.file for form in forms_of(name)}
    rows = [
        row for row in source.rows("registrations")
        if (row["vmsd"] in symbols and row["file"] in files) or row["idstr"] == name
    ]  # fmt: skip
    for at in source.edges(rows):
        old, new = ({_call(r): r for r in source.holding(rows, i)} for i in (at - 1, at))
        gone, come = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
        what = [f"- {line}" for line in gone] + [f"+ {line}" for line in come]
        forward = REFUSED if gone and not new else DEPENDS if gone else LOADS
        back = REFUSED if come and not old else DEPENDS if come else LOADS
        row = next(iter((new or old).values()), None)
        if row is not None:
            yield _step("registration", row, name, at, what, forward, back,
                        "a section that nothing registers is refused, one that is not sent is not missed")  # fmt: skip
