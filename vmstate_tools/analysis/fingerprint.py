"""Which QEMU releases could have written a stream, and what in it says so.

A migration stream does not name its writer: the machine type it carries is the guest's, and may be many releases
older. What it is made of does tell: framing that came or went with a release, machine types that exist from one
release to another, and the descriptions of its devices, whose versions and fields QEMU's source fixes release by
release. Each is a set of releases; the writer is in all of them.

Only what every writer of a release must or cannot do is used. A field that depends on the guest's state, a device
that was never observed, a machine type of a distribution's own say nothing, and exclude nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vmstate_tools.analysis.fingerprint_facts import (
    RELEASES,
    Definition,
    field_types,
    sending,
    source_of,
    with_machine,
)
from vmstate_tools.errors import printable
from vmstate_tools.facts import framing
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.facts.machines import is_versioned, version_of
from vmstate_tools.format.framing import Record
from vmstate_tools.stream.cpu_words import SPR_PVR
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.description import StreamDescription, element_of
from vmstate_tools.vmstate.layout import UNSIGNED, read_value

if TYPE_CHECKING:
    import pandas as pd

    from vmstate_tools.stream.records import Section
    from vmstate_tools.vmstate.description import Vmsd

_VMDESC_HEADER = 5  # bytes of type and length before the JSON


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence is something seen in a stream, and the set of releases that can have written it.

    Attributes
    ----------
    what, where : what was seen, in which section or part of the stream.
    bits : the releases (see `release.Covered`).
    source : where in QEMU the fact comes from.
    """

    what: str
    where: str
    bits: int
    source: str


class Fingerprint:
    """A Fingerprint is the set of releases that could have written a stream.

    Attributes
    ----------
    releases : x.y, oldest first; empty where the evidence contradicts itself (a patched QEMU, an edited stream).
    found : all evidence that excludes some release.
    """

    def __init__(self, file: str, releases: list[str], found: tuple[Evidence, ...]) -> None:
        self.file = file
        self.releases = releases
        self.found = found

    @property
    def unique(self) -> bool:
        """Tells whether only one release could have written the stream."""
        return len(self.releases) == 1

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """Returns a row for each thing seen that excludes some release.

        Columns (str): what, where (section, or part of the stream), since and until (release; '' where open),
        releases (all that can have written it, as runs), source (where in QEMU the fact comes from).
        """
        import pandas as pd

        rows = []
        for e in self.found:
            inside = RELEASES.names(e.bits)
            since = "" if e.bits & 1 or not inside else inside[0]
            until = "" if e.bits >> (len(RELEASES.series) - 1) or not inside else inside[-1]
            rows.append((e.what, e.where, since, until, RELEASES.runs(e.bits), e.source))
        return pd.DataFrame(rows, columns=["what", "where", "since", "until", "releases", "source"]).astype("str")

    @property
    def deciding(self) -> list[Evidence]:
        """Returns the fewest pieces of evidence, taken greedily, that leave these releases."""
        left, chosen = RELEASES.all, []
        rest = list(self.found)
        while rest:
            best = min(rest, key=lambda e: (left & e.bits).bit_count())
            if left & best.bits == left:
                break
            left &= best.bits
            chosen.append(best)
            rest.remove(best)
        return chosen

    @property
    def _runs(self) -> str:
        return RELEASES.runs(sum(RELEASES.bit[release] for release in self.releases))

    def explain(self) -> str:
        """Returns a few lines of plain text: the releases, and the evidence that decides."""
        if self.releases:
            head = f"{printable(self.file)}: written by QEMU {self._runs.replace(' ', ', ')}"
        else:
            head = f"{printable(self.file)}: no QEMU release writes all that is in this stream"
        lines = [
            f"  {printable(e.what)} ({printable(e.where)}): {RELEASES.runs(e.bits) or 'no release'}; {e.source}"
            for e in self.deciding
        ]
        return "\n".join([head, *lines])

    def to_json(self) -> dict[str, Any]:
        """Returns releases, the same as runs (`2.1-2.6`, `8.0-`), and the evidence that decides, for `vmstate info`."""
        evidence = [
            {"what": e.what, "where": e.where, "runs": RELEASES.runs(e.bits).split(), "source": e.source}
            for e in self.deciding
        ]
        return {"releases": self.releases, "runs": self._runs.split(), "evidence": evidence}

    def __repr__(self) -> str:
        return f"<Fingerprint of {printable(self.file)}: {' '.join(self.releases) or 'no release'}>"


