"""What a release's source can write: the facts in `data/fingerprint`, as sets of releases (see `release.Covered`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache

from vmstate_tools.facts.tables import Row, rows
from vmstate_tools.release import covered

RELEASES = covered()

_set_of = lru_cache(8192)(RELEASES.parse)


@dataclass(slots=True)
class Definition:
    """A Definition is what QEMU's source says of a VMStateDescription that one symbol defines.

    Attributes
    ----------
    exists : the releases that have it.
    open : the releases in which a field that is not listed here may stand, too.
    versions : version → the releases that have it; `?` stands for those where the source does not say.
    fields : field → the releases that can write it.
    types : field → type → the releases in which it has that type; `?` where the source does not say.
    always : field → the releases that write it whenever they write the description.
    """

    exists: int = 0
    open: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    fields: dict[str, int] = field(default_factory=dict)
    types: dict[str, dict[str, int]] = field(default_factory=dict)
    always: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, what: str, bits: int) -> None:
        """Adds a row of the table."""
        if kind == "defined":
            self.exists = bits
        elif kind == "open":
            self.open = bits
        elif kind == "type":
            name, type_ = what.rsplit(":", 1)
            self.types.setdefault(name, {})[type_] = bits
        else:
            {"version": self.versions, "field": self.fields, "always": self.always}[kind][what] = bits

    def with_version(self, version_id: int) -> int:
        """Returns the releases that can write it at this version."""
        return self.versions.get(str(version_id), RELEASES.unread) | self.versions.get("?", 0)

    def with_field(self, name: str, array: str, type_: str) -> int:
        """Returns the releases that can write this field; `array` is its name without an element's number."""
        bits = self.fields.get(name)
        if bits is None:
            bits = self.fields.get(array, RELEASES.all)
        known = self.types.get(name)
        if known is not None:
            bits &= known.get(type_, RELEASES.unread) | known.get("?", 0)
        return bits


@dataclass(frozen=True, slots=True)
class Source:
    """A Source is what QEMU's source has of a description's name.

    Attributes
    ----------
    definitions : symbol → what its definition says.
    occurs : the releases in whose source the name occurs at all.
    """

    definitions: Mapping[str, Definition]
    occurs: int


@cache
def _by_description() -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows("fingerprint", "descriptions"):
        found.setdefault(row["vmsd"], []).append(row)
    return found


@lru_cache(8192)
def source_of(vmsd: str) -> Source:
    """Returns what the source has of a VMStateDescription's name."""
    definitions: dict[str, Definition] = {}
    occurs = RELEASES.all
    for row in _by_description().get(vmsd, ()):
        if row["kind"] == "name":
            occurs = _set_of(row["releases"])
        else:
            definition = definitions.setdefault(row["symbol"], Definition())
            definition.add(row["kind"], row["what"], _set_of(row["releases"]))
    return Source(definitions, occurs)


@cache
def field_types() -> Mapping[str, int]:
    """Returns, for each field type (the name of a VMStateInfo), the releases that have it."""
    return {row["what"]: _set_of(row["releases"]) for row in _by_description()[""] if row["kind"] == "info"}


@cache
def _machines() -> Mapping[str, str]:
    return {row["machine"]: row["releases"] for row in rows("fingerprint", "machines")}


@lru_cache(1024)
def with_machine(machine: str) -> int:
    """Returns the releases that have a machine type; all where the type is not known."""
    found = _machines().get(machine)
    return RELEASES.all if found is None else _set_of(found)


@cache
def _words_by_pvr() -> Mapping[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows("fingerprint", "words"):
        found.setdefault(row["pvr"], []).append(row)
    return found


@lru_cache(256)
def _words(pvr: int) -> Mapping[tuple[bool, str, int | None], int]:
    return {
        (r["pseries"] == "yes", r["word"], int(r["value"], 16) if r["value"] else None): _set_of(r["releases"])
        for r in _words_by_pvr().get(f"0x{pvr:08x}", ())
    }


def sending(pvr: int, pseries: bool, word: str, value: int) -> int:
    """Returns the releases that send a word with this value for a ppc CPU with this PVR.

    Parameters
    ----------
    pseries : whether the machine type is a pseries one.
    """
    known = _words(pvr)
    return known.get((pseries, word, value), known.get((pseries, word, None), RELEASES.all))
