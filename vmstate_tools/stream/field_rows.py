"""The fields of a stream one after another, for those who need no frame: no pandas is imported for them."""

from __future__ import annotations

import struct
from itertools import repeat
from typing import TYPE_CHECKING

from vmstate_tools.vmstate.decode import affordable
from vmstate_tools.vmstate.layout import BOOL, BYTES, SIGNED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream

COLUMNS = ("section", "instance_id", "version_id", "vmsd", "path", "type", "offset", "size", "value")
"""What a row of `field_rows` holds: the columns of `Stream.fields`."""

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}  # width of a number in bytes → its code in `struct`


def field_rows(
    stream: Stream,
    sections: Iterable[Section],
    fold: int | None = None,
    *,
    lead: tuple[Any, ...] = (),
    blob: Callable[[bytes], Any] = bytes,
) -> Iterator[tuple[Any, ...]]:
    """Yields the fields of these sections, a tuple of `COLUMNS` each, as `Stream.fields` has them in a frame.

    Parameters
    ----------
    sections : sections of the stream; of RAM there are no fields.
    fold : an array of more values than that is one row of bytes, `path[0:count]`.
    lead : what stands before `COLUMNS` in each tuple.
    blob : makes the value of what is bytes; other values are int and bool.

    Raises
    ------
    StreamError : a section cannot be laid out.
    """
    sections = [section for section in sections if section.how != "ram"]
    fold = affordable([stream.layout(s) for s in sections if s.described], fold)
    for section in sections:
        who = (*lead, section.idstr, section.instance_id, section.version_id)
        if section.described:
            yield from _described(stream, section, who, fold, blob)
        elif section.leaves:
            for leaf in section.leaves:
                value = leaf.value.encode() if isinstance(leaf.value, str) else leaf.value
                value = blob(value) if isinstance(value, bytes) else value
                yield *who, "", leaf.path, leaf.type, leaf.offset, leaf.size, value
        elif section.payload_size:
            start, size = section.payload_offset, section.payload_size
            yield *who, "", "data", "opaque", start, size, blob(bytes(stream.view[start : start + size]))


def _described(
    stream: Stream, section: Section, who: tuple[Any, ...], fold: int | None, blob: Callable[[bytes], Any]
) -> Iterator[tuple[Any, ...]]:
    layout, view, start = stream.layout(section), stream.view, section.payload_offset
    numbers = (column.tolist() for column in (layout.offset, layout.width, layout.count, layout.kind))
    for vmsd, path, type_, offset, width, count, kind in zip(
        layout.vmsds, layout.paths, layout.types, *numbers, strict=True
    ):
        at = start + offset
        if fold and count > fold:
            size = width * count
            yield *who, vmsd, f"{path}[0:{count}]", type_, at, size, blob(bytes(view[at : at + size]))
        elif not count:
            raw = view[at : at + width]
            value = blob(bytes(raw)) if kind == BYTES else int.from_bytes(raw, "big", signed=kind == SIGNED)
            yield *who, vmsd, path, type_, at, width, bool(value) if kind == BOOL and value < 2 else value
        else:
            raw = view[at : at + count * width]
            values: Iterable[Any]
            if kind == BYTES:
                values = [blob(bytes(raw[i * width : (i + 1) * width])) for i in range(count)]
            else:
                code = _CODES[width].lower() if kind == SIGNED else _CODES[width]
                values = struct.unpack(f">{count}{code}", raw)
                values = [bool(n) if n < 2 else n for n in values] if kind == BOOL else values
            paths = (f"{path}[{i}]" for i in range(count))
            offsets = range(at, at + count * width, width) if width else repeat(at, count)
            yield from zip(*map(repeat, (*who, vmsd)), paths, repeat(type_), offsets, repeat(width), values)
