"""Entries observed in another release or machine type, made into what the destination would have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from vmstate_tools.compat import source_descriptions
from vmstate_tools.compat.expectation import Entry, Expectation, Values
from vmstate_tools.compat.neighbours import Place
from vmstate_tools.compat.observed import Configuration
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import FieldDescription, Vmsd, with_parts

_Key = tuple[str, int]


@dataclass
class Adjustment:
    """An Adjustment takes what was observed in one configuration (`base`) to another place.

    `assumptions` collects what had to be assumed on the way.
    """

    place: Place
    base: Configuration
    assumptions: list[str] = field(default_factory=list)
    _found: dict[tuple[_Key, str], Vmsd | None] = field(default_factory=dict)

    @property
    def _release(self) -> Release:
        return self.place.release

    def entries(self, observed: Expectation) -> dict[_Key, Entry]:
        """Returns the entries of the place, made out of the observed ones."""
        made = (self._entry(entry) for entry in observed.entries.values())
        return {entry.key: entry for entry in made if entry is not None}

    def _entry(self, entry: Entry) -> Entry | None:
        """Returns an entry as the place has it, None where its release has no such description."""
        if entry.vmsd is None:
            return entry
        known = source_descriptions.find(entry.vmsd, self._release)
        if known is None and source_descriptions.find(entry.vmsd, self.base.version) is not None:
            self.assumptions.append(f"{entry.idstr}: QEMU {self._release} does not have it")
            return None
        version = known.version_id if known is not None and known.version_id >= 0 else entry.version_id
        vmsd = self._vmsd(entry.vmsd, entry.key)
        return replace(entry, version_id=version, vmsd=vmsd, values=self._values(entry), plans={})

    # -- descriptions ----------------------------------------------------------------------------------------------

    def _vmsd(self, vmsd: Vmsd, key: _Key) -> Vmsd:
        """Returns a description with the fields and versions that the release has."""
        known = source_descriptions.find(vmsd, self._release)
        if known is None:
            return vmsd
        fields = tuple(self._field(f, vmsd, key) for f in self._fields(vmsd, key))
        names = source_descriptions.known_subsections(known, vmsd.name, self._release)
        there = (s for s in vmsd.subsections if s.name in names or "?" in " ".join(names))
        vmsd = with_parts(vmsd, fields, tuple(self._vmsd(s, key) for s in there))
        versions = known.version_id, known.minimum_version_id
        if known.version_id < 0 or versions == (vmsd.version_id, vmsd.minimum_version_id):
            return vmsd
        return replace(vmsd, version_id=versions[0], minimum_version_id=versions[1])

    def _fields(self, vmsd: Vmsd, key: _Key) -> tuple[FieldDescription, ...]:
        """Returns the fields as the nearest configuration that describes them like the place has them."""
        if self.place.describes_alike(vmsd, self.base):
            return vmsd.fields
        if (key, vmsd.name) not in self._found:
            self._found[key, vmsd.name] = self._observed(vmsd, key)
        like = self._found[key, vmsd.name]
        if like is None:
            self.assumptions.append(f"{vmsd.name}: its fields may differ in QEMU {self._release}")
            return vmsd.fields
        return like.fields

    def _field(self, field: FieldDescription, parent: Vmsd, key: _Key) -> FieldDescription:
        if field.struct is None or field.struct.name == parent.name:  # an ISA wrapper has its device's name
            return field
        struct = self._vmsd(field.struct, key)
        return field if struct is field.struct else replace(field, struct=struct, size=struct.size)

    def _observed(self, vmsd: Vmsd, key: _Key) -> Vmsd | None:
        for configuration in self.place.nearest():
            if self.place.describes_alike(vmsd, configuration):
                entry = configuration.expectation.entries.get(key)
                found = _named(entry.vmsd, vmsd.name) if entry is not None and entry.vmsd is not None else None
                if found is not None:
                    return found
        return None

    # -- values ----------------------------------------------------------------------------------------------------

    def _values(self, entry: Entry) -> Values:
        values = entry.values if self.base.machine == self.place.machine else self._agreed(entry)
        if self.base.version.numbers[:2] != self._release.numbers[:2]:
            values = self._steady(entry, values)
        return values

    def _agreed(self, entry: Entry) -> Values:
        """Returns the values that the nearest older and the nearest newer machine type share: others go with it."""
        sides = [self._beside(entry.key, older) for older in (True, False)]
        return {p: v for p, v in entry.values.items() if all(s is None or s.get(p, v) == v for s in sides)}

    def _beside(self, key: _Key, older: bool) -> Values | None:
        """Returns the values of an entry in the nearest configuration with an older (or a newer) machine type."""
        wanted = self.place.version or Release("0.0")
        for configuration in self.place.nearest():
            version = configuration.machine_version or Release("0.0")
            if version != wanted and (version < wanted) == older:
                entry = configuration.expectation.entries.get(key)
                if entry is not None:
                    return entry.values
        return None

    def _steady(self, entry: Entry, values: Values) -> Values:
        """Drops compared values that differ in the nearest release on the other side: they may have changed.

        Those of a CPU stay: it has its own facts.
        """
        assert entry.vmsd is not None
        if entry.idstr == "cpu":
            return values
        compared = {place for place in values if _is_compared(place, entry.vmsd)}
        other = next(self._across(entry.key), None)
        if compared and other is None:
            self.assumptions.append(f"{entry.idstr}: fields that must be equal are; QEMU {self._release} was not seen")
        there = other.values if other is not None else {}
        return {p: v for p, v in values.items() if p not in compared or there.get(p) == v}

    def _across(self, key: _Key) -> Iterator[Entry]:
        """Yields this entry in configurations on the far side of the place's release, from `base`, nearest first."""
        own, before = self._release.numbers[:2], self.base.version.numbers[:2] < self._release.numbers[:2]
        for configuration in self.place.nearest():
            series = configuration.version.numbers[:2]
            entry = configuration.expectation.entries.get(key) if series != own else None
            if entry is not None and (series < own) != before:
                yield entry


def _is_compared(place: tuple[str, str], vmsd: Vmsd) -> bool:
    names = _compared(vmsd).get(place[0], ())
    return any(place[1] == name or place[1].endswith(f".{name}") for name in names)


def _compared(vmsd: Vmsd) -> dict[str, set[str]]:
    """Returns the names of the fields that are compared with the destination's, by description."""
    found: dict[str, set[str]] = {}
    for f in vmsd.fields:
        if f.equal or f.type == "int32 le":
            found.setdefault(vmsd.name, set()).add(f.name)
    for below in (*(f.struct for f in vmsd.fields if f.struct is not None), *vmsd.subsections):
        for name, fields in _compared(below).items():
            found.setdefault(name, set()).update(fields)
    return found


def _named(vmsd: Vmsd, name: str) -> Vmsd | None:
    """Returns the description of that name in a tree: itself, a struct or a subsection."""
    if vmsd.name == name:
        return vmsd
    below = [*(f.struct for f in vmsd.fields if f.struct is not None), *vmsd.subsections]
    return next((found for v in below if (found := _named(v, name)) is not None), None)
