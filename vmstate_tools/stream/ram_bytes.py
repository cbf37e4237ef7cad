"""The payloads of the RAM section, taken apart into records and built again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.format.ram_blocks import TOTAL
from vmstate_tools.format.ram_pages import (
    COMPRESS_PAGE,
    CONTINUE,
    EOS,
    FLAGS,
    KINDS,
    MEM_SIZE,
    MULTIFD_FLUSH,
    PAGE,
    XBZRLE,
    ZERO,
    stride,
)
from vmstate_tools.source.parsing import Counted8
from vmstate_tools.stream.page_table import NO_BLOCK, alike
from vmstate_tools.stream.pieces import pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.stream.ram_reader import RamReader

_WHAT = {
    ZERO: "ram zero page",
    PAGE: "ram page",
    XBZRLE: "ram XBZRLE page",
    COMPRESS_PAGE: "ram compressed page",
    EOS: "ram end of section",
    MULTIFD_FLUSH: "ram multifd flush",
}
_PIECE = 4 << 20  # bytes built at once


class RamBytes:
    """The records that `reader` has read in `view`."""

    def __init__(self, reader: RamReader, view: memoryview) -> None:
        self._reader, self._view = reader, view

    def _between(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        return self._reader.table.between(start, min(end, self._reader.parsed_to))

    def records(self, start: int, end: int) -> list[tuple[int, int, str, str]]:
        """Returns what the payload [start, end) consists of: (offset, size, what, detail), no gap, no overlap.

        Pages of one kind and block in a row are one entry, `detail` being their number and the block.
        """
        out: list[tuple[int, int, str, str]] = []
        for offset, stop, count, kind, block in alike(*self._between(start, end)):
            if kind == MEM_SIZE:
                out += self._list_records(offset)
            else:
                what = _WHAT[kind] + ("s" if kind in KINDS and count > 1 else "")
                detail = f"{count} x {self._reader.blocks[block].name}" if kind in KINDS else ""
                out.append((offset, stop - offset, what, detail))
        return out

    def _list_records(self, offset: int) -> Iterator[tuple[int, int, str, str]]:
        yield offset, 8, "ram total size", ""
        for block in self._reader.lists[offset]:
            size = len(block.build())
            at = block.offset + size
            yield block.offset, size, "ram block", block.name
            if block.pages_offset is None or block.bitmap_offset is None:
                continue
            for start, length, what in (
                (block.bitmap_offset, block.bitmap_size, "mapped-ram bitmap"),
                (block.pages_offset, block.used_length, "mapped-ram pages"),
            ):
                if start > at:
                    yield at, start - at, "mapped-ram padding", block.name
                yield start, length, what, block.name
                at = start + length

    def build(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """Yields the bytes of the payload [start, end) again, made from what was read.

        Headers, names and lengths come from the runs and blocks; page contents, compressed data, fill bytes,
        mapped-ram bitmaps and padding from the stream.
        """
        runs, ends = self._between(start, end)
        words = runs["head"].astype(">u8").tobytes()  # by numpy and not by PAGE_HEADER: each page out of order has one
        names = [Counted8.build(block.raw_name) for block in self._reader.blocks]
        parts: list[bytes | memoryview] = []
        waiting = 0
        for i, ((file, head, count, number), stop) in enumerate(zip(runs.tolist(), ends.tolist(), strict=True)):
            if head & FLAGS == MEM_SIZE:
                yield b"".join(parts)
                parts, waiting = [], 0
                yield from self._build_list(file, head)
            elif count > 1:
                yield b"".join(parts)
                parts, waiting = [], 0
                yield from self._build_run(file, head, count)
            else:
                header = words[8 * i : 8 * i + 8]
                if number != NO_BLOCK and not head & CONTINUE:
                    header += names[number]
                parts.append(header)
                parts.append(self._view[file + len(header) : stop])
            waiting += stop - file
            if waiting > 1 << 20:
                yield b"".join(parts)
                parts, waiting = [], 0
        yield b"".join(parts)

    def _build_run(self, file: int, head: int, count: int) -> Iterator[memoryview]:
        size = stride(head, self._reader.page_size)
        most = max(1, _PIECE // size)
        for done in range(0, count, most):
            n = min(most, count - done)
            out = np.empty((n, size), np.uint8)
            words = np.uint64(head) + np.uint64(self._reader.page_size) * np.arange(done, done + n, dtype=np.uint64)
            out[:, :8] = words.astype(">u8").view(np.uint8).reshape(n, 8)
            records = self._view[file + done * size : file + (done + n) * size]
            out[:, 8:] = np.ndarray((n, size - 8), np.uint8, records, 8, (size, 1))
            yield out.reshape(-1).data

    def _build_list(self, file: int, head: int) -> Iterator[bytes | memoryview]:
        yield TOTAL.build({"head": head})
        for block in self._reader.lists[file]:
            entry = block.build()
            yield entry
            yield from pieces(self._view, block.offset + len(entry), block.end)