def fingerprint(stream: Stream | str | os.PathLike[str]) -> Fingerprint:
    """Names the QEMU releases (x.y from 1.6 to 11.1) that could have written a stream, opened or a path.

    Raises
    ------
    StreamError : the stream cannot be read.
    CatalogError : the facts about releases cannot.
    """
    if isinstance(stream, (str, os.PathLike)):
        with open_stream(stream) as opened:
            return fingerprint(opened)
    sections = [s for s in stream.distinct_sections if s.part in ("start", "full")]
    seen = (
        *_framing(stream, sections),
        *_machine(stream),
        *_descriptions(stream, sections),
        *_cpu_words(stream, sections),
    )
    found = tuple(dict.fromkeys(e for e in seen if e.bits != RELEASES.all))
    return Fingerprint(stream.name, RELEASES.names(_common(found)), found)


def _common(evidence: Iterable[Evidence]) -> int:
    """Returns the releases that all of the evidence leaves."""
    bits = RELEASES.all
    for e in evidence:
        bits &= e.bits
    return bits


# -- framing and machine type ------------------------------------------------------------------------------------------


def _framing(stream: Stream, sections: list[Section]) -> Iterator[Evidence]:
    facts = framing.facts()
    names = [*_configuration_facts(stream), *_section_facts(sections)]
    found = [facts[name] for name in names if name in facts]
    found += (framing.command(number) for number in {c.value.command for c in stream.commands.distinct})
    found += (facts[name] for name in (*_page_facts(stream), *_vmdesc_facts(stream)))
    for fact in found:
        yield Evidence(fact.what, "framing", RELEASES.span(fact.since, fact.until), fact.source)


def _configuration_facts(stream: Stream) -> Iterator[str]:
    """Yields names of facts about the configuration; capabilities that came with the section have none."""
    sent = stream.configuration
    if sent:
        yield "configuration"
        yield from (f"configuration {key}" for key in ("page_bits", "capabilities", "uuid") if key in sent)
        yield from (f"capability {capability}" for capability in sent.get("capabilities", ()))


def _section_facts(sections: list[Section]) -> Iterator[str]:
    if any(s.footer for s in sections):
        yield "footer"
    first_ram = next((i for i, s in enumerate(sections) if s.idstr == "ram"), 0)
    if any(s.part == "full" for s in sections[:first_ram]):
        yield "early section"


def _page_facts(stream: Stream) -> Iterator[str]:
    flags = stream.ram.flags
    for flag, name in ((0x100, "page compressed"), (0x200, "multifd flush")):
        if flags & flag:
            yield name


def _vmdesc_facts(stream: Stream) -> Iterator[str]:
    text = _vmdesc_text(stream)
    if not text:
        return
    yield "vmdesc"
    yield "vmdesc spaced" if text[:2] == b"{ " else "vmdesc compact"
    if stream.configuration:
        yield "vmdesc configuration" if b'"configuration"' in text[:20] else "vmdesc no configuration"
    if any(b'"instance_id"' + colon + b"-" in text for colon in (b":", b": ", b" :", b" : ")):
        yield "vmdesc signed instance_id"


def _vmdesc_text(stream: Stream) -> bytes:
    if stream.vmdesc is None or stream.vmdesc_place is None:
        return b""
    offset, size = stream.vmdesc_place
    return bytes(stream.view[offset + _VMDESC_HEADER : offset + size])


def _machine(stream: Stream) -> Iterator[Evidence]:
    machine = stream.machine
    if machine is None:
        return
    bits = with_machine(machine)
    version = version_of(machine)
    if version is not None and version.series in RELEASES.bit and is_versioned(machine):
        bits &= RELEASES.span(version.series)
    yield Evidence(f"machine type {machine}", "configuration", bits, "the machine types of each release")


