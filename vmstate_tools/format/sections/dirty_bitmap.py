"""`dirty-bitmap`: bitmaps of disks, version 1 (since 2.12).

Facts: migration/block-dirty-bitmap.c, `send_bitmap_header`, `dirty_bitmap_load`. The comment at the head of that file
says be64 granularity; its code has always written be32. `start_flags`: 1 enabled, 2 persistent.
"""

from __future__ import annotations

from typing import Any

import construct as c

from vmstate_tools.format.sections.leaves import U8, U16, U32, U64, Payload, Raw, Step, Text, many, when

_EOS, _ZEROES, _BITMAP_NAME, _NODE_NAME, _START, _COMPLETE, _BITS = 1, 2, 4, 8, 0x10, 0x20, 0x40
_MORE = 0x80  # two or four bytes of flags: reserved, never written so far


def _flags(chunk: Any) -> int:
    """Returns the last byte of flags, which QEMU's reader keeps."""
    if not chunk.flags & _MORE:
        return int(chunk.flags)
    return int(chunk.flags4 & 0xFF if chunk.flags2 & _MORE else chunk.flags2)


def _follow(chunk: Any, payload: Payload) -> None:
    """Keeps count of the bitmaps that have started and are not complete."""
    flags, started = _flags(chunk), payload.state.get("open", 0)
    if not flags & (_EOS | _START | _COMPLETE | _BITS) or (flags & (_START | _COMPLETE) == _COMPLETE and not started):
        raise payload.wrong(f"dirty bitmap flags {flags:#x}", "start, bits, complete of a bitmap, or end")
    if flags & _START:
        payload.state["open"] = started + 1
    elif flags & _COMPLETE:
        payload.state["open"] = started - 1


def _starts(chunk: Any) -> bool:
    return bool(_flags(chunk) & _START)


def _has_bits(chunk: Any) -> bool:
    return _flags(chunk) & (_START | _COMPLETE | _BITS) == _BITS


DIRTY_BITMAP = c.Struct(
    "chunk"
    / many(
        lambda chunk: bool(_flags(chunk) & _EOS),
        "flags" / U8,
        "flags2" / c.If(c.this.flags & _MORE, U8),
        "flags4" / c.If(lambda chunk: chunk.flags2 is not None and chunk.flags2 & _MORE, U16),
        Step(_follow),
        "node" / c.If(lambda chunk: _flags(chunk) & _NODE_NAME, Text),
        "bitmap" / c.If(lambda chunk: _flags(chunk) & _BITMAP_NAME, Text),
        *when(_starts, "granularity" / U32, "start_flags" / U8),
        *when(_has_bits, "sector" / U64, "nr_sectors" / U32),
        *when(lambda chunk: _has_bits(chunk) and not _flags(chunk) & _ZEROES, "size" / U64, "bits" / Raw(c.this.size)),
    ),
)
