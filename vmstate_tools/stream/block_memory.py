"""The guest's memory block by block, made of what all connections of a migration carried when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format.ram_pages import CONTINUE
from vmstate_tools.stream.guest_memory import PAGES, GuestMemory, MappedMemory, RecordedMemory
from vmstate_tools.stream.ram_channels import channel_runs, syncs_before

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.format.multifd_channel import Channel
    from vmstate_tools.stream.ram_reader import RamReader


class BlockMemory:
    """The memory of each RAMBlock, as the destination would have it.

    Attributes
    ----------
    reader : what read the records of the main stream.
    view : the bytes of the main stream.
    channels : the multifd connections.
    """

    def __init__(self, reader: RamReader, view: memoryview) -> None:
        self.reader = reader
        self.view = view
        self.channels: list[Channel] = []
        self._made: dict[int, GuestMemory] = {}

    def connect(self, view: memoryview) -> None:
        """Goes on with the bytes up to the end of another connection."""
        self.view = view

    def add_channel(self, channel: Channel) -> None:
        """Adds the pages of a multifd connection."""
        self.channels.append(channel)
        self.forget()

    def forget(self) -> None:
        """Forgets what was made: more pages come."""
        self._made.clear()

    def close(self) -> None:
        """Lets go of the bytes."""
        self.forget()
        self.channels.clear()
        self.view = memoryview(b"")

    def runs_of(self, channel: Channel) -> np.ndarray:
        """Returns the runs of pages that a channel carried. Raises StreamError, which names the channel's file."""
        try:
            return channel_runs(channel, self.reader.page_size, self.reader.blocks, self.reader.numbers)
        except StreamError as error:
            error.file = error.file or channel.name or None
            raise

    def pieces(self, number: int, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """Yields what the pages hold that these bytes lie in; a stranger's block may end inside of a page."""
        page, length = self.reader.page_size or 1, self.reader.blocks[number].used_length
        for at, data in self.of(number).pieces(start // page * page, -(-end // page) * page):
            yield at, data[: length - at]

    def of(self, number: int) -> GuestMemory:
        """Returns the memory of the RAMBlock of this number. Raises StreamError where pages of it are wrong."""
        if number not in self._made:
            self._made[number] = self._make(number)
        return self._made[number]

    def _make(self, number: int) -> GuestMemory:
        block, size = self.reader.blocks[number], self.reader.page_size or 1
        if not len(self.view):
            raise StreamError("the stream is closed")
        if block.bitmap_offset is not None and block.pages_offset is not None:
            n = block.used_length // size
            return MappedMemory(self.view, block.bitmap_offset, block.pages_offset, n, size)
        # Pages of one sync round are in no order among the channels, and none is written twice in it.
        runs = self.reader.table.runs
        tables = [(0, runs, syncs_before(runs))]
        for n, channel in enumerate(self.channels):
            rows = self.runs_of(channel)
            tables.append((n + 1, rows, rows["sync"]))
        parts, syncs = [], []
        for source, runs, sync in tables:
            which = runs["block"] == number
            runs = runs[which]
            part = np.empty(len(runs), PAGES)
            for name in ("file", "head", "count"):
                part[name] = runs[name]
            part["source"] = source
            part["body"] = np.where(runs["head"] & np.uint64(CONTINUE), 8, 9 + len(block.raw_name))
            parts.append(part)
            syncs.append(sync[which])
        order = np.argsort(np.concatenate(syncs), kind="stable")
        pages = np.concatenate(parts)[order]
        return RecordedMemory(self.view, self.channels, pages, size, filled=self.reader.fill_bytes)
