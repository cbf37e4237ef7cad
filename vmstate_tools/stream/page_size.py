"""The target's page size, where nothing says it: the one with which the page records make sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.format.ram_pages import (
    COMPRESSED_HEADER,
    CONTINUE,
    EOS,
    KINDS,
    PAGE,
    PAGE_SIZES,
    XBZRLE,
    XBZRLE_HEADER,
    ZERO,
    head_at,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmstate_tools.format.ram_blocks import Block

_USUAL = 4096  # what most targets have
_FIRST, _MORE = 64, 4096  # records that are looked at; the first few mostly say


def infer(
    view: memoryview, at: int, blocks: Sequence[Block], numbers: Mapping[bytes, int], current: int, *, whole: bool
) -> tuple[int, bool]:
    """Returns the page size in bytes with which the records from `at` on fit best, and whether it is sure.

    Parameters
    ----------
    numbers : the number in `blocks` of each name.
    current : the number of the block that the record before was of; past the end of `blocks` where there is none.
    whole : False where more is to come behind the end of `view`.
    """
    exact: list[int] = []
    for records in (_FIRST, _MORE):
        fits = {}
        for size in PAGE_SIZES:
            step = _least_step(view, at, size, records, blocks, numbers, current, whole)
            if step is not None:
                fits[size] = step
        # Pages are sent in order: the distance from one to the next is the page size, mostly.
        exact = [size for size, step in fits.items() if size == step]
        if len(exact) == 1:
            break
    exact = exact or list(fits)
    return (exact[0], True) if len(exact) == 1 else (_USUAL, False)


def _least_step(
    view: memoryview,
    at: int,
    page_size: int,
    records: int,
    blocks: Sequence[Block],
    numbers: Mapping[bytes, int],
    current: int,
    whole: bool,
) -> int | None:
    """Returns the least distance from page to page, if the records read well as pages of this size; else None."""
    block, before, step = current, None, 1 << 63
    for _ in range(records):
        if at + 8 > len(view):
            return None if whole else step
        head = head_at(view, at)
        kind = head & (page_size - 1) & ~CONTINUE
        if kind == EOS:
            break
        body = at + 8
        if kind not in KINDS or (head & CONTINUE and block >= len(blocks)):
            return None
        if not head & CONTINUE:
            if body >= len(view) or body + 1 + view[body] > len(view):
                return None if whole else step
            name = bytes(view[body + 1 : body + 1 + view[body]])
            if name not in numbers:
                return None
            block, before = numbers[name], None
            body += 1 + len(name)
        guest = head & ~(page_size - 1)
        if guest >= blocks[block].used_length or blocks[block].used_length % page_size:
            return None
        if before is not None and guest != before:
            step = min(step, abs(guest - before))
        before = guest
        if kind in (ZERO, PAGE):
            at = body + (1 if kind == ZERO else page_size)
        elif body + 4 > len(view):
            return None if whole else step
        elif kind == XBZRLE:
            header, at = XBZRLE_HEADER.read(view, body, "an XBZRLE page")
            at += header.length
        else:
            header, at = COMPRESSED_HEADER.read(view, body, "a compressed page")
            at += header.length
    return step
