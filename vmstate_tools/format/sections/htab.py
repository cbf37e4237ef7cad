"""`spapr/htab`: the hash page table of a pseries guest, version 1 (since 1.6).

Facts: hw/ppc/spapr.c, `htab_save_setup`, `htab_save_iterate`, `htab_load`. Without a hash table (radix guests) every
record is a header of -1 alone; a start record never has more.
"""

from __future__ import annotations

import struct
from typing import Any

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.format.sections.leaves import S32, Leaf, Payload, Step

_MAX_CHUNKS = 1 << 16  # beyond them the chunks of one record are one leaf
_MAX_SHIFT = 46  # the greatest table the architecture has (HTABSIZE) has 2^46 bytes; QEMU's own limit is lower
HPTE = 16
"""Bytes of an entry of the table."""

# By struct and in one loop, not by construct: a busy guest sends a hundred thousand chunks. A chunk is the number of
# its first HPTE, how many valid ones follow, and how many invalid ones stand behind those; the last one has none.
CHUNK = struct.Struct(">IHH")


def _size(context: Any, payload: Payload) -> None:
    shift = context.htab_shift
    if shift != -1 and not 0 <= shift <= _MAX_SHIFT:
        raise payload.wrong(f"htab_shift {shift}", "-1 or the binary logarithm of the table's size")
    payload.state["slots"] = 1 << shift >> 4 if shift > 0 else None


def _header(context: Any, payload: Payload) -> None:
    if context.section_header not in (-1, 0):
        raise payload.wrong(f"header {context.section_header}", "0, or -1 for no hash table")


class _Chunks(c.Construct):
    """Chunks up to the empty one that ends them; the value is their bytes."""

    def _parse(self, stream: Payload, context: Any, path: str) -> bytes:
        start = stream.offset
        _record_chunks(stream)
        return bytes(stream.view[start : stream.offset])

    def _build(self, obj: bytes, stream: Any, context: Any, path: str) -> bytes:
        stream.write(obj)
        return obj


def _record_chunks(payload: Payload) -> None:
    slots = payload.state.get("slots")
    view, offset, leaves = payload.view, payload.offset, payload.leaves
    number = rest = 0
    while True:
        if len(view) - offset < CHUNK.size:
            raise StreamError("the stream ends in the table", offset=offset, expected="a chunk's header")
        index, n_valid, n_invalid = CHUNK.unpack(view[offset : offset + CHUNK.size])
        end = offset + CHUNK.size + HPTE * n_valid
        if end > len(view):
            raise StreamError(f"{n_valid} HPTEs do not fit what is left", offset=offset, expected="HPTEs")
        empty = not n_valid and not n_invalid
        if (empty and index) or (slots is not None and index + n_valid + n_invalid > slots):
            raise StreamError(
                f"chunk of {n_valid} + {n_invalid} HPTEs at {index}",
                offset=offset,
                expected=f"HPTEs of a table of {slots} or the end mark",
            )
        if number == _MAX_CHUNKS:
            rest = offset
        if empty and number > _MAX_CHUNKS:
            chunks = bytes(view[rest:offset])
            leaves.append(Leaf(f"chunk[{_MAX_CHUNKS}:]", "buffer", rest, len(chunks), chunks))
        if empty or number < _MAX_CHUNKS:
            chunk = "end" if empty else f"chunk[{number}]"
            leaves += (
                Leaf(f"{chunk}.index", "uint32", offset, 4, index),
                Leaf(f"{chunk}.n_valid", "uint16", offset + 4, 2, n_valid),
                Leaf(f"{chunk}.n_invalid", "uint16", offset + 6, 2, n_invalid),
            )
            if n_valid:
                at = offset + CHUNK.size
                leaves.append(Leaf(f"{chunk}.hptes", "buffer", at, end - at, bytes(view[at:end])))
        offset = payload.offset = end
        if empty:
            return
        number += 1


HTAB_START = c.Struct("htab_shift" / S32, Step(_size))

HTAB = c.Struct("section_header" / S32, Step(_header), "chunks" / c.If(c.this.section_header == 0, _Chunks()))
