"""How many pages of each RAM block a stream sent, by kind, and in how many bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.format.ram_pages import KINDS, ZERO
from vmstate_tools.stream.page_table import NO_BLOCK

if TYPE_CHECKING:
    from typing import Any

    from vmstate_tools.stream.ram_reader import RamReader


def recorded_counts(reader: RamReader) -> tuple[dict[str, Any], np.ndarray]:
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
        table[name] = sums(numbers[which], runs["count"][which], n)
    return table, sums(numbers[own], sizes[own], n)


def sums(numbers: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Returns the sum of `values` for each block number below `n`."""
    out = np.zeros(n, np.int64)
    np.add.at(out, numbers, values)
    return out