# -- descriptions ------------------------------------------------------------------------------------------------------


def _descriptions(stream: Stream, sections: list[Section]) -> Iterator[Evidence]:
    if stream.vmdesc is not None:
        yield from _described(stream.vmdesc)
        return
    for section in sections:
        vmsd = _vmsd_of(section.idstr)
        if vmsd is not None:
            yield from _of_description(vmsd, section.version_id, None, section.label)
            yield from _subsections(stream, section)


def _described(vmdesc: StreamDescription) -> list[Evidence]:
    """Returns the evidence in a vmdesc; streams that have the same vmdesc share it."""
    if "fingerprint" not in vmdesc.cache:
        shapes, types = _Shapes(), framing.facts()
        for device in vmdesc.devices:
            if not device.opaque:
                shapes.collect(device.vmsd, f"{device.idstr}/{device.instance_id}")
        found = [e for shape, where in shapes.found.items() for e in _of_description(*shape, where)]
        for type_, where in shapes.types.items():
            fact = types.get(f"type {type_}")
            if fact is not None:
                found.append(Evidence(fact.what, "framing", RELEASES.span(fact.since, fact.until), fact.source))
            elif type_ in field_types():
                source = f"VMStateInfo {printable(type_)}"
                found.append(Evidence(f"field type {type_}", where, field_types()[type_], source))
        vmdesc.cache["fingerprint"] = [e for e in found if e.bits != RELEASES.all]
    evidence: list[Evidence] = vmdesc.cache["fingerprint"]
    return evidence


def _vmsd_of(idstr: str) -> str | None:
    """Returns the description that a section is of: its idstr, less the path of the device's bus."""
    while not idstr or not source_of(idstr).definitions:
        _, slash, idstr = idstr.partition("/")
        if not slash:
            return None
    return idstr


_SUBSECTION = re.compile(
    rb"%c([\x03-\x50])([a-z][\w/.-]+/[\w.-]+)" % Record.SUBSECTION
)  # type, length of the name, a name with a slash


def _subsections(stream: Stream, section: Section) -> Iterator[Evidence]:
    """Yields what headers of subsections say in the bytes of a section that the stream does not describe."""
    if section.part != "full":
        return
    payload = bytes(stream.view[section.payload_offset : section.payload_end])
    for match in _SUBSECTION.finditer(payload):
        size = match[1][0]
        name = match[2][:size].decode("ascii", "replace")
        version = payload[match.start(2) + size : match.start(2) + size + 4]
        if len(name) == size and len(version) == 4 and source_of(name).definitions:
            yield from _of_description(name, int.from_bytes(version, "big"), None, section.label)


