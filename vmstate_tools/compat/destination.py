"""Destination: a QEMU to load into, known by a stream it wrote, its -dump-vmstate file, or release and machine."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from vmstate_tools.compat import compose, facts, index, library, plan, rules
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.compat.plan import Plan
from vmstate_tools.compat.policy import Policy
from vmstate_tools.compat.program import NUMBERS, Compiler, compared
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog
from vmstate_tools.format.sections import handwritten
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.decode import gather
from vmstate_tools.vmstate.description import Description, FieldDescription, Vmsd
from vmstate_tools.vmstate.dump import Dump, read_dump
from vmstate_tools.vmstate.layout import BYTES, layout_of


@dataclass(eq=False)
class Destination:
    """A QEMU that a stream is to be loaded into.

    Parameters
    ----------
    release : e.g. "2.7.0".
    machine : machine type, e.g. "pseries-2.6"; machine options may follow after commas ("pseries-2.6,cap-htm=off").
    cpu : CPU model, e.g. "POWER8_v2.0".
    accel : "tcg" or "kvm".

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
    assumptions: list[str] = field(default_factory=list, repr=False)
    exclude: Any = field(default=None, repr=False)  # configurations not to learn from
    _told: dict[Any, Destination] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.release is not None:
            catalog.expect_release(self.release)
        if self.machine and "," in self.machine:
            self.machine, *options = self.machine.split(",")
            self.options |= {name: value or "on" for name, _, value in (o.partition("=") for o in options)}
        self.version = facts.version(self.release)

    # -- where the knowledge comes from -----------------------------------------------------------------------

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
        """The destination that wrote `reference` with the machine, CPU and devices it will have.

        What is not given and not in the stream becomes an assumption. Raises StreamError.
        """
        return cls(release, machine, cpu, accel, dict(options or {})).with_reference(reference)

    def with_reference(self, reference: Stream | str | os.PathLike[str]) -> Destination:
        """This destination, known better by a stream that it wrote."""
        if not isinstance(reference, Stream):
            with open_stream(reference) as stream:
                return self.with_reference(stream)
        expectation = expectation_of(reference, self.release)
        machine = self.machine or reference.machine
        assumptions = list(self.assumptions)
        if self.version is None:
            assumptions.append(
                "release: not given, rules that depend on it follow from the reference stream or are left out"
            )
        return replace(self, machine=machine, reference=expectation, assumptions=assumptions)

    def for_stream(self, stream: Stream) -> Destination:
        """This destination with the machine type and CPU of the stream, where it was not told others."""
        if self.machine is not None and (self.cpu is not None or self.reference is not None):
            return self
        told = _told_by(stream)
        machine = self.machine or told.machine
        cpu = self.cpu or (_model_of(told.pvr, self.release or "2.7.0") if self.reference is None else None)
        key = (machine, cpu, stream.machine is None)
        if key not in self._told:
            assumptions = list(self.assumptions)
            if machine != self.machine:
                assumptions.append(
                    f"machine type: {machine}, " + ("the stream's" if stream.machine else "guessed from its sections")
                )
            if cpu != self.cpu:
                assumptions.append(f"CPU model: {cpu}, by the stream's PVR")
            self._told[key] = replace(self, machine=machine, cpu=cpu, assumptions=assumptions)
        return self._told[key]

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
        """The destination that wrote this -dump-vmstate file.

        It knows versions, minimum versions and subsections of device classes, but neither framing nor anything
        registered by hand, the ppc CPU among it: those follow from release and machine type. Raises StreamError.
        """
        return cls(release, machine, cpu, accel, dict(options or {})).with_dump(file)

    def with_dump(self, file: Dump | str | os.PathLike[str]) -> Destination:
        """This destination, known better by its -dump-vmstate file."""
        dump = file if isinstance(file, Dump) else read_dump(file)
        machine, release, assumptions = self.machine or dump.machine, self.release, list(self.assumptions)
        if release is None and self.reference is None:
            release = library.release_of(dump.vmsds)
            assumptions.append(f"release: {release}, whose descriptions the dump has")
        return replace(self, machine=machine, release=release, dump=dump, assumptions=assumptions)

    # -- what the loader asks ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        parts = [self.release and f"QEMU {self.release}", self.machine, self.cpu, self.accel]
        return ", ".join(p for p in parts if p) or "a reference stream's writer"

    @functools.cached_property
    def expectation(self) -> Expectation:
        """What it expects; adds to `assumptions` what had to be supposed."""
        if self.reference is not None:
            return self.reference
        if self.version is None or self.machine is None:
            raise ValueError("a destination needs a reference stream, or a release")
        made, assumptions = compose.expectation(
            self.version, self.machine, self.cpu, self.accel, self.options, self.exclude
        )
        self.assumptions += assumptions
        for entry in made.entries.values() if self.dump is not None else ():
            dumped = self.dump.vmsds.get(entry.vmsd.name) if self.dump is not None and entry.vmsd is not None else None
            if dumped is not None:  # the section's version is its description's
                entry.version_id = dumped.version_id
        return made

    @functools.cached_property
    def absent(self) -> Obstacle | None:
        """Why this QEMU would not start, None where nothing is known against it."""
        if self.version is None or self.machine is None:
            return None
        found = compose.absent(self.version, self.machine, self.cpu, self.accel)
        if found is not None or self.accel != "tcg" or self.version < (2, 11, 1):
            return found
        for cap in facts.spapr_caps(self.version, self.machine) if self.machine.startswith("pseries") else ():
            level = self.caps.get(cap.name, self.cap_default(cap))
            if level and (cap.name == "htm" or (cap.name in ("cfpc", "sbbc", "ibs") and self.version < (4, 0, 0))):
                message = f"TCG does not do cap-{cap.name}={level}: QEMU does not start"
                off = "off" if cap.name == "htm" else "broken"
                return Obstacle(
                    "start", "capability", message, destination_value=level, remedy=f"-machine cap-{cap.name}={off}"
                )
        return None

    def registered(self, section: Section) -> Entry | None:
        """The entry that takes a section (`find_se`), None where the destination has none."""
        if self.reference is None and section.idstr in _unregistered(self.version):
            return None
        entry = self.expectation.find(section.idstr, section.instance_id, self.version) or self._always(section)
        if entry is None and self.reference is None:
            entry = self._device(section)
            if entry is not None:
                self.expectation.add([entry])
        return entry

    def _always(self, section: Section) -> Entry | None:
        """What every QEMU of the release has registered, though its own stream lacks it."""
        release = self.version or (0, 0, 0)
        if section.idstr == "globalstate" and release >= (2, 4, 0):
            return Entry(section.idstr, 0, 1)
        if (section.idstr == "block" and release < (9, 1, 0)) or (
            section.idstr == "dirty-bitmap" and release >= (2, 12, 0)
        ):
            return Entry(section.idstr, 0, section.version_id, iterable=True)
        return None

    def _device(self, section: Section) -> Entry | None:
        """A section that a destination with the stream's devices has: another CPU, a device the release knows."""
        assert self.version is not None
        for entry in self.expectation.entries.values():
            if entry.idstr == section.idstr:
                same_bridge = entry.instance_id >> 8 == section.instance_id >> 8
                if entry.idstr == "spapr_iommu" and same_bridge and self.expectation.exact:
                    return None  # its instance_id is a LIOBN: a window that this PCI host bridge does not have
                if entry.instance_id > _ADDRESS > section.instance_id and self.version < (5, 0, 0):
                    return None  # registered by its address, in the stream by its place
                values = entry.values if entry.idstr == "cpu" else {}
                return replace(entry, instance_id=section.instance_id, values=values, programs={})
        name = section.description.vmsd.name if section.description else section.idstr.rpartition("/")[2]
        vmsd = section.description.vmsd if section.description else Vmsd(name, section.version_id)
        here: dict[str, Any] = {
            "idstr": section.idstr,
            "instance_id": section.instance_id,
            "values": {},
            "programs": {},
        }
        seen = index.devices(self.version[:2]).get(section.idstr.rpartition("/")[2])
        if seen is not None and _alike(seen.vmsd, section.description):
            return replace(seen, **here)
        if handwritten.known(section.idstr):
            return Entry(version_id=section.version_id, iterable=True, **here)
        known = library.find(vmsd, self.version)
        if known is None and library.ever(name):
            return None
        if known is None or known.version_id < 0:
            self.assumptions.append(f"{section.idstr}: the destination has it, as the stream has")
            return Entry(version_id=section.version_id, iterable=section.part != "full", **here)
        return None if known.unmigratable else Entry(version_id=known.version_id, **here)

    def unmigratable(self, section: Section) -> bool:
        """Is the device one that this release refuses to migrate (`.unmigratable`)?"""
        if section.description is None:
            return False
        known = library.find(section.description.vmsd, self.version)
        return known is not None and known.unmigratable

    def resizable(self, block: str) -> bool:
        """RAM blocks that take the stream's length: files of fw_cfg (hw/core/loader.c: `rom_set_mr`, since 2.3)."""
        return "/rom@" in block or block.startswith("etc/")

    @functools.cached_property
    def caps(self) -> dict[str, int]:
        """Effective pseries capabilities that are not the default: name -> level."""
        found = {}
        entry = self.expectation.find("spapr", 0)
        for cap in facts.spapr_caps(self.version, self.machine):
            for (vmsd, _), value in entry.values.items() if entry else ():
                if vmsd == cap.subsection:
                    found[cap.name] = value
            option = self.options.get(f"cap-{cap.name}")
            if option is not None:
                found[cap.name] = _LEVELS.get(option, 0)
        return found

    def cap_default(self, cap: facts.Cap) -> int:
        """Its default for this machine type and CPU (`default_caps_with_cpu`)."""
        pvr = self.pvr
        family = facts.family(pvr) if pvr else None
        if cap.needs and family is not None and cap.needs not in family.levels:
            return 0
        return cap.default

    @functools.cached_property
    def pvr(self) -> int | None:
        entry = self.expectation.find("cpu", 0)
        return entry.values.get(("cpu", "pvr")) if entry else None

    def known(self, vmsd: Vmsd) -> Mapping[str, Vmsd | None]:
        """Subsections this release knows of a description, whether or not its own stream has them."""
        dumped = self.dump.vmsds.get(vmsd.name) if self.dump is not None else None
        if dumped is not None:
            return {s.name: s for s in dumped.subsections}
        return library.subsections(vmsd, self.version) or {}

    def word(self, word: str, entry: Entry) -> int | None:
        """The destination's own sanity-check word, whether or not it sends it."""
        try:
            models = catalog.model_of_pvr(self.pvr, self.release or "", nearest=True) if self.pvr else []
            words = catalog.words(models[0].name, self.release or "", self.accel or "tcg", self.machine, nearest=True)
            return int(getattr(words, word))
        except (CatalogError, IndexError):
            return next((v for n, w in rules.SANITY.items() if w == word and (v := entry.values.get(("cpu", n)))), None)

    def plan(self, stream: Stream, section: Section, entry: Entry, policy: Policy | None = None) -> Plan:
        """How this destination reads this section: made once per description and policy."""
        other = section.description
        key = (other and _interned(other), id(policy) if policy is not None and entry.idstr == "cpu" else None)
        made: Plan | None = entry.programs.get(key)
        if made is None:
            own = entry.vmsd
            assumptions = []
            if own is None:
                assert other is not None
                own = other.vmsd
                assumptions.append(f"{entry.idstr}: its description is not known; taken to be the stream's")
            known = library.find(own, self.version)
            dumped = self.dump.vmsds.get(own.name) if self.dump is not None else None
            if dumped is not None and dumped.version_id == own.version_id:
                own = replace(own, minimum_version_id=dumped.minimum_version_id)
            elif known is not None and not known.old and 0 < known.minimum_version_id <= own.version_id:
                own = replace(own, minimum_version_id=known.minimum_version_id)
            made = self._fitted(stream, section, entry, own, policy)
            if assumptions:
                made = replace(made, assumptions=[*made.assumptions, *assumptions])
            entry.programs[key] = made
            entry.programs["keep", key] = policy  # so that its id stays its own
        return made

    def _fitted(self, stream: Stream, section: Section, entry: Entry, own: Vmsd, policy: Policy | None) -> Plan:
        """The plan for this section. Where neither a value nor the machine type had a say, it is made once for all
        destinations of the release.
        """
        other = section.description
        shared = None
        if other is not None and self.dump is None and (policy is None or entry.idstr != "cpu"):
            shared = _number(own), _interned(other), self.version, self.reference is None
            if shared in _plans:
                return _plans[shared]
        asked: list[str] = []

        def mine(vmsd: str, path: str) -> Any:
            asked.append(path)
            return entry.values.get((vmsd, path))

        @functools.cache
        def their_values() -> Mapping[tuple[str, str], Any]:
            return values_of(stream, section, other) if other is not None else {}

        def theirs(vmsd: str, path: str) -> Any:
            asked.append(path)
            return their_values().get((vmsd, path))

        def condition(vmsd: Vmsd, field: FieldDescription) -> library.Condition | None:
            gate = library.gated(vmsd.name, field.name, self.version, self.machine)
            if gate is not None:
                asked.append(field.name)
            return gate or library.condition(vmsd, field, self.version)

        made = plan.make(
            own,
            other.vmsd if other is not None else None,
            known=self.known,
            values=entry.values,
            mine=mine,
            theirs=theirs,
            condition=condition,
            varies=lambda vmsd, f: library.varies(vmsd, f, self.version),
            composed=self.reference is None,
            has=lambda vmsd: library.has(vmsd, self.version),
            as_read=library.as_read,
            compiler=self._compiler(entry, policy),
        )
        if shared is not None and not asked:
            _plans[shared] = made
        return made

    def _compiler(self, entry: Entry, policy: Policy | None) -> Compiler:
        if policy is None:
            return Compiler(wanted=rules.wanted)

        def is_word(vmsd: str, f: FieldDescription) -> bool:
            return vmsd == "cpu" and f.name in rules.SANITY

        def size_of(vmsd: str, f: FieldDescription) -> int:
            if not is_word(vmsd, f):
                return f.size
            return policy.size_of(f, rules.context(rules.SANITY[f.name], f.label, self, entry))

        return Compiler(
            wanted=rules.wanted, checked=lambda vmsd, f: is_word(vmsd, f) or compared(vmsd, f), size_of=size_of
        )


