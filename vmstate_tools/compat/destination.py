"""Destination: a QEMU to load into, known by a stream it wrote, its -dump-vmstate file, or release and machine."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vmstate_tools.compat import from_release, pvr, source_descriptions, spapr_caps, startup
from vmstate_tools.compat.expectation import Expectation
from vmstate_tools.compat.from_stream import Writer, expectation_of, writer_of
from vmstate_tools.compat.knowledge import Knowledge
from vmstate_tools.compat.loader import CapabilityLevel, Loader
from vmstate_tools.compat.registry import Registry
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog
from vmstate_tools.release import Release
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.dump import Dump, read_dump

# The catalog's release that names a CPU model by its PVR where the destination's release is not known.
_NAMES_MODELS = "2.7.0"

# Destinations with what a stream adds, that one remembers; then it forgets all of them.
_MOST_COMPLETED = 256


@dataclass(eq=False)
class Destination:
    """A Destination is a QEMU that a stream is to be loaded into.

    Parameters
    ----------
    release : "2.7.0", for example.
    machine : machine type, "pseries-2.6" for example; options may follow after commas ("pseries-2.6,cap-htm=off").
    cpu : CPU model, "POWER8_v2.0" for example.
    accel : "tcg" or "kvm".
    options : machine options and migration capabilities, name → value.
    reference : what a stream that it wrote shows (see `from_stream`).
    dump : its -dump-vmstate file (see `from_dump`).
    assumptions : what was assumed to be so, in sentences; each verdict repeats them.

    Raises
    ------
    CatalogError : QEMU never had that release.
    """

    release: str | None = None
    machine: str | None = None
    cpu: str | None = None
    accel: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    reference: Expectation | None = field(default=None, repr=False)
    dump: Dump | None = field(default=None, repr=False)
    assumptions: tuple[str, ...] = field(default=(), repr=False)
    _completed: dict[tuple[Any, ...], Destination] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.release is not None:
            catalog.expect_release(self.release)
        if self.machine and "," in self.machine:
            self.machine, *options = self.machine.split(",")
            self.options |= {name: value or "on" for name, _, value in (o.partition("=") for o in options)}
        self.version = None if self.release is None else Release(self.release)

    # -- where the knowledge comes from -------------------------------------------------------------------------

    @classmethod
    def from_stream(
        cls,
        reference: Stream | str | os.PathLike[str],
        release: str | None = None,
        machine: str | None = None,
        cpu: str | None = None,
        accel: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Destination:
        """Returns the destination that wrote `reference` with the machine, CPU and devices that it will have.

        What is neither given nor in the stream becomes an assumption.

        Raises
        ------
        StreamError : the stream cannot be read.
        """
        return cls(release, machine, cpu, accel, dict(options or {})).with_reference(reference)

    def with_reference(self, reference: Stream | str | os.PathLike[str]) -> Destination:
        """Returns this destination, known better by a stream that it wrote. Raises StreamError."""
        if not isinstance(reference, Stream):
            with open_stream(reference) as stream:
                return self.with_reference(stream)
        assumptions = self.assumptions
        if self.version is None:
            text = "release: not given, rules that depend on it follow from the reference stream or are left out"
            assumptions = (*assumptions, text)
        machine, expectation = self.machine or reference.machine, expectation_of(reference, self.release)
        return replace(self, machine=machine, reference=expectation, assumptions=assumptions)

    @classmethod
    def from_dump(
        cls,
        file: Dump | str | os.PathLike[str],
        release: str | None = None,
        machine: str | None = None,
        cpu: str | None = None,
        accel: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> Destination:
        """Returns the destination that wrote this -dump-vmstate file.

        The file knows versions, minimum versions and subsections of device classes, but neither framing nor anything
        that is registered by hand, such as the ppc CPU: that follows from release and machine type. Where no release
        is given, it is the newest one whose source has most of the file's descriptions.

        Raises
        ------
        StreamError : the file is no -dump-vmstate output.
        """
        return cls(release, machine, cpu, accel, dict(options or {})).with_dump(file)

    def with_dump(self, file: Dump | str | os.PathLike[str]) -> Destination:
        """Returns this destination, known better by its -dump-vmstate file. Raises StreamError."""
        dump = file if isinstance(file, Dump) else read_dump(file)
        machine, release, assumptions = self.machine or dump.machine, self.release, self.assumptions
        if release is None and self.reference is None:
            release = source_descriptions.release_of(dump.vmsds)
            assumptions = (*assumptions, f"release: {release}, whose descriptions the dump has")
        return replace(self, machine=machine, release=release, dump=dump, assumptions=assumptions)

    def for_stream(self, stream: Stream) -> Destination:
        """Returns this destination with the machine type and CPU of a stream, where it was given none."""
        if self.machine is not None and (self.cpu is not None or self.reference is not None):
            return self
        return self._with_writer(writer_of(stream))

    def _with_writer(self, writer: Writer) -> Destination:
        machine, cpu = self.machine or writer.machine, self.cpu
        if cpu is None and self.reference is None:
            cpu = _model_of(writer.pvr, self.release or _NAMES_MODELS)
        key = (machine, cpu, writer.stated)
        if key not in self._completed:
            assumptions = list(self.assumptions)
            if machine != self.machine:
                where = "the stream's" if writer.stated else "guessed from its sections"
                assumptions.append(f"machine type: {machine}, {where}")
            if cpu != self.cpu:
                assumptions.append(f"CPU model: {cpu}, by the stream's PVR")
            if len(self._completed) >= _MOST_COMPLETED:
                self._completed.clear()
            self._completed[key] = replace(self, machine=machine, cpu=cpu, assumptions=tuple(assumptions))
        return self._completed[key]

    # -- what follows from it -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Returns what is known of it, in words."""
        parts = [self.release and f"QEMU {self.release}", self.machine, self.cpu, self.accel]
        return ", ".join(p for p in parts if p) or "a reference stream's writer"

    @functools.cached_property
    def derived(self) -> from_release.Derived:
        """Returns what it expects, and all that was assumed to get there, `assumptions` first.

        Raises
        ------
        ValueError : neither a reference stream is known, nor release and machine type.
        """
        if self.reference is not None:
            return from_release.Derived(self.reference, self.assumptions)
        if self.version is None or self.machine is None:
            raise ValueError("a destination needs a reference stream, or a release")
        made, assumed = from_release.expectation(self.version, self.machine, self.cpu, self.accel, self.options)
        for entry in list(made.entries.values()):
            dumped = self.knowledge.dumped(entry.vmsd.name) if entry.vmsd is not None else None
            if dumped is not None:  # a section's version is its description's
                made.add([replace(entry, version_id=dumped.version_id, plans={})])
        return from_release.Derived(made, (*self.assumptions, *assumed))

    @property
    def expectation(self) -> Expectation:
        """Returns what it expects. Raises ValueError as `derived` does."""
        return self.derived.expectation

    @functools.cached_property
    def knowledge(self) -> Knowledge:
        """Returns what is known of its descriptions."""
        return Knowledge(self.version, self.machine, self.dump, derived=self.reference is None)

    @functools.cached_property
    def registry(self) -> Registry:
        """Returns the sections that it has registered."""
        return Registry(self.expectation, self.version, derived=self.reference is None)

    @functools.cached_property
    def loader(self) -> Loader:
        """Returns what the rules know of it."""
        cpu = self.expectation.find("cpu", 0)
        own = cpu.values.get(("cpu", "pvr")) if cpu is not None else None
        caps = tuple(self._capability(cap, own) for cap in spapr_caps.capabilities(self.version, self.machine))
        known = self.version, self.machine, self.cpu, self.accel, self.options
        return Loader(*known, own, caps, self.expectation)

    def _capability(self, cap: spapr_caps.Capability, own_pvr: int | None) -> CapabilityLevel:
        """Returns a capability's levels: by option, else as a stream of its own has it, else the default.

        The default is 0 for a CPU that lacks the ISA level it needs (hw/ppc/spapr_caps.c: `default_caps_with_cpu`).
        """
        family = pvr.family_of(own_pvr) if own_pvr else None
        default = 0 if cap.needs and family is not None and cap.needs not in family.levels else cap.default
        option = self.options.get(f"cap-{cap.name}")
        if option is not None:
            return CapabilityLevel(cap, default, spapr_caps.LEVELS.get(option, 0))
        entry = self.expectation.find("spapr", 0)
        sent = [value for (vmsd, _), value in entry.values.items() if vmsd == cap.subsection] if entry else []
        return CapabilityLevel(cap, default, sent[-1] if sent else default)

    @functools.cached_property
    def absent(self) -> Obstacle | None:
        """Returns why this QEMU would not start, None where nothing is known against it."""
        if self.version is None or self.machine is None:
            return None
        found = startup.obstacle(self.version, self.machine, self.cpu)
        if found is not None or self.accel != "tcg" or not self.machine.startswith("pseries"):
            return found
        refused = spapr_caps.refused_by_tcg(self.version)
        for level in self.loader.caps:
            name = level.capability.name
            if level.effective and name in refused:
                message = f"TCG does not do cap-{name}={level.effective}: QEMU does not start"
                remedy = f"-machine cap-{name}={refused[name]}"
                return Obstacle("start", "capability", message, destination_value=level.effective, remedy=remedy)
        return None


@functools.lru_cache(maxsize=4096)
def _model_of(pvr: int | None, release: str) -> str | None:
    """Returns the CPU model with this PVR in a release, None where there is none."""
    try:
        return next((m.name for m in catalog.model_of_pvr(pvr, release, nearest=True)), None) if pvr else None
    except CatalogError:
        return None
