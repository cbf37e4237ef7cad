"""Internal snapshots of qcow2 images (`savevm`): the stream lies in clusters past the guest's disk.

The layouts are dissect.hypervisor's; only the walk over the clusters is done here, since its disk stream
stops at the disk's end and misreads extended L2 entries.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_SNAPSHOTS = 65536  # QEMU block/qcow2.h: QCOW_MAX_SNAPSHOTS
_SUBCLUSTERS = 32
_PIECE = 1 << 20


class Snapshot(NamedTuple):
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
        """What a user may want to know of it."""
        return {key: getattr(self, key) for key in ("id", "name", "date", "vm_clock_nsec", "icount", "size")}


def pick(view: memoryview, wanted: str | None, file: str) -> Snapshot:
    """The snapshot of that name, or else of that id; the only one with VM state when none is named.

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
        held = ", ".join(f"{s.name!r} (id {s.id})" for s in snapshots)
        asked = "a choice of snapshot is needed" if wanted is None else f"no one snapshot {wanted!r}"
        raise StreamError(f"{asked}: the qcow2 image holds {held}", expected="snapshot=name or id", file=file)
    return found[0]


def _snapshots(view: memoryview, file: str) -> Iterator[Snapshot]:
    from dissect.hypervisor.disk.c_qcow2 import c_qcow2

    def bad(what: str, offset: int) -> StreamError:
        return StreamError(f"the qcow2 image is damaged: {what}", offset=offset, file=file)

    def struct(kind: Any, offset: int, size: int = 0) -> Any:
        data = bytes(view[offset : offset + (size or len(kind))])
        if len(data) < size or (not size and len(data) < len(kind)):
            raise bad(f"{kind.__name__} outside the file", offset)
        return kind(data.ljust(len(kind), b"\x00"))

    # Version 2 headers end after snapshots_offset: what follows are other things.
    head = struct(c_qcow2.QCowHeader, 0, 72)
    features = 0
    if head.version >= 3:
        features = struct(c_qcow2.QCowHeader, 0).incompatible_features
    if head.version not in (2, 3):
        raise bad(f"version {head.version}", 4)
    if not c_qcow2.MIN_CLUSTER_BITS <= head.cluster_bits <= c_qcow2.MAX_CLUSTER_BITS:
        raise bad(f"clusters of 2^{head.cluster_bits} bytes", 20)
    if head.nb_snapshots > _MAX_SNAPSHOTS:
        raise bad(f"{head.nb_snapshots} snapshots", 60)
    if head.crypt_method:
        raise StreamError("the qcow2 image is encrypted", offset=32, file=file)
    if features & c_qcow2.QCOW2_INCOMPAT_DATA_FILE:
        raise StreamError("the qcow2 image keeps its data in another file", offset=72, file=file)
    at = head.snapshots_offset
    for _ in range(head.nb_snapshots):
        entry = struct(c_qcow2.QCowSnapshotHeader, at)
        at += len(c_qcow2.QCowSnapshotHeader)
        names = at + entry.extra_data_size
        stop = names + entry.id_str_size + entry.name_size
        if stop > len(view):
            raise bad("a snapshot table entry outside the file", at)
        extra = c_qcow2.QCowSnapshotExtraData(bytes(view[at : min(names, at + 24)]).ljust(24, b"\x00"))
        known = entry.extra_data_size
        text = bytes(view[names:stop])
        yield Snapshot(
            id=text[: entry.id_str_size].decode("utf-8", "replace"),
            name=text[entry.id_str_size :].decode("utf-8", "replace"),
            date=datetime.fromtimestamp(entry.date_sec, UTC).isoformat(),
            vm_clock_nsec=entry.vm_clock_nsec,
            icount=extra.icount if known >= 24 and extra.icount != 2**64 - 1 else None,
            size=extra.vm_state_size_large if known >= 8 else entry.vm_state_size,
            disk_size=extra.disk_size if known >= 16 else head.size,
            l1_offset=entry.l1_table_offset,
            l1_size=entry.l1_size,
            cluster_bits=head.cluster_bits,
            extended=bool(features & c_qcow2.QCOW2_INCOMPAT_EXTL2),
        )
        at = (stop + 7) & ~7


def read_vmstate(view: memoryview, snapshot: Snapshot, file: str) -> Iterator[tuple[int, bytes]]:
    """Yield (bytes of the image read so far, next bytes) of a snapshot's VM state.

    It begins with the first L1 entry that the disk does not need (QEMU: `qcow2_vm_state_offset`).

    Raises
    ------
    StreamError : a table or cluster outside the file, with the offset in the image.
    """
    left = snapshot.size
    read = 0
    batch: list[bytes] = []
    for data, stored in _clusters(view, snapshot, file):
        batch.append(data[:left])
        left -= len(batch[-1])
        read += stored
        if not left or len(batch) * len(data) >= _PIECE:
            yield read, b"".join(batch)
            batch.clear()
        if not left:
            return
    raise StreamError(f"the qcow2 snapshot lacks {left} bytes of VM state", offset=len(view), file=file)


def _clusters(view: memoryview, snapshot: Snapshot, file: str) -> Iterator[tuple[bytes, int]]:
    """Each cluster from the disk's end on, and how much of it is stored in the file: zeros may not be."""
    import numpy as np
    from dissect.hypervisor.disk.c_qcow2 import c_qcow2

    def table(offset: int, count: int) -> Any:
        if offset + 8 * count > len(view):
            raise StreamError("a qcow2 table outside the file", offset=offset, file=file)
        return np.frombuffer(view, ">u8", count, offset)

    size = 1 << snapshot.cluster_bits
    words = 2 if snapshot.extended else 1
    entries = size // (8 * words)
    zeros = bytes(size)
    skip = -(-snapshot.disk_size // (entries * size))
    for l1_entry in table(snapshot.l1_offset, snapshot.l1_size)[skip:]:
        l2_offset = int(l1_entry) & c_qcow2.L1E_OFFSET_MASK
        if not l2_offset:
            yield from ((zeros, 0) for _ in range(entries))
            continue
        for l2_entry, *bitmap in table(l2_offset, entries * words).reshape(entries, words).tolist():
            offset = l2_entry & c_qcow2.L2E_OFFSET_MASK
            if l2_entry & c_qcow2.QCOW_OFLAG_COMPRESSED:
                raise StreamError("compressed VM state in a qcow2 image", offset=offset, file=file)
            if not offset or (l2_entry & c_qcow2.QCOW_OFLAG_ZERO and not bitmap):
                yield zeros, 0
                continue
            data = bytes(view[offset : offset + size])
            # An image may end within its last cluster, behind what was written to it; not before it.
            if not data:
                raise StreamError("a qcow2 cluster outside the file", offset=offset, file=file)
            yield _allocated(data.ljust(size, b"\x00"), *bitmap), len(data)


def _allocated(data: bytes, bitmap: int = 0xFFFFFFFF) -> bytes:
    """A cluster whose subclusters read as zeros where the bitmap's low half does not say they are there."""
    if bitmap & 0xFFFFFFFF == 0xFFFFFFFF:
        return data
    size = len(data) // _SUBCLUSTERS
    parts = (data[i * size : (i + 1) * size] for i in range(_SUBCLUSTERS))
    return b"".join(part if bitmap >> i & 1 else bytes(size) for i, part in enumerate(parts))
