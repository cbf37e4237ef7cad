"""Which QEMU releases could have written a stream, and what in it says so.

A migration stream does not name its writer: the machine type it carries is the guest's, and may be many releases
older. What it is made of does tell: framing that came or went with a release, machine types that exist from one
release to another, and the descriptions of its devices, whose versions and fields QEMU's source fixes release by
release. Each is a set of releases; the writer is in all of them.

Only what every writer of a release must or cannot do is used. A field that depends on the guest's state, a device
never seen, a machine type of a distribution's own say nothing, and exclude nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from vmstate_tools.data import data_path
from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.format.framing import COMMAND_NAMES
from vmstate_tools.release import covered
from vmstate_tools.stream.stream import open_stream
from vmstate_tools.vmstate.description import element_of

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator
    from typing import Any

    import pandas as pd

    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream
    from vmstate_tools.vmstate.description import Vmsd

_RELEASES = covered()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something seen in a stream, and the releases (as bits) that can have written it."""

    what: str
    where: str
    bits: int
    source: str


class Fingerprint:
    """The releases that could have written a stream.

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
        return len(self.releases) == 1

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """A row per thing seen that excludes some release.

        Columns (str): what, where (section, or part of the stream), since and until (release; '' where open),
        releases (all that can have written it, as runs), source (where in QEMU the fact comes from).
        """
        import pandas as pd

        rows = []
        for e in self.found:
            inside = _RELEASES.names(e.bits)
            since = "" if e.bits & 1 or not inside else inside[0]
            until = "" if e.bits >> (len(_RELEASES.series) - 1) or not inside else inside[-1]
            rows.append((e.what, e.where, since, until, _RELEASES.runs(e.bits), e.source))
        return pd.DataFrame(rows, columns=["what", "where", "since", "until", "releases", "source"]).astype("str")

    @property
    def deciding(self) -> list[Evidence]:
        """The fewest pieces of evidence, taken greedily, that leave these releases."""
        left, chosen = _RELEASES.all, []
        rest = list(self.found)
        while rest:
            best = min(rest, key=lambda e: (left & e.bits).bit_count())
            if left & best.bits == left:
                break
            left &= best.bits
            chosen.append(best)
            rest.remove(best)
        return chosen

    def explain(self) -> str:
        """A few lines of plain text: the releases, and the evidence that decides."""
        if self.releases:
            bits = sum(_RELEASES.bit[r] for r in self.releases)
            head = f"{printable(self.file)}: written by QEMU {_RELEASES.runs(bits).replace(' ', ', ')}"
        else:
            head = f"{printable(self.file)}: no QEMU release writes all that is in this stream"
        lines = [
            f"  {printable(e.what)} ({printable(e.where)}): {_RELEASES.runs(e.bits) or 'no release'}; {e.source}"
            for e in self.deciding
        ]
        return "\n".join([head, *lines])

    def to_json(self) -> dict[str, Any]:
        """Releases, the same as runs (`2.1-2.6`, `8.0-`), and the evidence that decides, as `vmstate info` shows it."""
        evidence = [
            {"what": e.what, "where": e.where, "runs": _RELEASES.runs(e.bits).split(), "source": e.source}
            for e in self.deciding
        ]
        bits = sum(_RELEASES.bit[r] for r in self.releases)
        return {"releases": self.releases, "runs": _RELEASES.runs(bits).split(), "evidence": evidence}

    def __repr__(self) -> str:
        return f"<Fingerprint of {printable(self.file)}: {' '.join(self.releases) or 'no release'}>"


def fingerprint(stream: Stream | str | os.PathLike[str]) -> Fingerprint:
    """Name the QEMU releases (x.y from 1.6 to 11.1) that could have written a stream, opened or a path.

    Raises StreamError where the stream cannot be read, VmstateError where the facts cannot.
    """
    if isinstance(stream, (str, os.PathLike)):
        with open_stream(stream) as opened:
            return fingerprint(opened)
    sections = [s for s in stream.sections if s.part in ("start", "full")]
    seen = (
        *_framing(stream, sections),
        *_machine(stream),
        *_descriptions(stream, sections),
        *_cpu_words(stream, sections),
    )
    found = tuple(dict.fromkeys(e for e in seen if e.bits != _RELEASES.all))
    return Fingerprint(stream.name, _RELEASES.names(_common(found)), found)


def _common(evidence: Iterable[Evidence]) -> int:
    """The releases that all of it leaves."""
    bits = _RELEASES.all
    for e in evidence:
        bits &= e.bits
    return bits


# -- facts ------------------------------------------------------------------------------------------------------


@lru_cache(8)
def _table(name: str) -> bytes:
    try:
        return data_path("fingerprint", name).read_bytes()
    except OSError as err:
        raise VmstateError(f"the facts about releases cannot be read: {err}") from None


def _rows(name: str, key: str | None = None) -> list[dict[str, str]]:
    """The rows of a table; with `key` those whose first column is that."""
    table = _table(name)
    start = table.index(b"\n") + 1
    columns = table[: start - 1].decode().split(",")
    rows = _cells(table[start:]) if key is None else _cells_of(name, key)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _cells_of(name: str, key: str) -> list[list[str]]:
    """The rows whose first column is `key`, found by bisection: the table is sorted."""
    table, raw = _table(name), key.encode()
    low, high = table.index(b"\n") + 1, len(table)
    while low < high:
        line = table.rfind(b"\n", low, (low + high) // 2) + 1 or low
        if _key_at(table, line) < raw:
            low = table.index(b"\n", line) + 1
        else:
            high = line
    end, first = low, b'"%b",' % raw if b"," in raw else raw + b","
    while table.startswith(first, end):
        end = table.index(b"\n", end) + 1
    return _cells(table[low:end])


def _key_at(table: bytes, line: int) -> bytes:
    if table[line] == ord('"'):
        return table[line + 1 : table.index(b'"', line + 1)]
    return table[line : table.index(b",", line)]


def _cells(lines: bytes) -> list[list[str]]:
    if b'"' in lines:
        import csv

        return list(csv.reader(lines.decode().splitlines()))
    return [line.split(",") for line in lines.decode().splitlines()]


@lru_cache(1)
def _framing_facts() -> dict[str, Evidence]:
    facts = {}
    for line in _table("framing.csv").decode().splitlines()[1:]:
        fact, what, since, until, source = line.split(",", 4)  # only the source has commas: no need of csv
        facts[fact] = Evidence(what, "framing", _RELEASES.span(since, until), source.strip('"'))
    return facts


@lru_cache(1024)
def _machine_bits(machine: str) -> int:
    rows = _rows("machines.csv", machine)
    return _RELEASES.parse(rows[0]["releases"]) if rows else _RELEASES.all


class _Definition:
    """What QEMU's source says of one VMStateDescription: releases as bits."""

    __slots__ = ("always", "exists", "fields", "open", "types", "versions")

    def __init__(self) -> None:
        self.exists = 0
        self.open = 0  # where a field not listed here may stand
        self.versions: dict[str, int] = {}
        self.fields: dict[str, int] = {}
        self.types: dict[str, dict[str, int]] = {}
        self.always: dict[str, int] = {}

    def version(self, version_id: int) -> int:
        return self.versions.get(str(version_id), _RELEASES.unread) | self.versions.get("?", 0)

    def field(self, name: str, short: str, type_: str) -> int:
        """The releases that can write this field; `short` is its name as it stands in the source."""
        bits = self.fields.get(name)
        if bits is None:
            bits = self.fields.get(short, _RELEASES.all)
        known = self.types.get(name)
        if known is not None:
            bits &= known.get(type_, _RELEASES.unread) | known.get("?", 0)
        return bits


