"""What the writer of a stream expects when it is to read one: an expectation made out of a stream."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from vmstate_tools.compat import source_descriptions
from vmstate_tools.compat.expectation import Entry, Expectation, Values
from vmstate_tools.compat.reader import NUMBERS
from vmstate_tools.errors import StreamError
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.format.sections import handwritten
from vmstate_tools.stream.cpu_words import SPR_PVR
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.decode import gather
from vmstate_tools.vmstate.description import Description
from vmstate_tools.vmstate.layout import BYTES, Layout, layout_of

# Description → fields whose values the rules ask for (see `compat.post_load`).
_ASKED_FOR = {
    "cpu": {"env.spr", "env.gpr", "cpreg_vmstate_indexes", "cpreg_vmstate_values", *WORD_OF_FIELD},
    "cpu/compat": {"compat_pvr"},
    "PCIDevice": {"config"},
    "PCIEDevice": {"config"},
}

# Sections with more numbers than this keep only those that are compared.
_MANY_NUMBERS = 4096


@functools.lru_cache(maxsize=1 << 16)
def asked_for(vmsd: str, name: str) -> bool:
    """Tells whether the rules need the value of a field."""
    return name in _ASKED_FOR.get(vmsd, ()) or vmsd.startswith("spapr/cap/")


def expectation_of(stream: Stream, release: str | None) -> Expectation:
    """Returns what the writer of this stream expects when it is to read one; `release` is the writer's, if known."""
    expectation = Expectation(
        configuration=stream.machine,
        page_bits=stream.configuration.get("page_bits"),
        capabilities=tuple(stream.configuration.get("capabilities", ())),
        footers=any(s.footer is not None for s in stream.distinct_sections),
        ram=ram_blocks(stream),
        ram_records=record_kinds(stream),
        page_size=stream.page_size,
    )
    sections = (s for s in stream.distinct_sections if s.part in ("start", "full"))
    expectation.add(_entry(stream, section, release) for section in sections)
    return expectation


def ram_blocks(stream: Stream) -> dict[str, int]:
    """Returns the RAM blocks that a stream announces: name → bytes."""
    return {b.name: b.used_length for b in stream.ram.block_list}


def record_kinds(stream: Stream) -> int:
    """Returns the flags of all records in the RAM section (migration/ram.c: `RAM_SAVE_FLAG_*`), or'ed."""
    return stream.ram.flags


def _entry(stream: Stream, section: Section, release: str | None) -> Entry:
    """Returns a section as its writer would read it."""
    entry = Entry(section.idstr, section.instance_id, section.version_id, size=section.payload_size)
    description = section.description
    if section.part == "start" or handwritten.known(section.idstr):
        entry.iterable = True
        entry.values = {("", leaf.path): leaf.value for leaf in section.leaves if leaf.path == "htab_shift"}
        return entry
    if description is None or description.origin == "built-in":
        description = source_descriptions.describe(stream, section, release)
    if description is not None:
        entry.old_style = description.old_style
        entry.vmsd = description.vmsd
        entry.values = {} if description.old_style else values_of(stream, section, description)
    return entry


def values_of(stream: Stream, section: Section, description: Description) -> Values:
    """Returns the numbers in a section, and the buffers that rules ask for; long arrays of structs are left out."""
    try:
        layout = layout_of(description, section.payload_size)
    except StreamError as error:
        error.file = error.file or stream.name
        error.section = error.section or f"{section.idstr}/{section.instance_id}"
        raise
    values = _numbers(stream, section, layout)
    for i, path in enumerate(layout.paths):
        vmsd = layout.vmsds[i]
        if asked_for(vmsd, path.rsplit(".", 1)[-1]) or asked_for(vmsd, path):
            at, size = section.payload_offset + int(layout.offset[i]), int(layout.length[i])
            if path == "env.spr":
                at += SPR_PVR * int(layout.width[i])
                values["cpu", "pvr"] = int.from_bytes(stream.view[at : at + int(layout.width[i])], "big")
            elif (vmsd, path) not in values and path != "env.gpr":
                values[vmsd, path] = bytes(stream.view[at : at + size])
    return values


def _numbers(stream: Stream, section: Section, layout: Layout) -> Values:
    which = np.flatnonzero((layout.count == 0) & (layout.kind != BYTES))
    if len(which) > _MANY_NUMBERS:
        which = np.array([i for i in which if layout.types[i].endswith(" equal")], np.int64)
    data = np.frombuffer(stream.view[section.payload_offset : section.payload_end], np.uint8)
    words = gather(data, layout.offset[which], layout.width[which], layout.kind[which])
    values: Values = {}
    for i, word in zip(which.tolist(), words.tolist(), strict=True):
        signed = NUMBERS.get(layout.types[i], (0, False))[1]
        values[layout.vmsds[i], layout.paths[i]] = word - (1 << 64) if signed and word >> 63 else word
    return values


class Writer(NamedTuple):
    """A Writer is what a stream says of the QEMU that wrote it.

    Attributes
    ----------
    machine : the machine type, guessed from the sections where the stream does not name one.
    stated : the stream names it.
    pvr : the PVR of a ppc guest's first CPU; None for other guests.
    """

    machine: str
    stated: bool
    pvr: int | None


def writer_of(stream: Stream) -> Writer:
    """Returns what a stream says of the QEMU that wrote it."""
    return Writer(stream.machine or _guess_machine(stream), stream.machine is not None, _pvr(stream))


def _guess_machine(stream: Stream) -> str:
    """Returns a machine type for a stream that names none: it is of 2.3 or older, or of a guest without versions."""
    names = {s.idstr for s in stream.distinct_sections}
    version = "2.2" if stream.vmdesc is None else "2.3"
    if "spapr" in names:
        return f"pseries-{version}"
    return f"pc-q35-{version}" if any(n.endswith("mch") for n in names) else f"pc-i440fx-{version}"


def _pvr(stream: Stream) -> int | None:
    section = next((s for s in stream.distinct_sections if s.idstr == "cpu"), None)
    if section is None or section.description is None:
        return None
    at = section.payload_offset  # env.spr is an array of target_ulong behind fields of fixed size
    for f in section.description.vmsd.fields:
        if f.name == "env.spr" and f.count is not None and f.count > SPR_PVR:
            at += SPR_PVR * f.size
            return int.from_bytes(stream.view[at : at + f.size], "big")
        at += f.size * (1 if f.count is None else f.count)
    return None


def pvr_in(registers: bytes | None, width: int) -> int | None:
    """Returns the PVR in the bytes of `env.spr`, whose registers have `width` bytes; None without them."""
    if not registers:
        return None
    return int.from_bytes(registers[SPR_PVR * width : (SPR_PVR + 1) * width], "big")
