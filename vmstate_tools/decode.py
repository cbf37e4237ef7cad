"""Description + bytes → fields; every byte belongs to exactly one record or field.

A description is compiled once into a `Layout`: the place, size and wire type of each leaf relative to the
section's payload. Values are then gathered by numpy, the sections of one layout from many streams together.

Wire types are the `VMStateInfo` names of `migration/vmstate-types.c` (before 3.1 `migration/vmstate.c`)
and of the targets' `machine.c`; integers are big-endian whatever the target.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vmstate_tools import wire
from vmstate_tools.description import MAX_LEAVES, Description, FieldDescription, Vmsd, keep
from vmstate_tools.errors import StreamError

# How a leaf's bytes become a value.
UNSIGNED, SIGNED, BOOL, BYTES = 0, 1, 2, 3

# Wire type -> kind, for the sizes 1, 2, 4 and 8. What is not here is a buffer.
_KINDS = {
    "bool": BOOL,
    "powered_off": BOOL,
    "int8": SIGNED,
    "int16": SIGNED,
    "int32": SIGNED,
    "int64": SIGNED,
    "int32 equal": SIGNED,
    "int32 le": SIGNED,  # less or equal to the destination's, not little-endian
    "timer": SIGNED,  # expiry in ns; -1 where not armed
    "fd": SIGNED,
    "uint8": UNSIGNED,
    "uint16": UNSIGNED,
    "uint32": UNSIGNED,
    "uint64": UNSIGNED,
    "uint8 equal": UNSIGNED,
    "uint16 equal": UNSIGNED,
    "uint32 equal": UNSIGNED,
    "int64 equal": UNSIGNED,  # the name QEMU prints for VMSTATE_UINT64_EQUAL
    "uint64 equal": UNSIGNED,
    "float64": UNSIGNED,  # softfloat keeps the bit pattern; `fpr` since 4.0
    "CPU_Double_U": UNSIGNED,
    "fpr": UNSIGNED,
    "vsr": UNSIGNED,
    "cpu/altivec/vscr": UNSIGNED,
    "nullptr": UNSIGNED,  # '0' for a NULL in an array of pointers; 2.9 to 11.0
    "ptr-marker": UNSIGNED,  # its name since 11.1
    "cpsr": UNSIGNED,
    "fpscr": UNSIGNED,
}

# Wire types that hold several numbers: (path suffix, wire type) in order.
_PARTS = {
    "slbe": ((".esid", "uint64"), (".vsid", "uint64")),  # target/ppc/machine.c: get_slbe
    "pci irq state": tuple((f"[{i}]", "uint32") for i in range(4)),  # hw/pci/pci.c: get_pci_irq_state
}
_SIZES = {"uint32": 4, "uint64": 8}

# Values expanded at once when a section is built again.
_BATCH = 1 << 20

# Characters of all paths of one section.
MAX_TEXT = 64 << 20


@dataclass(frozen=True, eq=False)
class Layout:
    """The leaves of one section, in payload order. All columns have one entry per leaf.

    A leaf is one value, or `count` equal-sized values of an array (`count` 0 for a single value).
    """

    paths: list[str]
    types: list[str]
    vmsds: list[str]
    offset: npt.NDArray[np.int64]  # bytes from the start of the payload
    width: npt.NDArray[np.int64]  # bytes of one value
    count: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    version_id: npt.NDArray[np.uint32]  # of the vmsd the leaf belongs to
    subsections: list[tuple[int, bytes]]  # offset and expected bytes of each subsection header
    size: int  # bytes of the whole payload
    rows: dict[int | None, Rows] = dataclasses.field(default_factory=dict, repr=False)  # by `fold`

    @functools.cached_property
    def values(self) -> int:
        """How many values there are when all arrays are unfolded."""
        return int(np.maximum(self.count, 1).sum())

    @property
    def length(self) -> npt.NDArray[np.int64]:
        """Bytes of each leaf."""
        return self.width * np.maximum(self.count, 1)

    @functools.cached_property
    def index(self) -> dict[str, list[int]]:
        """Path to leaf numbers: subsections may use a path of the section again."""
        found: dict[str, list[int]] = {}
        for i, path in enumerate(self.paths):
            found.setdefault(path, []).append(i)
        return found

    def find(self, path: str) -> list[tuple[int, int]]:
        """(leaf, element) of each value that `path` names; element 0 where the leaf is no array."""
        found = [(i, 0) for i in self.index.get(path, ()) if not self.count[i]]
        if not found and (match := re.fullmatch(r"(.*)\[(\d+)\]", path)):
            element = int(match[2])
            found = [(i, element) for i in self.index.get(match[1], ()) if element < self.count[i]]
        return found


def layout_of(description: Description, limit: int) -> Layout:
    """Compile a description, once.

    `limit` is how many bytes the stream has left: a description that claims more is refused before
    anything is unrolled. Raises StreamError.
    """
    layout: Layout | None = description.cache.get("layout")
    if layout is None:
        if description.vmsd.unrolled > MAX_LEAVES:
            raise StreamError(f"{description.vmsd.unrolled} fields described", expected=f"{MAX_LEAVES} at most")
        keep(description.vmsd.unrolled)
        compiler = _Compiler(limit)
        size = compiler.vmsd(description.vmsd, 0, "")
        layout = description.cache["layout"] = compiler.finish(size)
    return layout


class _Compiler:
    """Unrolls a tree into leaves; every struct array is bounded by the bytes it would have to occupy."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.visited = self.text = 0  # fields, those without bytes among them; characters of their paths
        self.paths: list[str] = []
        self.types: list[str] = []
        self.vmsds: list[str] = []
        self.numbers: list[tuple[int, int, int, int, int]] = []  # offset, width, count, kind, version_id
        self.subsections: list[tuple[int, bytes]] = []

    def finish(self, size: int) -> Layout:
        table = np.array(self.numbers, dtype=np.int64).reshape(-1, 5)
        offset, width, count, kind, version = np.ascontiguousarray(table.T)
        return Layout(
            self.paths,
            self.types,
            self.vmsds,
            offset,
            width,
            count,
            kind.astype(np.uint8),
            version.astype(np.uint32),
            self.subsections,
            size,
        )

    def vmsd(self, vmsd: Vmsd, offset: int, prefix: str) -> int:
        """Append the leaves of `vmsd` standing at `offset`; returns the offset behind it."""
        for field in vmsd.fields:
            offset = self.field(field, vmsd, offset, prefix)
        for sub in vmsd.subsections:
            header = wire.SUBSECTION_HEADER.build({"name": sub.wire_name, "version_id": sub.version_id})
            if offset + len(header) > self.limit:
                raise StreamError(f"subsection {sub.name!r} does not fit", expected=f"at most {self.limit} bytes")
            self.subsections.append((offset, header))
            offset = self.vmsd(sub, offset + len(header), prefix)
        return offset

    def field(self, field: FieldDescription, vmsd: Vmsd, offset: int, prefix: str) -> int:
        elements = 1 if field.count is None else field.count
        end = offset + field.size * elements
        path = prefix + field.label
        if end > self.limit:
            raise StreamError(
                f"field {path[:100]} claims {elements} times {field.size} bytes",
                expected=f"a section of at most {self.limit} bytes",
            )
        self.visited += 1
        self.text += len(path)
        if self.visited > MAX_LEAVES or self.text > MAX_TEXT:
            raise StreamError(f"more than {MAX_LEAVES} fields, or paths too long", expected="fields of a real device")
        if end == offset:
            return end
        if field.struct is not None:
            # WITH_TMP, VSTRUCT and QTAILQ may describe less than they wrote: then they are a buffer.
            if field.type == "struct" or field.struct.size == field.size:
                for i in range(elements):
                    name = path if field.count is None else f"{path}[{i}]"
                    at = offset + i * field.size
                    if self.vmsd(field.struct, at, name + ".") != at + field.size:
                        raise StreamError(
                            f"struct {name} is said to have {field.size} bytes, its fields have others",
                            expected="a description that adds up",
                        )
                return end
            kind = BYTES
        else:
            parts = _PARTS.get(field.type)
            if parts and sum(_SIZES[t] for _, t in parts) == field.size:
                for i in range(elements):
                    name = path if field.count is None else f"{path}[{i}]"
                    for suffix, type_ in parts:
                        self.leaf(name + suffix, field.type, vmsd, offset, _SIZES[type_], 0, UNSIGNED)
                        offset += _SIZES[type_]
                return end
            kind = _KINDS.get(field.type, BYTES) if field.size in (1, 2, 4, 8) else BYTES
        self.leaf(path, field.type, vmsd, offset, field.size, field.count or 0, kind)
        return end

    def leaf(self, path: str, type_: str, vmsd: Vmsd, offset: int, width: int, count: int, kind: int) -> None:
        self.paths.append(path)
        self.types.append(type_)
        self.vmsds.append(vmsd.name)
        self.numbers.append((offset, width, count, kind, vmsd.version_id))


