"""How many records in a row are of one page after the other: by their headers alone, all of them at once."""

from __future__ import annotations

import numpy as np

from vmstate_tools.format.ram_pages import ZERO, stride


def in_order(view: memoryview, start: int, count: int, head: int, page_size: int) -> tuple[int, bool]:
    """Returns how many of `count` records are of consecutive pages, and whether all their fill bytes are 0.

    `head` is the header of the first, which stands at `start`. By numpy and not construct: a guest has millions.
    """
    size = stride(head, page_size)
    heads = np.ndarray((count,), ">u8", view, start, (size,))
    other = heads != np.uint64(head) + np.uint64(page_size) * np.arange(count, dtype=np.uint64)
    if other.any():
        count = int(other.argmax())
    if not head & ZERO:
        return count, True
    return count, not np.ndarray((count,), np.uint8, view, start + 8, (size,)).any()
