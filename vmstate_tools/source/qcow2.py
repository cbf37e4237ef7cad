"""Internal snapshots of qcow2 images (`savevm`): the stream lies in clusters past the guest's disk.

Read here and not by a library for disk images: those stop at the disk's end, and believe the tables' sizes.
The facts are of QEMU's `docs/interop/qcow2.txt`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import construct as c
import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.source.parsing import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER = Format(
    "qcow2 header",
    "magic" / c.Bytes(4),
    "version" / c.Int32ub,
    "backing_file_offset" / c.Int64ub,
    "backing_file_size" / c.Int32ub,
    "cluster_bits" / c.Int32ub,
    "size" / c.Int64ub,
    "crypt_method" / c.Int32ub,
    "l1_size" / c.Int32ub,
    "l1_table_offset" / c.Int64ub,
    "refcount_table_offset" / c.Int64ub,
    "refcount_table_clusters" / c.Int32ub,
    "nb_snapshots" / c.Int32ub,
    "snapshots_offset" / c.Int64ub,
    "incompatible_features" / c.If(c.this.version >= 3, c.Int64ub),
)
_DATA_FILE, _EXTENDED_L2 = 1 << 2, 1 << 4  # incompatible_features

SNAPSHOT = Format(
    "qcow2 snapshot",
    "l1_table_offset" / c.Int64ub,
    "l1_size" / c.Int32ub,
    "id_str_size" / c.Int16ub,
    "name_size" / c.Int16ub,
    "date_sec" / c.Int32ub,
    "date_nsec" / c.Int32ub,
    "vm_clock_nsec" / c.Int64ub,
    "vm_state_size" / c.Int32ub,
    "extra_data_size" / c.Int32ub,
    compiled=True,  # an image may have 65,536
)
"""The fixed part of an entry of the snapshot table. The extra data, the id and the name follow."""

EXTRA = Format(
    "qcow2 snapshot's extra data",
    "vm_state_size_large" / c.Int64ub,
    "disk_size" / c.Int64ub,
    "icount" / c.Int64ub,
    compiled=True,
)
"""Older images have less of it, or none."""

_NO_ICOUNT = 2**64 - 1

_OFFSET = 0x00FFFFFFFFFFFE00  # in an L1 or L2 entry
_COMPRESSED, _ZERO = 1 << 62, 1  # in an L2 entry

_CLUSTER_BITS = range(9, 22)
_MAX_SNAPSHOTS = 65536  # QEMU block/qcow2.h: QCOW_MAX_SNAPSHOTS
_SUBCLUSTERS = 32
_PIECE = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """An entry of the snapshot table, and what of the image's header its clusters are found by."""

    id: str
    name: str
    date: str
    vm_clock_nsec: int
    icount: int | None
    size: int  # bytes of VM state; 0 for a snapshot of the disk alone
    disk_size: int
    l1_offset: int
    l1_size: int
    cluster_bits: int
    extended: bool

    def meta(self) -> dict[str, Any]:
        """Returns what a user may want to know of it."""
        return {key: getattr(self, key) for key in ("id", "name", "date", "vm_clock_nsec", "icount", "size")}


def pick(view: memoryview, wanted: str | None, file: str) -> Snapshot:
    """Returns the snapshot of that name, or else of that id; the only one with VM state when none is named.

    Raises
    ------
    StreamError : not a sound image, encrypted, no such snapshot, or several to choose from.
    """
    snapshots = [s for s in _snapshots(view, file) if s.size]
    if not snapshots:
        raise StreamError("the qcow2 image holds no snapshot with VM state (savevm)", file=file)
    found = snapshots
    if wanted is not None:
        found = [s for s in snapshots if s.name == wanted] or [s for s in snapshots if s.id == wanted]
    if len(found) != 1:
        held = ", ".join(f"{s.name[:40]!r} (id {s.id[:40]})" for s in snapshots[:8])
        held += f" and {len(snapshots) - 8} more" * (len(snapshots) > 8)
        asked = "a choice of snapshot is needed" if wanted is None else f"no one snapshot {wanted!r}"
        raise StreamError(f"{asked}: the qcow2 image holds {held}", expected="snapshot=name or id", file=file)
    return found[0]