def check_subsections(layout: Layout, view: memoryview, base: int) -> None:
    """Do the subsection headers stand where the description puts them? Raises StreamError if one does not."""
    for offset, header in layout.subsections:
        at = base + offset
        if view[at : at + len(header)] != header:
            raise StreamError(
                f"found bytes {bytes(view[at : at + 8]).hex(' ')}",
                offset=at,
                expected=f"subsection {wire.name(header[2:-4])!r} version {int.from_bytes(header[-4:], 'big')}",
            )


@dataclass(frozen=True, eq=False)
class Rows:
    """One row per value of a section, in its order: what is the same in every section of one layout.

    `offset` is relative to the payload. With `fold`, an array of more values than that is one row of bytes,
    `path[0:count]`. `reach`: bytes of the payload up to the last number's end.
    """

    paths: list[str]
    types: tuple[list[str], npt.NDArray[np.int32]]  # distinct names, code per row
    vmsds: tuple[list[str], npt.NDArray[np.int32]]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    kind: npt.NDArray[np.uint8]
    places: tuple[tuple[int, bool, npt.NDArray[np.int64]], ...]  # of numbers of one width: bytes, signed, row numbers
    buffers: npt.NDArray[np.int64]  # row numbers of those that hold bytes
    reach: int
    key: bytes  # equal where all of this is

    def __len__(self) -> int:
        return len(self.offset)

    def decode(self, payloads: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        """The numbers of sections of this layout, whose payloads are the rows of `payloads`, all together.

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


# Rows of one stream's fields, of some 340 bytes each while they are made; 531,541 is the most seen.
MAX_ROWS = 1_000_000


def affordable(layouts: Sequence[Layout], fold: int | None) -> int | None:
    """`fold`, or the greatest power of two below it with which there are at most `MAX_ROWS` rows."""
    if sum(layout.values for layout in layouts) <= MAX_ROWS:
        return fold
    counts = np.concatenate([layout.count for layout in layouts])
    while (
        int(np.where(counts > fold, 1, np.maximum(counts, 1)).sum() if fold else np.maximum(counts, 1).sum()) > MAX_ROWS
    ):
        fold = 1 << ((fold or int(counts.max())) - 1).bit_length() - 1
    return fold


# Rows of more than this are made again for each stream; a TCE table of 2 MiB has 262,144.
_KEPT_ROWS = 300_000


def rows_of(layout: Layout, fold: int | None) -> Rows:
    """The rows of a section with this layout: made once for all of them."""
    rows = layout.rows.get(fold)
    if rows is None:
        rows = _rows_of(layout, fold)
        if len(rows) <= _KEPT_ROWS:
            keep(len(rows))
            layout.rows[fold] = rows
    return rows


def _rows_of(layout: Layout, fold: int | None) -> Rows:
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
    repeat = np.maximum(counts, np.where(counts == 0, 1, 0))
    leaf = np.repeat(np.arange(len(leaves)), repeat)
    within = np.arange(len(leaf)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    paths: list[str] = []
    for path, count in zip(leaves, counts.tolist(), strict=True):
        if count:
            paths += [f"{path}[{i}]" for i in range(count)]
        else:
            paths.append(path)
    types, vmsds = _codes(layout.types, leaf), _codes(layout.vmsds, leaf)
    offset, size, kind = layout.offset[leaf] + within * width[leaf], width[leaf], kind[leaf]
    number = (kind != BYTES) & np.isin(size, (1, 2, 4, 8))
    places = []
    for bytes_ in (1, 2, 4, 8):
        for signed in (False, True):
            which = np.flatnonzero(number & (size == bytes_) & ((kind == SIGNED) == signed))
            if len(which):
                places.append((bytes_, signed, which))
    key = hashlib.blake2b(digest_size=16)
    for names in (paths, types[0], vmsds[0]):
        key.update(b"\0".join(name.encode("utf-8", "surrogatepass") for name in names) + b"\0\0")
    for column in (types[1], vmsds[1], offset, size, kind):
        key.update(column.tobytes())
    return Rows(
        paths,
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


def _codes(names: list[str], leaf: npt.NDArray[np.int64]) -> tuple[list[str], npt.NDArray[np.int32]]:
    numbers: dict[str, int] = {}
    codes = np.fromiter((numbers.setdefault(n, len(numbers)) for n in names), np.int32, len(names))
    return list(numbers), codes[leaf]


def gather(
    data: npt.NDArray[np.uint8],
    offset: npt.NDArray[np.int64],
    width: npt.NDArray[np.int64],
    kind: npt.NDArray[np.uint8],
) -> npt.NDArray[np.uint64]:
    """Numbers at `offset` as 64-bit words, one per value: unsigned, or sign-extended; 0 for buffers."""
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
    """Write numbers back, big-endian, at `offset`: the inverse of `gather`."""
    big = words.astype(">u8").view(np.uint8).reshape(-1, 8)
    number = kind != BYTES
    for size in (1, 2, 4, 8):
        which = np.flatnonzero(number & (width == size))
        for i in range(size):
            out[offset[which] + i] = big[which, 8 - size + i]


def batches(
    layout: Layout,
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
    """Offset, width and kind of every number, some at a time: one array may be as large as the stream."""
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
    """A section's payload, built again from the values decoded from it."""
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
