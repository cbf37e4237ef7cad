"""`block`: disks, MiB by MiB, version 1 (removed in 9.1).

Facts: migration/block.c, `blk_send`, `block_load`. `addr` is the sector number (512 bytes) shifted left by 9, and
flags: 1 a block of a device, 2 end of this record, 4 progress (the number is a percentage), 8 the block is zero (since
1.5) and not sent.
"""

from __future__ import annotations

from typing import Any

import construct as c

from vmstate_tools.format.sections.leaves import U64, Payload, Raw, Step, Text, many

_DEVICE, _EOS, _PROGRESS, _ZERO = 1, 2, 4, 8
_FLAGS = 0x1FF
_SIZE = 1 << 20


def _known(chunk: Any, payload: Payload) -> None:
    if not chunk.addr & (_DEVICE | _EOS | _PROGRESS):
        raise payload.wrong(f"block flags {chunk.addr & _FLAGS:#x}", "a block, progress or the end")


BLOCK = c.Struct(
    "chunk"
    / many(
        lambda chunk: bool(chunk.addr & _EOS),
        "addr" / U64,
        Step(_known),
        "device" / c.If(c.this.addr & _DEVICE, Text),
        "data" / c.If(lambda chunk: chunk.addr & (_DEVICE | _ZERO) == _DEVICE, Raw(_SIZE)),
    ),
)