def _snapshots(view: memoryview, file: str) -> Iterator[Snapshot]:
    def bad(what: str, offset: int) -> StreamError:
        return StreamError(f"the qcow2 image is damaged: {what}", offset=offset, file=file)

    try:
        header, _ = HEADER.read(view, 0, "a qcow2 header")
    except StreamError:
        raise bad("it ends within its header", len(view)) from None
    features = header.incompatible_features or 0
    if header.cluster_bits not in _CLUSTER_BITS:
        raise bad(f"clusters of 2^{header.cluster_bits} bytes", 20)
    if header.nb_snapshots > _MAX_SNAPSHOTS:
        raise bad(f"{header.nb_snapshots} snapshots", 60)
    if header.crypt_method:
        raise StreamError("the qcow2 image is encrypted", offset=32, file=file)
    if features & _DATA_FILE:
        raise StreamError("the qcow2 image keeps its data in another file", offset=72, file=file)
    at = header.snapshots_offset
    for _ in range(header.nb_snapshots):
        try:
            entry, extra_at = SNAPSHOT.read(view, at, "a snapshot")
        except StreamError:
            raise bad("a snapshot outside the file", at) from None
        id_at = extra_at + entry.extra_data_size
        name_at = id_at + entry.id_str_size
        stop = name_at + entry.name_size
        if stop > len(view):
            raise bad("a snapshot outside the file", at)
        given = entry.extra_data_size
        raw = bytes(view[extra_at : min(id_at, extra_at + EXTRA.size)]).ljust(EXTRA.size, b"\x00")
        extra, _ = EXTRA.read(memoryview(raw), 0, "extra data")
        yield Snapshot(
            id=bytes(view[id_at:name_at]).decode("utf-8", "replace"),
            name=bytes(view[name_at:stop]).decode("utf-8", "replace"),
            date=datetime.fromtimestamp(entry.date_sec, UTC).isoformat(),
            vm_clock_nsec=entry.vm_clock_nsec,
            icount=extra.icount if given >= 24 and extra.icount != _NO_ICOUNT else None,
            size=extra.vm_state_size_large if given >= 8 else entry.vm_state_size,
            disk_size=extra.disk_size if given >= 16 else header.size,
            l1_offset=entry.l1_table_offset,
            l1_size=entry.l1_size,
            cluster_bits=header.cluster_bits,
            extended=bool(features & _EXTENDED_L2),
        )
        at = (stop + 7) & ~7


def read_vmstate(view: memoryview, snapshot: Snapshot, file: str) -> Iterator[tuple[int, bytes]]:
    """Yields (bytes of the image read so far, next bytes) of a snapshot's VM state.

    It begins with the first L1 entry that the disk does not need (QEMU: `qcow2_vm_state_offset`).

    Raises
    ------
    StreamError : a table or cluster outside the file, with the offset in the image.
    """
    left = snapshot.size
    read = 0
    batch: list[bytes] = []
    clusters = _clusters(view, snapshot, file)
    while left:
        damage = None
        try:
            data, stored = next(clusters)
            batch.append(data[:left])
            if len(batch[-1]) < min(left, 1 << snapshot.cluster_bits):
                damage = StreamError("the qcow2 image is cut short", offset=len(view), file=file)
            left -= len(batch[-1])
            read += stored
        except StopIteration:
            what = f"the qcow2 snapshot's tables end {left} bytes before its VM state"
            damage = StreamError(what, offset=snapshot.l1_offset, file=file)
        except StreamError as error:
            damage = error
        if damage or not left or len(batch) << snapshot.cluster_bits >= _PIECE:
            yield read, b"".join(batch)
            batch.clear()
        if damage:
            raise damage


def _clusters(view: memoryview, snapshot: Snapshot, file: str) -> Iterator[tuple[bytes, int]]:
    """Yields each cluster from the disk's end on, short where the file ends, and how much of it the file stores."""

    def table(offset: int, count: int) -> Any:
        if offset + 8 * count > len(view):
            raise StreamError("a qcow2 table outside the file", offset=offset, file=file)
        # By numpy: a table has up to a million entries.
        return np.frombuffer(view[offset : offset + 8 * count], ">u8")

    size = 1 << snapshot.cluster_bits
    words = 2 if snapshot.extended else 1
    entries = size // (8 * words)
    zeros = bytes(size)
    skip = -(-snapshot.disk_size // (entries * size))
    for l1_entry in table(snapshot.l1_offset, snapshot.l1_size)[skip:]:
        l2_offset = int(l1_entry) & _OFFSET
        if not l2_offset:
            yield from ((zeros, 0) for _ in range(entries))
            continue
        for l2_entry, *bitmap in table(l2_offset, entries * words).reshape(entries, words).tolist():
            offset = l2_entry & _OFFSET
            if l2_entry & _COMPRESSED:
                raise StreamError("compressed VM state in a qcow2 image", offset=offset, file=file)
            if not offset or (l2_entry & _ZERO and not bitmap):
                yield zeros, 0
                continue
            data = bytes(view[offset : offset + size])
            if bitmap:
                data = _allocated(data, bitmap[0], size // _SUBCLUSTERS)
            yield data, len(data)


def _allocated(data: bytes, bitmap: int, size: int) -> bytes:
    """Returns a cluster whose subclusters read as zeros where the bitmap's low half does not say they are there."""
    if bitmap & 0xFFFFFFFF == 0xFFFFFFFF:
        return data
    parts = (data[i * size : (i + 1) * size] for i in range(_SUBCLUSTERS))
    return b"".join(part if bitmap >> i & 1 else bytes(len(part)) for i, part in enumerate(parts))