# A larger instance_id is an address: of memory-mapped serial ports before 5.0 (hw/char/serial.c: `serial_mm_init`).
_ADDRESS = 0x3FF


@functools.cache
def _unregistered(release: tuple[int, int, int] | None) -> frozenset[str]:
    """Sections that a release forgot to register (data/compat/unregistered.csv)."""
    if release is None:
        return frozenset()
    return frozenset(row["idstr"] for row in facts.rows("unregistered") if facts.holds(row, release))


_vmsds: dict[Vmsd, int] = {}
_plans: dict[tuple[int, int, tuple[int, ...] | None, bool], Plan] = {}


def _number(vmsd: Vmsd) -> int:
    """The same number for descriptions that say the same."""
    return _vmsds.setdefault(vmsd, len(_vmsds))


def _interned(description: Description) -> int:
    """A number for what a description says: streams of one kind have one, whatever else their vmdescs hold."""
    if "interned" not in description.cache:
        description.cache["interned"] = _number(description.vmsd)
    number: int = description.cache["interned"]
    return number


_LEVELS = {"off": 0, "on": 1, "broken": 0, "workaround": 1, "fixed": 2, "fixed-ibs": 2, "fixed-ccd": 3, "fixed-na": 4}


def _alike(vmsd: Vmsd | None, description: Description | None) -> bool:
    """May these be of one device? Every target has its own `cpu`."""
    if vmsd is None or description is None or description.old_style:
        return True
    ours, theirs = ({f.name for f in v.fields} for v in (vmsd, description.vmsd))
    return 2 * len(ours & theirs) >= min(len(ours), len(theirs))