_read = lru_cache(8192)(_RELEASES.parse)


@lru_cache(8192)
def _source_facts(vmsd: str) -> tuple[dict[str, _Definition], int]:
    """Of a VMStateDescription: symbol → what its definition says; and the releases in whose source the name occurs."""
    definitions: dict[str, _Definition] = {}
    occurs = _RELEASES.all
    for _, symbol, kind, what, releases in _cells_of("descriptions.csv", vmsd):
        bits = _read(releases)
        if kind == "name":
            occurs = bits
            continue
        d = definitions.get(symbol)
        if d is None:
            d = definitions[symbol] = _Definition()
        if kind == "defined":
            d.exists = bits
        elif kind == "open":
            d.open = bits
        elif kind == "version":
            d.versions[what] = bits
        elif kind == "field":
            d.fields[what] = bits
        elif kind == "always":
            d.always[what] = bits
        elif kind == "type":
            name, type_ = what.rsplit(":", 1)
            d.types.setdefault(name, {})[type_] = bits
    return definitions, occurs


@lru_cache(1)
def _types() -> dict[str, int]:
    """Field type (a VMStateInfo's name) → the releases that have it."""
    return {row["what"]: _read(row["releases"]) for row in _rows("descriptions.csv", "") if row["kind"] == "info"}


# -- what a stream shows ----------------------------------------------------------------------------------------


