"""Which of a destination's registered sections takes a section of a stream."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from vmstate_tools.compat import observed, source_descriptions
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.plans import Hashed, hashed
from vmstate_tools.facts.tables import holds, rows
from vmstate_tools.format.sections import handwritten
from vmstate_tools.release import Release
from vmstate_tools.stream.records import Section
from vmstate_tools.vmstate.description import Description, Vmsd

# A larger instance_id is an address: of memory-mapped serial ports before 5.0 (hw/char/serial.c: `serial_mm_init`).
_LARGEST_NUMBER, _NUMBERS_SERIAL_PORTS = 0x3FF, Release("5.0")

# Entries for devices that a registry remembers; then it forgets all of them.
_MOST_DEVICES = 1 << 12


class Registered(NamedTuple):
    """A Registered is what takes a section, None where nothing does, and what had to be assumed for it."""

    entry: Entry | None
    assumption: str | None = None


@dataclass(eq=False)
class Registry:
    """A Registry holds the sections that a destination has registered.

    Where no stream of its own is known (`derived`), it is taken to have the stream's devices, as far as its release
    knows them.
    """

    expectation: Expectation
    release: Release | None
    derived: bool
    _devices: dict[tuple[str, int, int, str, Hashed | None], Registered] = field(default_factory=dict, repr=False)

    def find(self, section: Section) -> Registered:
        """Returns what takes a section (migration/savevm.c: `find_se`)."""
        if self.derived and section.idstr in _forgotten(self.release):
            return Registered(None)
        entry = self.expectation.find(section.idstr, section.instance_id, self.release) or self._always(section)
        return Registered(entry) if entry is not None or not self.derived else self._device(section)

    def instances(self, idstr: str) -> list[int]:
        """Returns the instance_ids of the sections with this idstr that are known to be registered."""
        return [entry.instance_id for entry in self.expectation.entries.values() if entry.idstr == idstr]

    def refuses_to_migrate(self, section: Section) -> bool:
        """Tells whether the device is one that this release does not migrate (`.unmigratable`)."""
        if section.description is None:
            return False
        known = source_descriptions.find(section.description.vmsd, self.release)
        return known is not None and known.unmigratable

    def _always(self, section: Section) -> Entry | None:
        """Returns what every QEMU of the release has registered, though its own stream lacks it."""
        if self.release is None:
            return None
        for row in rows("compat", "always_registered"):
            if row["idstr"] == section.idstr and holds(row, self.release):
                if row["kind"] == "iterable":
                    return Entry(section.idstr, 0, section.version_id, iterable=True)
                return Entry(section.idstr, 0, 1)
        return None

    def _device(self, section: Section) -> Registered:
        description = None if section.description is None else hashed(section.description)
        key = (section.idstr, section.instance_id, section.version_id, section.part, description)
        found = self._devices.get(key)
        if found is None:
            if len(self._devices) >= _MOST_DEVICES:
                self._devices.clear()
            found = self._devices[key] = self._made(section)
        return found

    def _made(self, section: Section) -> Registered:
        """Returns what a destination with the stream's devices has: another CPU, a device that the release knows."""
        beside = next((e for e in self.expectation.entries.values() if e.idstr == section.idstr), None)
        if beside is not None:
            return Registered(self._another(beside, section))
        assert self.release is not None, "without a release the destination is known by a stream of its own"
        own: dict[str, Any] = {"idstr": section.idstr, "instance_id": section.instance_id, "values": {}, "plans": {}}
        name = section.idstr.rpartition("/")[2]
        seen = observed.devices(self.release.numbers[:2]).get(name)
        if seen is not None and _alike(seen.vmsd, section.description):
            return Registered(replace(seen, **own))
        if handwritten.known(section.idstr):
            return Registered(Entry(version_id=section.version_id, iterable=True, **own))
        vmsd = section.description.vmsd if section.description else Vmsd(name, section.version_id)
        known = source_descriptions.find(vmsd, self.release)
        if known is None and source_descriptions.ever(vmsd.name):
            return Registered(None)
        if known is None or known.version_id < 0:
            entry = Entry(version_id=section.version_id, iterable=section.part != "full", **own)
            return Registered(entry, f"{section.idstr}: the destination has it, as the stream has")
        return Registered(None if known.unmigratable else Entry(version_id=known.version_id, **own))

    def _another(self, entry: Entry, section: Section) -> Entry | None:
        """Returns an entry like one with the same idstr, None where there can be no more of them."""
        if self._is_alone(entry, section):
            return None
        values = entry.values if entry.idstr == "cpu" else {}
        return replace(entry, instance_id=section.instance_id, values=values, plans={})

    def _is_alone(self, entry: Entry, section: Section) -> bool:
        """Tells whether an instance_id means that the destination has no such section beside this entry."""
        # The instance_id of spapr_iommu is a LIOBN: a window that this PCI host bridge does not have.
        same_bridge = entry.instance_id >> 8 == section.instance_id >> 8
        if entry.idstr == "spapr_iommu" and same_bridge and self.expectation.exact:
            return True
        # Here registered by its address, in the stream by its place.
        by_address = entry.instance_id > _LARGEST_NUMBER > section.instance_id
        return by_address and self.release is not None and self.release < _NUMBERS_SERIAL_PORTS


@functools.cache
def _forgotten(release: Release | None) -> frozenset[str]:
    """Returns the sections that a release forgot to register (data/compat/unregistered.csv)."""
    if release is None:
        return frozenset()
    return frozenset(row["idstr"] for row in rows("compat", "unregistered") if holds(row, release))


def _alike(vmsd: Vmsd | None, description: Description | None) -> bool:
    """Tells whether two descriptions may be of the same device: every target has its own `cpu`."""
    if vmsd is None or description is None or description.old_style:
        return True
    ours, theirs = ({f.name for f in v.fields} for v in (vmsd, description.vmsd))
    return 2 * len(ours & theirs) >= min(len(ours), len(theirs))