def _guess_machine(stream: Stream) -> str:
    """A machine type for a stream that does not say: it is 2.3 or older, or a guest without versions."""
    names = {s.idstr for s in stream.sections}
    if "spapr" in names:
        return "pseries-2.2" if stream.vmdesc is None else "pseries-2.3"
    if any(n.endswith("mch") for n in names):
        return "pc-q35-2.2" if stream.vmdesc is None else "pc-q35-2.3"
    return "pc-i440fx-2.2" if stream.vmdesc is None else "pc-i440fx-2.3"


class _Told(NamedTuple):
    """What a stream says of the QEMU that wrote it: the PVR of a ppc guest's first CPU, None elsewhere."""

    machine: str
    pvr: int | None


_told: WeakKeyDictionary[Stream, _Told] = WeakKeyDictionary()


def _told_by(stream: Stream) -> _Told:
    if stream not in _told:
        _told[stream] = _Told(stream.machine or _guess_machine(stream), _pvr(stream))
    return _told[stream]


def _pvr(stream: Stream) -> int | None:
    section = next((s for s in stream.sections if s.idstr == "cpu"), None)
    if section is None or section.description is None:
        return None
    at = section.payload_offset  # env.spr is an array of target_ulong behind fields of fixed size
    for f in section.description.vmsd.fields:
        if f.name == "env.spr" and f.count is not None and f.count > rules.SPR_PVR:
            at += rules.SPR_PVR * f.size
            return int.from_bytes(stream.view[at : at + f.size], "big")
        at += f.size * (1 if f.count is None else f.count)
    return None


