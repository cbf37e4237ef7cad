"""A view piece by piece: of a large file that is not in memory, a slice is as large in memory as it is long."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 4 << 20
_FIRST = 4 << 10  # bytes searched first: most sections are shorter
_OVERLAP = 64  # bytes; longer than what is searched for


def pieces(view: memoryview, start: int, end: int) -> Iterator[memoryview]:
    """Yields the bytes [start, end) of a view, some megabytes at a time."""
    for at in range(start, end, _PIECE):
        yield view[at : min(at + _PIECE, end)]


def found(pattern: bytes, view: memoryview, start: int) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Yields offset and match of each place from `start` on where a pattern matches; overlapping matches too.

    The pattern takes one byte and looks at no more than 64.
    """
    compiled, at, size = re.compile(pattern), start, _FIRST
    while at < len(view):
        for match in compiled.finditer(view[at : at + size + _OVERLAP]):
            if match.start() >= size:
                break
            yield at + match.start(), match
        at, size = at + size, min(4 * size, _PIECE)