def _framing(stream: Stream, sections: list[Section]) -> Iterator[Evidence]:
    facts = _framing_facts()
    if stream.configuration:
        yield facts["configuration"]
        for key in ("page_bits", "capabilities", "uuid"):
            if key in stream.configuration:
                yield facts[f"configuration {key}"]
        for capability in stream.configuration.get("capabilities", ()):
            if f"capability {capability}" in facts:
                yield facts[f"capability {capability}"]
    if any(s.footer for s in sections):
        yield facts["footer"]
    first_ram = next((i for i, s in enumerate(sections) if s.idstr == "ram"), 0)
    if any(s.part == "full" for s in sections[:first_ram]):
        yield facts["early section"]
    for number in {c.value.command for c in stream.commands}:
        yield facts.get(f"command {COMMAND_NAMES.get(number)}", facts["command"])
    flags = stream.ram.flags
    for flag, name in ((0x100, "page compressed"), (0x200, "multifd flush")):
        if flags & flag:
            yield facts[name]
    text = _vmdesc_text(stream)
    if not text:
        return
    yield facts["vmdesc"]
    yield facts["vmdesc spaced" if text[:2] == b"{ " else "vmdesc compact"]
    if stream.configuration:
        yield facts["vmdesc configuration" if b'"configuration"' in text[:20] else "vmdesc no configuration"]
    if any(b'"instance_id"' + colon + b"-" in text for colon in (b":", b": ", b" :", b" : ")):
        yield facts["vmdesc signed instance_id"]


def _vmdesc_text(stream: Stream) -> bytes:
    if stream.vmdesc is None or stream.vmdesc_place is None:
        return b""
    offset, size = stream.vmdesc_place
    return bytes(stream.view[offset + 5 : offset + size])


def _machine(stream: Stream) -> Iterator[Evidence]:
    machine = stream.machine
    if machine is None:
        return
    bits = _machine_bits(machine)
    number = machine.removesuffix("-sxxm").rpartition("-")[2]
    if number in _RELEASES.bit and machine.startswith(("pseries", "pc-", "virt-", "s390-ccw-virtio-")):
        bits &= _RELEASES.span(number)
    yield Evidence(f"machine type {machine}", "configuration", bits, "the machine types of each release")


def _descriptions(stream: Stream, sections: list[Section]) -> Iterator[Evidence]:
    vmdesc = stream.vmdesc
    if vmdesc is None:
        for section in sections:
            vmsd = _vmsd_of(section.idstr)
            if vmsd is not None:
                yield from _match(vmsd, section.version_id, None, section.label)
                yield from _subsections(stream, section)
        return
    if "fingerprint" not in vmdesc.cache:
        shapes: dict[tuple[str, int, frozenset[tuple[str, str]]], str] = {}
        types: dict[str, str] = {}
        for device in vmdesc.devices:
            if not device.opaque:
                _collect(device.vmsd, f"{device.idstr}/{device.instance_id}", shapes, types)
        found = [e for (name, version, fields), where in shapes.items() for e in _match(name, version, fields, where)]
        known = _types()
        for type_, where in types.items():
            if f"type {type_}" in _framing_facts():
                found.append(_framing_facts()[f"type {type_}"])
            elif type_ in known:
                found.append(Evidence(f"field type {type_}", where, known[type_], f"VMStateInfo {printable(type_)}"))
        vmdesc.cache["fingerprint"] = [e for e in found if e.bits != _RELEASES.all]
    yield from vmdesc.cache["fingerprint"]


def _vmsd_of(idstr: str) -> str | None:
    """The description a section is of: its idstr, less the path of the device's bus."""
    while not idstr or not _source_facts(idstr)[0]:
        _, slash, idstr = idstr.partition("/")
        if not slash:
            return None
    return idstr


def _subsections(stream: Stream, section: Section) -> Iterator[Evidence]:
    """Headers of subsections in the bytes of a section that the stream does not describe."""
    if section.part != "full":
        return
    payload = bytes(stream.view[section.payload_offset : section.payload_end])
    for match in re.finditer(rb"\x05([\x03-\x50])([a-z][\w/.-]+/[\w.-]+)", payload):
        size = match[1][0]
        name = match[2][:size].decode("ascii", "replace")
        version = payload[match.start(2) + size : match.start(2) + size + 4]
        if len(name) == size and len(version) == 4 and _source_facts(name)[0]:
            yield from _match(name, int.from_bytes(version, "big"), None, section.label)


def _collect(
    vmsd: Vmsd,
    where: str,
    shapes: dict[tuple[str, int, frozenset[tuple[str, str]]], str],
    types: dict[str, str],
) -> None:
    fields = set()
    for field in vmsd.fields:
        fields.add((field.name, field.type))
        if field.struct is not None:
            _collect(field.struct, where, shapes, types)
        types.setdefault(field.type, where)
    shapes.setdefault((vmsd.name, vmsd.version_id, frozenset(fields)), where)
    for sub in vmsd.subsections:
        _collect(sub, where, shapes, types)