@functools.lru_cache(maxsize=4096)
def _model_of(pvr: int | None, release: str) -> str | None:
    try:
        return next((m.name for m in catalog.model_of_pvr(pvr, release, nearest=True)), None) if pvr else None
    except CatalogError:
        return None


# -- an expectation out of a stream -----------------------------------------------------------------------------------


def expectation_of(stream: Stream, release: str | None) -> Expectation:
    """What the writer of this stream expects when it is to read one."""
    sections = [s for s in stream.sections if s.part in ("start", "full")]
    expectation = Expectation(
        configuration=stream.machine,
        page_bits=stream.configuration.get("page_bits"),
        capabilities=tuple(stream.configuration.get("capabilities", ())),
        footers=any(s.footer is not None for s in stream.sections),
        ram=rules.blocks_of(stream),
        ram_records=rules.record_kinds(stream),
        page_size=stream.page_size,
    )
    expectation.add(entry_of(stream, section, release) for section in sections)
    return expectation


def entry_of(stream: Stream, section: Section, release: str | None) -> Entry:
    """One section as its writer would read it."""
    entry = Entry(section.idstr, section.instance_id, section.version_id, size=section.payload_size)
    description = section.description
    if section.part == "start" or handwritten.known(section.idstr):
        entry.iterable = True
        entry.values = {("", leaf.path): leaf.value for leaf in section.leaves if leaf.path == "htab_shift"}
        return entry
    if description is None or description.origin == "built-in":
        description = library.describe(stream, section, release)
    if description is not None:
        entry.old_style = description.old_style
        entry.vmsd = description.vmsd
        entry.values = {} if description.old_style else values_of(stream, section, description)
    return entry