@dataclass
class _Shapes:
    """The descriptions in a vmdesc, each shape once, and the types of their fields; with the section they are in."""

    found: dict[tuple[str, int, frozenset[tuple[str, str]]], str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def collect(self, vmsd: Vmsd, where: str) -> None:
        """Adds a description and all in it."""
        fields = set()
        for f in vmsd.fields:
            fields.add((f.name, f.type))
            if f.struct is not None:
                self.collect(f.struct, where)
            self.types.setdefault(f.type, where)
        self.found.setdefault((vmsd.name, vmsd.version_id, frozenset(fields)), where)
        for sub in vmsd.subsections:
            self.collect(sub, where)


def _of_description(
    vmsd: str, version: int, fields: frozenset[tuple[str, str]] | None, where: str
) -> Iterator[Evidence]:
    """Yields evidence from a description: each item by itself, then all together where that says more.

    Parameters
    ----------
    fields : name and type of each; None where they are not known.
    """
    source = source_of(vmsd) if vmsd else None
    if source is None or not source.definitions:
        return
    match = _Match(vmsd, where, tuple(source.definitions.values()), source.occurs)
    match.version(version)
    if fields is not None:
        for name, type_ in sorted(fields):
            match.has(name, type_)
        match.lacks({name for name, _ in fields})
    yield from match.items
    together = match.together
    if together != _common(match.items):
        yield Evidence(f"vmsd {vmsd} as a whole", where, together, match.source)


class _Match:
    """A description in a stream against the definitions of its name.

    Attributes
    ----------
    items : evidence from each item by itself.
    joint : for each definition, the releases in which it agrees with all items.
    unread : the releases that have the name in a form that was not understood: nothing excludes them.
    """

    def __init__(self, vmsd: str, where: str, definitions: tuple[Definition, ...], occurs: int) -> None:
        self.vmsd, self.where, self.definitions = vmsd, where, definitions
        self.source = f"VMStateDescription {printable(vmsd)}"
        self.items: list[Evidence] = []
        self.joint = [d.exists for d in definitions]
        self.known = 0
        for d in definitions:
            self.known |= d.exists
        self.unread = occurs & ~self.known
        self.listed = {name for d in definitions for name in (*d.fields, *d.types)}

    @property
    def together(self) -> int:
        """Returns the releases that have a definition which agrees with all items."""
        bits = self.unread
        for joint in self.joint:
            bits |= joint
        return bits

    def version(self, version: int) -> None:
        """Looks at the version."""
        self._narrow(f"version {version}", [d.with_version(version) for d in self.definitions])

    def has(self, name: str, type_: str) -> None:
        """Looks at a field that the description has."""
        array = (element_of(name) or (name,))[0]  # QEMU numbers fields of one name
        if name not in self.listed and array not in self.listed:
            self._add(f"has {name} ({type_})", self.known | self.unread)
            return
        distinguishes = len(self.definitions) > 1 and any(name in d.fields for d in self.definitions)
        each = [
            d.open if distinguishes and name not in d.fields else d.with_field(name, array, type_)
            for d in self.definitions
        ]
        self._narrow(f"has {name} ({type_})", each)

    def lacks(self, names: set[str]) -> None:
        """Looks at the fields that some definition always has, and the description, which has `names`, does not."""
        missing = set()
        for i, d in enumerate(self.definitions):
            for name, bits in d.always.items():
                if name not in names and f"{name}[0]" not in names:
                    missing.add(name)
                    self.joint[i] &= ~bits
        for name in sorted(missing):
            bits = self.unread
            for d in self.definitions:
                bits |= d.exists & ~d.always.get(name, 0)
            self._add(f"lacks {name}", bits)

    def _narrow(self, what: str, each: list[int]) -> None:
        """Adds an item that each definition allows in some releases."""
        bits = self.unread
        for i, allowed in enumerate(each):
            bits |= self.definitions[i].exists & allowed
            self.joint[i] &= allowed
        self._add(what, bits)

    def _add(self, what: str, bits: int) -> None:
        if bits != RELEASES.all:
            self.items.append(Evidence(f"vmsd {self.vmsd} {what}", self.where, bits, self.source))


# -- the ppc CPU's words -----------------------------------------------------------------------------------------------


def _cpu_words(stream: Stream, sections: list[Section]) -> Iterator[Evidence]:
    """Yields what the words in a ppc CPU's section say (until 9.1): which releases give its PVR these values."""
    section = next((s for s in sections if s.idstr == "cpu" and s.description is not None), None)
    if section is None or section.description is None:
        return
    if all(f.name != "env.nip" for f in section.description.vmsd.fields):  # another target's
        return
    layout = stream.layout(section)
    nip = layout.find("env.nip")
    if not nip or layout.place(*nip[0])[1] != 8:  # the catalog is of 64-bit targets
        return

    def value(path: str) -> int:
        offset, width = layout.place(*layout.find(path)[0])
        return int(read_value(UNSIGNED, stream.view, section.payload_offset, offset, width))

    pvr_path = f"env.spr[{SPR_PVR}]"
    seen = {word: value(path) for path, word in WORD_OF_FIELD.items() if layout.find(path)}
    if not seen or not layout.find(pvr_path):
        return
    pvr = value(pvr_path)
    pseries = any(s.idstr.startswith("spapr") for s in sections)
    for word, found in seen.items():
        what = f"{word} 0x{found:x} of a CPU with PVR 0x{pvr:08x}"
        yield Evidence(what, section.label, sending(pvr, pseries, word, found), "target/ppc/cpu_init.c: data/catalog")
