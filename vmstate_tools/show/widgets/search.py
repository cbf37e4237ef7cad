"""Finds fields of a stream by name, by value or by place."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.decode import batches, gather
from vmstate_tools.vmstate.description import element_of
from vmstate_tools.vmstate.layout import BYTES, SIGNED, Layout

_NUMBER = re.compile(r"[+-]?(?:\d+|0[xX][\da-fA-F]+)")


@dataclass(frozen=True, slots=True)
class Hit:
    """A field, array or section that was found. `offset` is in bytes of the file; `path` is '' for a section."""

    section: Section
    vmsd: str
    path: str
    offset: int


def search(stream: Stream, query: str) -> Iterator[Hit]:
    """Yields what `query` finds, in stream order.

    A number (decimal, or hex with 0x) finds the fields with that value. Text in quotes finds the buffers that hold it.
    Any other text is a part of the name of a field or section; with `*` and `?` it is the whole name, or its end behind
    a dot. RAM is not searched. Raises StreamError where a section cannot be decoded.
    """
    query = query.strip()
    find: Callable[[Stream, Section], Iterator[Hit]]
    if not query:
        return
    if _NUMBER.fullmatch(query):
        find = functools.partial(_valued, number=int(query, 0 if "x" in query.lower() else 10))
    elif len(query) > 2 and query[0] == query[-1] and query[0] in "\"'":
        find = functools.partial(_holding, text=query[1:-1].encode())
    else:
        find = functools.partial(_named, query=query)
    for section in stream.distinct_sections:
        yield from find(stream, section)


def _named(stream: Stream, section: Section, query: str) -> Iterator[Hit]:
    """Yields what has this name in a section, or the section itself."""
    wild = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in query)
    whole = any(c in query for c in "*?")
    name = re.compile(rf"(?:.*[./])?{wild}" if whole else rf".*{wild}.*", re.IGNORECASE | re.DOTALL)
    if section.part in ("full", "start") and name.fullmatch(section.label if "/" in query else section.idstr):
        yield Hit(section, "", "", section.offset)
    for leaf in section.leaves:
        if name.fullmatch(leaf.path):
            yield Hit(section, "", leaf.path, leaf.offset)
    if not section.described:
        return
    layout = stream.layout(section)
    base, offsets, counts = section.payload_offset, layout.offset, layout.count
    array, number = element_of(query) or ("", "")
    for i, path in enumerate(layout.paths):
        if name.fullmatch(path) or (counts[i] and name.fullmatch(f"{path}[0]")):
            yield Hit(section, layout.vmsds[i], path, base + int(offsets[i]))
        elif number and int(number) < counts[i] and path.lower().endswith(array.lower()):
            at = base + int(offsets[i]) + int(number) * int(layout.width[i])
            yield Hit(section, layout.vmsds[i], f"{path}[{int(number)}]", at)


def _valued(stream: Stream, section: Section, number: int) -> Iterator[Hit]:
    """Yields the fields and elements of a section that have this value."""
    for leaf in section.leaves:
        if isinstance(leaf.value, int) and leaf.value == number:
            yield Hit(section, "", leaf.path, leaf.offset)
    if not section.described or not -(1 << 63) <= number < 1 << 64:
        return
    layout = stream.layout(section)
    data = np.frombuffer(stream.view[section.payload_offset : section.payload_end], np.uint8)
    for offset, width, kind in batches(layout):
        same = gather(data, offset, width, kind) == np.uint64(number & 0xFFFF_FFFF_FFFF_FFFF)
        if not 0 <= number < 1 << 63:  # the same bits are another number with a sign
            same &= (kind == SIGNED) if number < 0 else (kind != SIGNED)
        for at in offset[same].tolist():
            yield _hit(section, layout, at)


def _holding(stream: Stream, section: Section, text: bytes) -> Iterator[Hit]:
    """Yields the buffers of a section that hold this text."""
    for leaf in section.leaves:
        value = leaf.value.encode() if isinstance(leaf.value, str) else leaf.value
        if isinstance(value, bytes) and text in value:
            yield Hit(section, "", leaf.path, leaf.offset)
    if not section.described:
        return
    layout = stream.layout(section)
    base, view = section.payload_offset, stream.view
    for i in np.flatnonzero((layout.kind == BYTES) | (layout.width == 1)).tolist():  # text in an array of uint8, too
        at, length = base + int(layout.offset[i]), int(layout.length[i])
        if length >= len(text) and text in bytes(view[at : at + length]):
            yield Hit(section, layout.vmsds[i], layout.paths[i], at)


def _hit(section: Section, layout: Layout, offset: int) -> Hit:
    """Returns the field or element that stands at `offset` of the payload."""
    i = int(np.searchsorted(layout.offset, offset, "right")) - 1
    path = layout.paths[i]
    if layout.count[i]:
        path += f"[{(offset - int(layout.offset[i])) // int(layout.width[i])}]"
    return Hit(section, layout.vmsds[i], path, section.payload_offset + offset)


def locate(stream: Stream, label: str, vmsd: str | None, path: str) -> int | None:
    """Returns the offset of a field or vmsd in the file, None where the stream has none; `vmsd` None means any."""
    for section in stream.distinct_sections:
        if section.label != label:
            continue
        for leaf in section.leaves:
            if leaf.path == path:
                return leaf.offset
        if section.described and (path or vmsd):
            layout = stream.layout(section)
            for i, element in layout.find(path) or [(i, 0) for i in layout.index.get(path, ())]:
                if vmsd in (None, layout.vmsds[i]):
                    return section.payload_offset + int(layout.offset[i]) + element * int(layout.width[i])
            for i, name in enumerate(layout.paths):  # a struct, or a subsection
                if name.startswith((f"{path}.", f"{path}[")) or (layout.vmsds[i] == vmsd and name.startswith(path)):
                    return section.payload_offset + int(layout.offset[i])
        if section.how == "ram" and path:
            for block in stream.ram.block_list:
                if block.name == path:
                    return block.offset
        if not path and not vmsd:
            return section.offset
    return None
