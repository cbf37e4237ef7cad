"""The fields of a stream one after another, for those who need no frame: no pandas is imported for them."""

from __future__ import annotations

import struct
from itertools import repeat
from typing import TYPE_CHECKING

from vmstate_tools.vmstate.decode import affordable
from vmstate_tools.vmstate.layout import BOOL, BYTES, SIGNED, read_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream

    Value = int | bool | bytes
    Row = tuple[str, int, int, str, str, str, int, int, Value]

COLUMNS = ("section", "instance_id", "version_id", "vmsd", "path", "type", "offset", "size", "value")
"""What a row of `field_rows` holds: the columns of `Stream.fields`."""


def field_rows(stream: Stream, sections: Iterable[Section], fold: int | None) -> Iterator[Row]:
    """Yields the fields of these sections, a tuple of `COLUMNS` each, as `Stream.fields` has them in a frame.

    Offsets and sizes are in bytes. With `fold`, an array of more values than that is one row of bytes,
    `path[0:count]`. Raises StreamError where a section cannot be laid out.
    """
    sections = [section for section in sections if section.how != "ram"]
    fold = affordable([stream.layout(s) for s in sections if s.described], fold)
    for section in sections:
        who = (section.idstr, section.instance_id, section.version_id)
        if section.described:
            yield from _described(stream, section, who, fold)
        elif section.leaves:
            for leaf in section.leaves:
                value = leaf.value.encode() if isinstance(leaf.value, str) else leaf.value
                yield *who, "", leaf.path, leaf.type, leaf.offset, leaf.size, value
        elif section.payload_size:
            start, size = section.payload_offset, section.payload_size
            yield *who, "", "data", "opaque", start, size, bytes(stream.view[start : start + size])


def _described(stream: Stream, section: Section, who: tuple[str, int, int], fold: int | None) -> Iterator[Row]:
    layout, view, start = stream.layout(section), stream.view, section.payload_offset
    numbers = (column.tolist() for column in (layout.offset, layout.width, layout.count, layout.kind))
    for vmsd, path, type_, offset, width, count, kind in zip(
        layout.vmsds, layout.paths, layout.types, *numbers, strict=True
    ):
        at = start + offset
        if fold and count > fold:
            size = width * count
            yield *who, vmsd, f"{path}[0:{count}]", type_, at, size, bytes(view[at : at + size])
        elif not count:
            yield *who, vmsd, path, type_, at, width, read_value(kind, view, start, offset, width)
        else:
            paths = (f"{path}[{i}]" for i in range(count))
            offsets = range(at, at + count * width, width) if width else repeat(at, count)
            values = _elements(view, at, width, count, kind)
            same = (*map(repeat, (*who, vmsd)), paths, repeat(type_))
            yield from zip(*same, offsets, repeat(width), values, strict=False)


def _elements(view: memoryview, at: int, width: int, count: int, kind: int) -> Sequence[Value]:
    if kind == BYTES:
        return [bytes(view[at + i * width : at + (i + 1) * width]) for i in range(count)]
    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[width]
    numbers = struct.unpack_from(f">{count}{code.lower() if kind == SIGNED else code}", view, at)
    return [bool(n) if n < 2 else n for n in numbers] if kind == BOOL else numbers
