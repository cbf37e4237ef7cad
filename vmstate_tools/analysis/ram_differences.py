"""Where the guest's memory in two streams differs."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.analysis.difference import Difference

if TYPE_CHECKING:
    import numpy.typing as npt

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
    """Counts the pages of a RAMBlock, sent by either stream, that differ; a length it claims costs nothing."""
    from tqdm.auto import tqdm

    page = a.page_size or b.page_size or 4096
    places = _merged(np.concatenate((a.stretches(block), b.stretches(block))))
    count = 0
    total = int((places[:, 1] - places[:, 0]).sum())
    with tqdm(total=total, unit="B", unit_scale=True, desc="comparing RAM", leave=False, delay=2) as bar:
        for window in _windows(places):
            starts = np.array([start for start, _ in window])
            sizes = np.array([end - start for start, end in window])
            bases = np.cumsum(sizes) - sizes
            one, two = (_gathered(ram, block, window, bases.tolist()) for ram in (a, b))
            if one != two:
                unlike = np.flatnonzero(np.frombuffer(one, np.uint8) != np.frombuffer(two, np.uint8))
                which = np.searchsorted(bases, unlike, "right") - 1
                count += len(np.unique((starts[which] + unlike - bases[which]) // page))
            bar.update(int(sizes.sum()))
    return count


def _merged(places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns stretches in order, those that meet or overlap as one."""
    places = places[np.argsort(places[:, 0], kind="stable")]
    ends = np.maximum.accumulate(places[:, 1])
    first = np.flatnonzero(np.append(True, places[1:, 0] > ends[:-1]))[: len(places)]
    last = np.append(first[1:] - 1, len(places) - 1)[: len(first)]
    return np.stack((places[first, 0], ends[last]), axis=1)


def _windows(places: npt.NDArray[np.int64]) -> Iterator[list[tuple[int, int]]]:
    """Yields stretches by as many as have `_STEP` bytes together: scattered pages are not looked up one by one."""
    window: list[tuple[int, int]] = []
    size = 0
    for start, end in places.tolist():
        for at in range(start, end, _STEP):
            stop = min(at + _STEP, end)
            if window and size + stop - at > _STEP:
                yield window
                window, size = [], 0
            window.append((at, stop))
            size += stop - at
    if window:
        yield window


def _gathered(ram: Ram, block: bytes, window: list[tuple[int, int]], bases: list[int]) -> bytearray:
    """Returns a RAMBlock's content at some stretches, one behind the other; `bases`: where each begins in it."""
    starts = [start for start, _ in window]
    out = bytearray(bases[-1] + window[-1][1] - window[-1][0])
    for at, data in ram.contents(block, window[0][0], window[-1][1]):
        i = bisect.bisect_right(starts, at) - 1
        to = bases[i] + at - starts[i]
        data = data[: len(out) - to]
        out[to : to + len(data)] = data
    return out
