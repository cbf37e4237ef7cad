"""How many pages of each RAM block a stream sent, by kind, and in how many bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.format.ram_pages import KINDS, PAGE, ZERO
from vmstate_tools.stream.guest_memory import MappedMemory
from vmstate_tools.stream.page_table import NO_BLOCK
from vmstate_tools.stream.ram_channels import block_of

if TYPE_CHECKING:
    from typing import Any

    from vmstate_tools.stream.block_memory import BlockMemory
    from vmstate_tools.stream.ram_reader import RamReader


def page_counts(memory: BlockMemory) -> dict[str, Any]:
    """Returns the columns of `Ram.pages`: for `block` a list of names, for the others arrays of int64."""
    reader = memory.reader
    n, page_size = len(reader.blocks), reader.page_size
    table, bytes_ = _recorded(reader)
    for number, block in enumerate(reader.blocks):
        pages = memory.of(number) if block.pages_offset is not None else None
        if isinstance(pages, MappedMemory) and page_size:
            table["normal"][number] = pages.present
            table["zero"][number] = block.used_length // page_size - pages.present
            bytes_[number] = pages.present * page_size
    table["multifd_zero"], table["multifd_normal"] = np.zeros((2, n), np.int64)
    for channel in memory.channels:
        rows = memory.runs_of(channel)
        for kind, name in ((ZERO, "multifd_zero"), (PAGE, "multifd_normal")):
            which = rows["head"] & np.uint64(kind) != 0
            table[name] += _sums(rows["block"][which], rows["count"][which], n)
        for packet in channel.packets:
            if packet.normal + packet.zero:
                bytes_[block_of(packet, reader.numbers)] += packet.size + packet.data_size
    table["bytes"] = bytes_
    return table


def _recorded(reader: RamReader) -> tuple[dict[str, Any], np.ndarray]:
    """Returns the number of the main stream's records by kind, and their bytes."""
    n, runs = len(reader.blocks), reader.table.runs
    numbers = runs["block"]
    ends = np.append(runs["file"][1:], reader.parsed_to)
    breaks = np.array([*reader.breaks, reader.parsed_to])
    ends = np.minimum(ends, breaks[np.searchsorted(breaks, runs["file"], "right")])
    zero = runs["head"] & np.uint64(ZERO) != 0
    sizes = np.where(
        runs["count"] > 1,
        runs["count"] * np.where(zero, 9, 8 + reader.page_size),
        ends - runs["file"],
    )
    own = numbers != NO_BLOCK
    table: dict[str, Any] = {"block": [b.name for b in reader.blocks]}
    for kind, name in KINDS.items():
        which = own & (runs["head"] & np.uint64(kind) != 0)
        table[name] = _sums(numbers[which], runs["count"][which], n)
    return table, _sums(numbers[own], sizes[own], n)


def _sums(numbers: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Returns the sum of `values` for each block number below `n`."""
    out = np.zeros(n, np.int64)
    np.add.at(out, numbers, values)
    return out
