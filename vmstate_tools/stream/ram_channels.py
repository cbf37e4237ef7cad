"""The pages of multifd channels as runs of the RAM blocks that the main stream lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format.framing import name as shown_name
from vmstate_tools.format.ram_pages import EOS, FLAGS, MULTIFD_FLUSH, PAGE, ZERO
from vmstate_tools.stream.page_table import RUN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmstate_tools.format.multifd import Packet
    from vmstate_tools.format.multifd_channel import Channel
    from vmstate_tools.format.ram_blocks import Block

CHANNEL_RUN = [*RUN, ("sync", "u4")]
"""As `RUN`; `file` counts in the channel's full pages, in bytes; `sync` is the number of syncs before."""


def block_of(packet: Packet, numbers: Mapping[bytes, int]) -> int:
    """Returns the number of the block that a packet's pages are of. Raises StreamError where it is not listed."""
    name = packet.ramblock.split(b"\0")[0]
    if name not in numbers:
        raise StreamError(
            f"multifd pages of RAM block {shown_name(name)!r}",
            offset=packet.offset,
            expected="a block from the main stream's block list",
        )
    return numbers[name]


def channel_runs(channel: Channel, page_size: int, blocks: Sequence[Block], numbers: Mapping[bytes, int]) -> np.ndarray:
    """Returns a channel's pages as an array of `CHANNEL_RUN`. Raises StreamError where a page is outside its block."""
    size = channel.page_size
    if size != page_size:
        raise StreamError(f"a channel of pages of {size} bytes", offset=0, expected=f"{page_size} bytes")
    parts = []
    for index, packet in enumerate(channel.packets):
        offsets = channel.offsets(packet)
        if not len(offsets):
            continue
        block = block_of(packet, numbers)
        limit = blocks[block].used_length
        if int(offsets.max()) + size > limit or (offsets & np.uint64(size - 1)).any():
            raise StreamError(
                f"a multifd page at 0x{int(offsets.max()):x} of RAM block {blocks[block].name!r}",
                offset=packet.offset,
                expected=f"page offsets below its size 0x{limit:x}",
            )
        rows = np.empty(len(offsets), CHANNEL_RUN)
        full = np.arange(len(offsets)) < packet.normal
        rows["file"] = int(channel.starts[index]) + np.minimum(np.arange(len(offsets)), packet.normal) * size
        rows["head"] = offsets | np.where(full, PAGE, ZERO).astype(np.uint64)
        rows["block"] = block
        rows["sync"] = packet.sync
        first = np.append(0, np.flatnonzero(np.diff(rows["head"]) != size) + 1)
        count = np.diff(first, append=len(rows))
        rows = rows[first]
        rows["count"] = count
        parts.append(rows)
    return np.concatenate(parts) if parts else np.empty(0, CHANNEL_RUN)


def syncs_before(runs: np.ndarray) -> np.ndarray:
    """Returns the number of multifd syncs before each run of the main stream.

    They stand at MULTIFD_FLUSH, or before 8.1 at each section's end.
    """
    kinds = runs["head"] & np.uint64(FLAGS)
    mark = kinds == MULTIFD_FLUSH
    if not mark.any():
        mark = kinds == EOS
    return np.cumsum(mark) - mark
