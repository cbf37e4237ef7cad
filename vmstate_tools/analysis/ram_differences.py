"""Where the guest's memory in two streams differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.analysis.difference import Difference

if TYPE_CHECKING:
    from vmstate_tools.stream.ram import Ram

_STEP = 4 << 20  # bytes of guest memory compared at once


def of_ram(a: Ram, b: Ram, contents: bool) -> Iterator[Difference]:
    """Yields where the lists of RAMBlocks differ, and with `contents` how many pages of each do."""
    theirs = {block.raw_name: block for block in b.block_list}
    for block in a.block_list:
        other = theirs.pop(block.raw_name, None)
        if other is None:
            yield Difference("ram", 0, "", block.name, "only in a", a=block.used_length)
        elif block.used_length != other.used_length:
            yield Difference("ram", 0, "", block.name, "size", block.used_length, other.used_length)
        elif contents and (pages := _differing_pages(a, b, block.raw_name)):
            yield Difference("ram", 0, "", block.name, "pages", pages=pages)
    for block in theirs.values():
        yield Difference("ram", 0, "", block.name, "only in b", b=block.used_length)


def _differing_pages(a: Ram, b: Ram, block: bytes) -> int:
    """Counts the pages of a RAMBlock that differ, of those that either stream sent; what it claims costs nothing."""
    from tqdm.auto import tqdm

    page = a.page_size or b.page_size or 4096
    places = list(_merged(sorted({*_sent(a, block), *_sent(b, block)})))
    count = 0
    total = sum(end - start for start, end in places)
    with tqdm(total=total, unit="B", unit_scale=True, desc="comparing RAM", leave=False, delay=2) as bar:
        for start, end in places:
            for at in range(start, end, _STEP):
                size = min(_STEP, end - at)
                one, two = (np.frombuffer(ram.read(block, at, size), np.uint8) for ram in (a, b))
                unlike = np.flatnonzero(one != two)
                count += len(np.unique(unlike // page))
                bar.update(size)
    return count


def _sent(ram: Ram, block: bytes) -> Iterator[tuple[int, int]]:
    """Yields where a stream sent something for a RAMBlock that is not zero: start and end, in bytes."""
    return ((at, at + len(data)) for at, data in ram.contents(block))


def _merged(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields sorted stretches, those that meet or overlap as one."""
    first = last = None
    for start, end in places:
        if last is not None and start <= last:
            last = max(last, end)
            continue
        if first is not None and last is not None:
            yield first, last
        first, last = start, end
    if first is not None and last is not None:
        yield first, last
