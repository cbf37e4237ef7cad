"""The fields of one stream as a small table, which can be sent to another process and decoded with many others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vmstate_tools.stream.records import Section
from vmstate_tools.vmstate.decode import Rows, affordable, rows_of
from vmstate_tools.vmstate.layout import Layout
from vmstate_tools.vmstate.value_column import ValueArray


@dataclass
class FieldTable:
    """The fields of one stream: a piece of `Rows` for each described section, shared by all streams that have it."""

    rows: list[Rows]
    sections: list[tuple[str, int, int]]  # idstr, instance_id, version_id of the described sections
    base: list[int]  # payload offset of each
    numbers: list[bytes]  # of each the payload as far as there are numbers; where that is long, the decoded words
    blobs: list[bytes | int]  # an int stands for so many zeros: a fresh guest's TCE table is 2 MiB of them
    extra: LooseFields | None  # of undescribed sections

    @functools.cached_property
    def described(self) -> int:
        """Returns how many rows described sections have."""
        return sum(map(len, self.rows))

    def __len__(self) -> int:
        return self.described + (len(self.extra) if self.extra else 0)


@dataclass
class LooseFields:
    """LooseFields are the leaves of undescribed sections, as columns; `before`: the described rows ahead of each."""

    section: list[str]
    vmsd: list[str]
    path: list[str]
    type: list[str]
    instance_id: npt.NDArray[np.uint32]
    version_id: npt.NDArray[np.uint32]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    value: ValueArray
    before: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.before)


# Payloads of more than this are decoded where they lie, and not with those of other streams.
_TOGETHER = 1 << 16


def field_table(
    view: memoryview, layout_of: Callable[[Section], Layout], sections: Sequence[Section], fold: int | None
) -> FieldTable:
    """Returns the fields of these sections; `decoded_numbers` decodes their numbers, with the ones of other streams."""
    described = [s for s in sections if s.described]
    layouts = [layout_of(s) for s in described]
    fold = affordable(layouts, fold)
    parts = [rows_of(layout, fold) for layout in layouts]
    numbers: list[bytes] = []
    blobs: list[bytes | int] = []
    for section, rows in zip(described, parts, strict=True):
        start = section.payload_offset
        payload = view[start : start + rows.reach]
        if rows.reach > _TOGETHER:
            numbers.append(rows.decode(np.frombuffer(payload, np.uint8)[None]).tobytes())
        else:
            numbers.append(bytes(payload))
        if len(which := rows.buffers):
            for offset, size in zip(rows.offset[which].tolist(), rows.size[which].tolist(), strict=True):
                blobs.append(_bytes(view, start + offset, size))
    base = [s.payload_offset for s in described]
    return FieldTable(
        parts,
        [(s.idstr, s.instance_id, s.version_id) for s in described],
        base,
        numbers,
        blobs,
        _loose_fields(view, [s for s in sections if not s.described], base, [len(rows) for rows in parts]),
    )


def decoded_numbers(tables: Sequence[FieldTable]) -> list[npt.NDArray[np.uint64]]:
    """Returns the numbers of each table's described rows, as `Rows.decode`; a layout's are decoded together."""
    words = [np.empty(table.described, np.uint64) for table in tables]
    alike: dict[bytes, tuple[Rows, list[bytes], list[npt.NDArray[np.uint64]]]] = {}
    for table, own in zip(tables, words, strict=True):
        at = 0
        for rows, payload in zip(table.rows, table.numbers, strict=True):
            place = own[at : at + len(rows)]
            at += len(rows)
            if rows.reach > _TOGETHER:
                place[:] = np.frombuffer(payload, np.uint64)
            else:
                _, payloads, places = alike.setdefault(rows.key, (rows, [], []))
                payloads.append(payload)
                places.append(place)
    for rows, payloads, places in alike.values():
        data = np.frombuffer(b"".join(payloads), np.uint8)
        for place, numbers in zip(places, rows.decode(data.reshape(len(places), rows.reach)), strict=True):
            place[:] = numbers
    return words


def _bytes(view: memoryview, at: int, size: int) -> bytes | int:
    """Returns these bytes as `FieldTable.blobs` has them."""
    if size >= 4096 and not np.frombuffer(view[at : at + size], np.uint8).max(initial=0):
        return size
    return bytes(view[at : at + size])


def _loose_fields(
    view: memoryview, sections: Sequence[Section], base: Sequence[int], lengths: Sequence[int]
) -> LooseFields | None:
    """Returns the leaves of these sections, placed between the described ones, whose payloads start at `base`."""
    rows = sorted((leaf for s in sections for leaf in _leaves(view, s)), key=lambda leaf: leaf[5])
    if not rows:
        return None
    section, instance, version, path, type_, offset, size, value = zip(*rows, strict=True)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return LooseFields(
        list(section),
        [""] * len(rows),
        list(path),
        list(type_),
        np.array(instance, np.uint32),
        np.array(version, np.uint32),
        np.array(offset, np.int64),
        np.array(size, np.int64),
        ValueArray._from_sequence(value),
        starts[np.searchsorted(base, offset)],
    )


def _leaves(view: memoryview, section: Section) -> Iterator[tuple[str, int, int, str, str, int, int, Any]]:
    who = (section.idstr, section.instance_id, section.version_id)
    for leaf in section.leaves:
        value = leaf.value.encode() if isinstance(leaf.value, str) else leaf.value
        yield (*who, leaf.path, leaf.type, leaf.offset, leaf.size, value)
    if not section.leaves and section.payload_size:
        at, size = section.payload_offset, section.payload_size
        yield (*who, "data", "opaque", at, size, bytes(view[at : at + size]))
