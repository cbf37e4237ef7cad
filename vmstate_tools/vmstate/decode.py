"""Description + bytes → fields; every byte belongs to exactly one record or field.

Values are gathered by numpy, the sections of one layout from many streams together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vmstate_tools.vmstate.description import count_cached
from vmstate_tools.vmstate.layout import BYTES, MAX_ROWS, SIGNED, Layout

if TYPE_CHECKING:
    import pyarrow as pa

# Values expanded at once when a section is built again.
_BATCH = 1 << 20


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows are the values of a section, in its order: what is the same in every section of one layout.

    `offset` is relative to the payload. With `fold`, an array of more values than that is one row of bytes,
    `path[0:count]`. `reach`: bytes of the payload up to the last number's end.
    """

    paths: pa.LargeStringArray
    types: tuple[list[str], npt.NDArray[np.int32]]  # distinct names, code per row
    vmsds: tuple[list[str], npt.NDArray[np.int32]]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    places: tuple[tuple[int, bool, npt.NDArray[np.int64]], ...]  # of numbers of one width: bytes, signed, row numbers
    buffers: npt.NDArray[np.int64]  # row numbers of those that hold bytes
    reach: int
    key: bytes  # where it is equal all of this is

    def __len__(self) -> int:
        return len(self.offset)

    def decode(self, payloads: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        """Returns the numbers of sections of this layout, whose payloads are the rows of `payloads`, all together.

        A row per section, a 64-bit word per value: unsigned, or sign-extended; 0 for buffers.
        """
        n, length = payloads.shape
        words = np.zeros((n, len(self)), np.uint64)
        for width, signed, which in self.places:
            # Values overlap in this view: one starts at each byte.
            view = np.ndarray(
                (n, length - width + 1), f">{'i' if signed else 'u'}{width}", payloads, strides=(length, 1)
            )
            values = view[:, self.offset[which]]
            words[:, which] = values.astype(np.int64).view(np.uint64) if signed else values
        return words


def affordable(layouts: Sequence[Layout], fold: int | None) -> int | None:
    """Returns `fold`, or the greatest power of two below it with which there are at most `MAX_ROWS` rows."""
    if sum(layout.values for layout in layouts) <= MAX_ROWS:
        return fold
    counts = np.concatenate([layout.count for layout in layouts])
    while (
        int(np.where(counts > fold, 1, np.maximum(counts, 1)).sum() if fold else np.maximum(counts, 1).sum()) > MAX_ROWS
    ):
        fold = 1 << ((fold or int(counts.max())) - 1).bit_length() - 1
    return fold


# Layouts with more rows than this are made again for each stream; a TCE table of 2 MiB has 262,144.
_CACHED_ROWS = 300_000


def rows_of(layout: Layout, fold: int | None) -> Rows:
    """Returns the rows of a section with this layout: they are made once for all sections."""
    rows: Rows | None = layout.rows.get(fold)
    if rows is None:
        rows = _rows_of(layout, fold)
        if len(rows) <= _CACHED_ROWS:
            count_cached(len(rows))
            layout.rows[fold] = rows
    return rows


def _rows_of(layout: Layout, fold: int | None) -> Rows:
    import hashlib

    counts, width, kind = layout.count, layout.width, layout.kind
    leaves = layout.paths
    if fold is not None:
        long = counts > fold
        leaves = [
            f"{path}[0:{count}]" if fold_it else path
            for path, count, fold_it in zip(leaves, counts.tolist(), long.tolist(), strict=True)
        ]
        width = np.where(long, width * counts, width)
        kind = np.where(long, BYTES, kind).astype(np.uint8)
        counts = np.where(long, 0, counts)
    key = hashlib.blake2b(digest_size=16)
    for names in (leaves, layout.types, layout.vmsds):
        key.update("\0".join([*names, "", ""]).encode("utf-8", "surrogatepass"))
    for column in (layout.offset, width, counts, kind):
        key.update(column.tobytes())
    repeat = np.maximum(counts, np.where(counts == 0, 1, 0))
    leaf = np.repeat(np.arange(len(leaves)), repeat)
    within = np.arange(len(leaf)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    types, vmsds = _codes(layout.types, leaf), _codes(layout.vmsds, leaf)
    offset, size, kind = layout.offset[leaf] + within * width[leaf], width[leaf], kind[leaf]
    number = (kind != BYTES) & (size > 0) & (size <= 8) & (size & (size - 1) == 0)
    places = []
    for bytes_ in (1, 2, 4, 8):
        for signed in (False, True):
            which = np.flatnonzero(number & (size == bytes_) & ((kind == SIGNED) == signed))
            if len(which):
                places.append((bytes_, signed, which))
    return Rows(
        _unrolled(leaves, counts, leaf, within),
        types,
        vmsds,
        offset,
        size,
        kind,
        tuple(places),
        np.flatnonzero(kind == BYTES),
        int((offset + size)[number].max(initial=0)),
        key.digest(),
    )


def _unrolled(
    leaves: list[str], counts: npt.NDArray[np.int64], leaf: npt.NDArray[np.int64], within: npt.NDArray[np.int64]
) -> pa.LargeStringArray:
    """Returns the path of each row: its leaf's, and behind it, if that is an array, the number of the element."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.large_string()
    names = pa.array(leaves, text)
    if not counts.any():
        return names
    opening, closing, nothing = (pa.scalar(each, text) for each in ("[", "]", ""))
    number = pc.binary_join_element_wise(opening, pc.cast(pa.array(within), text), closing, nothing)
    number = pc.if_else(pa.array(counts[leaf] > 0), number, nothing)
    return pc.binary_join_element_wise(names.take(pa.array(leaf)), number, nothing)


def _codes(names: list[str], leaf: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.int32]]:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return list(numbers), np.fromiter(map(numbers.__getitem__, names), np.int32, len(names))[leaf]


def gather(
    data: npt.NDArray[np.uint8],
    offset: npt.NDArray[np.int64],
    width: npt.NDArray[np.int64],
    kind: npt.NDArray[np.uint8],
) -> npt.NDArray[np.uint64]:
    """Returns numbers at `offset` as 64-bit words, one per value: unsigned, or sign-extended; 0 for buffers."""
    words = np.zeros(len(offset), np.uint64)
    number = kind != BYTES
    for size in (1, 2, 4, 8):
        which = np.flatnonzero(number & (width == size))
        if not len(which):
            continue
        at = offset[which]
        raw = np.empty((len(at), size), np.uint8)
        for i in range(size):
            raw[:, i] = data[at + i]
        value = raw.view(f">u{size}").ravel()
        signed = kind[which] == SIGNED
        words[which] = np.where(signed, value.astype(f"i{size}").astype(np.int64).view(np.uint64), value)
    return words


def scatter(
    out: npt.NDArray[np.uint8],
    offset: npt.NDArray[np.int64],
    width: npt.NDArray[np.int64],
    kind: npt.NDArray[np.uint8],
    words: npt.NDArray[np.uint64],
) -> None:
    """Writes numbers back, big-endian, at `offset`: the inverse of `gather`."""
    big = words.astype(">u8").view(np.uint8).reshape(-1, 8)
    number = kind != BYTES
    for size in (1, 2, 4, 8):
        which = np.flatnonzero(number & (width == size))
        for i in range(size):
            out[offset[which] + i] = big[which, 8 - size + i]


def batches(
    layout: Layout,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
    """Yields offset, width and kind of every number, some at a time: one array may be as large as the stream."""
    number = np.flatnonzero(layout.kind != BYTES)
    counts = np.maximum(layout.count[number], 1)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for first in range(0, total, _BATCH):
        value = np.arange(first, min(first + _BATCH, total))
        which = np.searchsorted(ends, value, "right")
        leaf = number[which]
        width = layout.width[leaf]
        yield layout.offset[leaf] + (value - (ends - counts)[which]) * width, width, layout.kind[leaf]


def encode(layout: Layout, payload: memoryview) -> bytes:
    """Returns a section's payload, built again from the values that are decoded from it."""
    data = np.frombuffer(payload, np.uint8)
    out = np.zeros(layout.size, np.uint8)
    buffer = layout.kind == BYTES
    for at, size in zip(layout.offset[buffer].tolist(), layout.length[buffer].tolist(), strict=True):
        out[at : at + size] = data[at : at + size]
    for offset, width, kind in batches(layout):
        scatter(out, offset, width, kind, gather(data, offset, width, kind))
    for at, header in layout.subsections:
        out[at : at + len(header)] = np.frombuffer(header, np.uint8)
    return out.tobytes()
