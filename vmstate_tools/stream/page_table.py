"""All page records of a stream as *runs*: records of one kind in a row, at a fixed distance, of consecutive pages.

A guest has millions of pages, and most of them stand in order. A run is one row of a numpy table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format.ram_pages import CONTINUE, FLAGS, MEM_SIZE, stride

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = [("file", "i8"), ("head", "u8"), ("count", "u4"), ("block", "u4")]
"""Offset of a run's first record in the stream, the word that heads it, the number of records, the block's number."""

NO_BLOCK = 0xFFFFFFFF
"""The block of a record that holds no page."""

_MOST_PENDING = 1 << 16


class PageTable:
    """A PageTable holds the runs of a stream, in its order; first gathered one by one, then in arrays of `RUN`.

    More runs than `most` are refused with a StreamError.
    """

    def __init__(self, most: int = 1 << 62) -> None:
        self._most = self._left = most
        self._pending: list[tuple[int, int, int, int]] = []
        self._arrays: list[np.ndarray] = []

    @property
    def runs(self) -> np.ndarray:
        """Returns all runs as one array of `RUN`."""
        self._to_array()
        if len(self._arrays) != 1:
            self._arrays = [np.concatenate(self._arrays) if self._arrays else np.empty(0, RUN)]
        return self._arrays[0]

    @property
    def flags(self) -> int:
        """Returns all flags (`RAM_SAVE_FLAG_*`) of all records, together."""
        return int(np.bitwise_or.reduce(self.runs["head"], initial=np.uint64(0))) & FLAGS

    def clear(self) -> None:
        """Forgets all runs."""
        self._pending.clear()
        self._arrays.clear()

    def add(self, file: int, head: int, block: int) -> None:
        """Adds a record that is a run of its own."""
        self._append(file, head, 1, block)

    def add_run(self, file: int, head: int, count: int, block: int, page_size: int) -> None:
        """Adds full or zero pages, to the run before them where they go on with it."""
        if self._pending:
            first_file, first, before, its_block = self._pending[-1]
            if (
                first + before * page_size == head
                and block == its_block
                and first_file + before * stride(head, page_size) == file
                and before + count < 1 << 32
            ):
                self._pending[-1] = (first_file, first, before + count, block)
                return
        self._append(file, head, count, block)

    def _append(self, file: int, head: int, count: int, block: int) -> None:
        self._take(1, file)
        self._pending.append((file, head, count, block))
        if len(self._pending) >= _MOST_PENDING:
            self._to_array()

    def _take(self, runs: int, file: int) -> None:
        self._left -= runs
        if self._left < 0:
            raise StreamError(
                "too many pages out of order",
                offset=file,
                expected=f"at most {self._most} runs of pages in a row in a file of this size",
            )

    def add_rows(self, rows: np.ndarray, page_size: int = 0) -> None:
        """Adds an array of `RUN`; with a page size, its first goes on with the run before it where it can."""
        self._to_array()
        if page_size and len(rows):
            self._take(len(rows), int(rows["file"][0]))
        if self._arrays and page_size:
            self._join(rows, page_size)
        self._arrays.append(rows)

    def _join(self, rows: np.ndarray, page_size: int) -> None:
        last, first = self._arrays[-1][-1], rows[0]
        count = int(last["count"])
        if (
            int(last["head"]) + count * page_size == int(first["head"])
            and last["block"] == first["block"]
            and int(last["file"]) + count * stride(int(last["head"]), page_size) == int(first["file"])
            and count + int(first["count"]) < 1 << 32
        ):
            first["file"], first["head"] = last["file"], last["head"]
            first["count"] += last["count"]
            self._arrays[-1] = self._arrays[-1][:-1]
            if not len(self._arrays[-1]):
                self._arrays.pop()

    def _to_array(self) -> None:
        if self._pending:
            self._arrays.append(np.array(self._pending, RUN))
            self._pending.clear()

    def between(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the runs of the payload [start, end), and the offset at which each ends."""
        first, last = np.searchsorted(self.runs["file"], (start, end))
        runs = self.runs[first:last]
        return runs, np.append(runs["file"], end)[1:]


def alike(runs: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int, int, int, int]]:
    """Yields runs of one kind and block in a row as one: offset, end, number of records, kind, block.

    Block lists stay apart. There may be a hundred thousand sections with one run each: no numpy here.
    """
    before: tuple[int, int, int, int, int] | None = None
    for (offset, head, count, block), stop in zip(runs.tolist(), ends.tolist(), strict=True):
        kind = head & FLAGS & ~CONTINUE
        if before is not None and before[3:] == (kind, block) and kind != MEM_SIZE:
            before = (before[0], stop, before[2] + count, kind, block)
            continue
        if before is not None:
            yield before
        before = (offset, stop, count, kind, block)
    if before is not None:
        yield before