def values_of(stream: Stream, section: Section, description: Description) -> dict[tuple[str, str], Any]:
    """Numbers of a described section by (vmsd, path), and what rules want; long arrays of structs are left out."""
    layout = layout_of(description, section.payload_size)
    data = np.frombuffer(stream.view, np.uint8)
    single = (layout.count == 0) & (layout.kind != BYTES)
    which = np.flatnonzero(single)
    if len(which) > 4096:
        which = np.array([i for i in which if layout.types[i].endswith(" equal")], np.int64)
    words = gather(data, layout.offset[which] + section.payload_offset, layout.width[which], layout.kind[which])
    values: dict[tuple[str, str], Any] = {}
    for i, word in zip(which.tolist(), words.tolist(), strict=True):
        signed = NUMBERS.get(layout.types[i], (0, False))[1]
        values[layout.vmsds[i], layout.paths[i]] = word - (1 << 64) if signed and word >> 63 else word
    for i in range(len(layout.paths)):
        path = layout.paths[i]
        if rules.wanted(layout.vmsds[i], path.rsplit(".", 1)[-1]) or rules.wanted(layout.vmsds[i], path):
            at, size = section.payload_offset + int(layout.offset[i]), int(layout.length[i])
            if path == "env.spr":
                at += rules.SPR_PVR * int(layout.width[i])
                pvr = bytes(stream.view[at : at + int(layout.width[i])])
                values["cpu", "pvr"] = int.from_bytes(pvr, "big")
            elif (layout.vmsds[i], path) not in values and path != "env.gpr":
                values[layout.vmsds[i], path] = bytes(stream.view[at : at + size])
    return values