def _match(vmsd: str, version: int, fields: frozenset[tuple[str, str]] | None, where: str) -> Iterator[Evidence]:
    """Evidence from one description: each item by itself, then all together where that says more."""
    found, occurs = _source_facts(vmsd) if vmsd else ({}, _RELEASES.all)
    if not found:
        return
    definitions = tuple(found.values())
    known = 0
    for d in definitions:
        known |= d.exists
    unread = occurs & ~known  # the name is there, in a form that was not understood
    source = f"VMStateDescription {printable(vmsd)}"

    joint = [d.exists for d in definitions]
    items: list[Evidence] = []

    def narrow(what: str, name: str, each: list[int]) -> None:
        bits = unread
        for i, allowed in enumerate(each):
            bits |= definitions[i].exists & allowed
            joint[i] &= allowed
        if bits != _RELEASES.all:
            items.append(Evidence(f"vmsd {vmsd} {what} {name}", where, bits, source))

    narrow("version", str(version), [d.version(version) for d in definitions])
    if fields is not None:
        several = len(definitions) > 1
        told = {name for d in definitions for name in (*d.fields, *d.types)}
        for name, type_ in sorted(fields):
            short = (element_of(name) or (name,))[0]  # QEMU numbers fields of one name
            if name not in told and short not in told:
                if known | unread != _RELEASES.all:
                    items.append(Evidence(f"vmsd {vmsd} has {name} ({type_})", where, known | unread, source))
                continue
            named = several and any(name in d.fields for d in definitions)
            each = [d.open if named and name not in d.fields else d.field(name, short, type_) for d in definitions]
            narrow("has", f"{name} ({type_})", each)
        have = {name for name, _ in fields}
        missing = set()
        for i, d in enumerate(definitions):
            for name, bits in d.always.items():
                if name not in have and f"{name}[0]" not in have:
                    missing.add(name)
                    joint[i] &= ~bits
        for name in sorted(missing):
            bits = unread
            for d in definitions:
                bits |= d.exists & ~d.always.get(name, 0)
                if bits == _RELEASES.all:
                    break
            else:
                items.append(Evidence(f"vmsd {vmsd} lacks {name}", where, bits, source))
    together = unread
    for bits in joint:
        together |= bits
    yield from items
    if together != _common(items):
        yield Evidence(f"vmsd {vmsd} as a whole", where, together, source)


# -- the ppc CPU's words ------------------------------------------------------------------------------------------


def _cpu_words(stream: Stream, sections: list[Section]) -> Iterator[Evidence]:
    """The words a ppc CPU section carried until 9.1: which releases give a CPU of that PVR these values."""
    section = next((s for s in sections if s.idstr == "cpu" and s.description is not None), None)
    if section is None or section.description is None:
        return
    if all(f.name != "env.nip" for f in section.description.vmsd.fields):  # another target's
        return
    from vmstate_tools.vmstate.layout import UNSIGNED, read_value

    layout = stream.layout(section)
    nip = layout.find("env.nip")
    if not nip or layout.place(*nip[0])[1] != 8:  # the catalog is of 64-bit targets
        return

    def value(path: str) -> int:
        offset, width = layout.place(*layout.find(path)[0])
        return int(read_value(UNSIGNED, stream.view, section.payload_offset, offset, width))

    words = ("msr_mask", "insns_flags", "insns_flags2", "nb_BATs")
    seen = {w: value(p) for w in words for p in (f"env.{w}", f"mig_{w}") if layout.find(p)}
    if not seen or not layout.find("env.spr[287]"):
        return
    pvr = value("env.spr[287]")
    pseries = any(s.idstr.startswith("spapr") for s in sections)
    facts = _word_facts(pvr)
    for word, found in seen.items():
        bits = facts.get((pseries, word, found), facts.get((pseries, word, None), _RELEASES.all))
        what = f"{word} 0x{found:x} of a CPU with PVR 0x{pvr:08x}"
        yield Evidence(what, section.label, bits, "target/ppc/cpu_init.c: data/catalog")


@lru_cache(256)
def _word_facts(pvr: int) -> dict[tuple[bool, str, int | None], int]:
    """(a pseries machine, word, value) → the releases that send it for this PVR; value None: that may send any."""
    return {
        (r["pseries"] == "yes", r["word"], int(r["value"], 16) if r["value"] else None): _read(r["releases"])
        for r in _rows("words.csv", f"0x{pvr:08x}")
    }
