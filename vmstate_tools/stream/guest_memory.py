"""Guest memory, from what a stream holds: which record has a page's final content, and the content."""

from __future__ import annotations

import zlib
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format import xbzrle
from vmstate_tools.format.ram_pages import FLAGS, PAGE, XBZRLE, ZERO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmstate_tools.format.multifd_channel import Channel

PAGES = np.dtype([("source", "u4"), ("file", "i8"), ("head", "u8"), ("count", "u4"), ("body", "u4")])
"""Runs of pages of one RAMBlock in the order they were written.

source : 0 for the stream itself, n for the nth channel.
file : offset of the first record; in a channel, of the first page among all the channel's pages.
head : the first page's offset in the block, and its flags.
body : from a record's start to its content, in bytes (a name comes between, if there is one).
"""

_PIECE = 4 << 20  # bytes of guest memory made at once


class GuestMemory(Protocol):
    """A GuestMemory is one RAMBlock's content."""

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """Yields what is not zero in [start, end): offset in the block, and bytes; later pieces go over earlier ones.

        `start` and `end` lie on page boundaries. A piece is good until the next is asked for.
        """

    def stretches(self) -> np.ndarray:
        """Returns where `pieces` has something: an (n, 2) int64 array of starts and ends in bytes, in any order."""


class RecordedMemory:
    """Content sent page by page: the last write wins, an XBZRLE page changes what was there."""

    def __init__(
        self, view: memoryview, channels: list[Channel], pages: np.ndarray, page_size: int, *, filled: bool
    ) -> None:
        self._view = view
        self._channels = channels
        self._pages = pages
        self._page_size = page_size
        self._filled = filled  # some zero page's byte is not 0: a stream from before 1.5
        self._guest = (pages["head"] & np.uint64(~FLAGS & (1 << 64) - 1)).astype(np.int64)
        delta = pages["head"] & np.uint64(XBZRLE) != 0
        self._whole = np.flatnonzero(~delta)
        self._bounds, owner = _last_writers(
            self._guest[self._whole],
            self._guest[self._whole] + pages["count"][self._whole].astype(np.int64) * page_size,
        )
        self._owner = np.append(self._whole, -1)[owner]  # -1 stays -1
        deltas = np.flatnonzero(delta)
        self._deltas = deltas[np.argsort(self._guest[deltas], kind="stable")]

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        yield from self._sent_whole(start, end)
        guests = self._guest[self._deltas]
        first, last = np.searchsorted(guests, (start, end))
        if first == last:
            return
        rows, guests = self._deltas[first:last], guests[first:last]
        later = rows > self._owners(guests)  # what a whole page overwrote is gone
        rows, guests = rows[later], guests[later]
        for group in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(guests)) + 1):
            if len(group):
                guest = int(guests[group[0]])
                yield guest, memoryview(self._patched(guest, rows[group].tolist()))

    def stretches(self) -> np.ndarray:
        wanted = self._owner >= 0
        if not self._filled:
            wanted &= self._pages["head"][self._owner] & np.uint64(ZERO) == 0
        guests = self._guest[self._deltas]
        patched = np.stack((guests, guests + self._page_size), axis=1)
        return np.concatenate((np.stack((self._bounds[:-1], self._bounds[1:]), axis=1)[wanted], patched))

    def _owners(self, guests: np.ndarray) -> np.ndarray:
        if not len(self._owner):
            return np.full(len(guests), -1)
        at = np.searchsorted(self._bounds, guests, "right") - 1
        inside = (at >= 0) & (at < len(self._owner))
        return np.where(inside, self._owner[np.where(inside, at, 0)], -1)

    def _patched(self, guest: int, rows: list[int]) -> bytearray:
        page = bytearray(self._page_size)
        for _, content in self._sent_whole(guest, guest + self._page_size):
            page[:] = content
        for row in rows:
            at = self._content_at(row)
            length = int.from_bytes(self._view[at + 1 : at + 3], "big")
            xbzrle.apply(bytes(self._view[at + 3 : at + 3 + length]), page, offset=at)
        return page

    def _content_at(self, row: int) -> int:
        return int(self._pages["file"][row]) + int(self._pages["body"][row])

    def _sent_whole(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """Yields pages that were sent whole, in the stream's order, not the guest's: so a channel is expanded once."""
        if not len(self._owner):
            return
        first = max(0, int(np.searchsorted(self._bounds, start, "right")) - 1)
        last = min(len(self._owner), int(np.searchsorted(self._bounds, end)))
        owner = self._owner[first:last]
        wanted = owner >= 0
        if not self._filled:
            wanted &= self._pages["head"][owner] & np.uint64(ZERO) == 0
        owner = owner[wanted]
        begin = np.maximum(self._bounds[first:last], start)[wanted]
        stop = np.minimum(self._bounds[first + 1 : last + 1], end)[wanted]
        order = np.argsort(owner, kind="stable")
        owner, begin, stop = owner[order], begin[order], stop[order]
        skip = (begin - self._guest[owner]) // self._page_size
        yield from self._contents(self._pages[owner], skip.tolist(), begin.tolist(), stop.tolist())

    def _contents(
        self, runs: np.ndarray, skips: list[int], begins: list[int], stops: list[int]
    ) -> Iterator[tuple[int, memoryview]]:
        """Yields pages [begin, stop) of each run, from its page `skip` on; neighbours in one piece."""
        size = self._page_size
        most = max(_PIECE // size, 1)
        buffer = np.empty((most, size), np.uint8)
        flat = memoryview(buffer.reshape(-1).data)
        guest = used = 0
        for run, skip, at, stop in zip(runs.tolist(), skips, begins, stops, strict=True):
            while at < stop:
                if used and (used == most or at != guest + used * size):
                    yield guest, flat[: used * size]
                    used = 0
                if not used:
                    guest = at
                n = min((stop - at) // size, most - used)
                self._fill(buffer[used : used + n], run, skip)
                used += n
                skip += n
                at += n * size
        if used:
            yield guest, flat[: used * size]

    def _fill(self, out: np.ndarray, run: tuple[int, int, int, int, int], skip: int) -> None:
        """Puts pages `skip`, `skip` + 1 … of a run into the rows of `out`."""
        source, file, head, _, body = run
        n, size = out.shape
        if source and head & PAGE:
            channel = self._channels[source - 1]
            for i in range(n):
                try:
                    out[i] = np.frombuffer(channel.page(file + (skip + i) * size), np.uint8)
                except StreamError as error:
                    error.file = error.file or channel.name or None
                    raise
        elif head & PAGE:
            at = file + body + skip * (8 + size)
            records = self._view[at : at + n * (8 + size) - 8]
            out[:] = np.ndarray((n, size), np.uint8, records, 0, (8 + size, 1))
        elif source:
            out[:] = 0
        elif head & ZERO:
            at = file + body + skip * 9
            out[:] = np.ndarray((n, 1), np.uint8, self._view[at : at + n * 9 - 8], 0, (9, 1))
        else:
            out[0] = np.frombuffer(self._inflated(file + body), np.uint8)

    def _inflated(self, at: int) -> bytes:
        length = int.from_bytes(self._view[at : at + 4], "big")
        stream = zlib.decompressobj()
        try:
            page = stream.decompress(self._view[at + 4 : at + 4 + length], self._page_size)
            # the end mark may need one more call once the page is full
            rest = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
        except zlib.error as error:
            raise StreamError(f"a compressed page does not expand: {error}", offset=at) from None
        if len(page) != self._page_size or rest or not stream.eof:
            raise StreamError(
                f"a compressed page expands to {'more' if rest else 'less'} than a page",
                offset=at,
                expected=f"{self._page_size} bytes",
            )
        return page


class MappedMemory:
    """Content at fixed places of the file (`mapped-ram`, since 9.0), with a bitmap of the pages that have
    any.
    """

    def __init__(self, view: memoryview, bitmap: int, pages: int, n: int, page_size: int) -> None:
        self._view = view
        self._bitmap = np.frombuffer(view[bitmap : bitmap + -(-n // 64) * 8], np.uint64)
        self._pages = pages
        self._n = n
        self._page_size = page_size

    @cached_property
    def present(self) -> int:
        """Returns the number of pages that have content."""
        words = self._words(0, len(self._bitmap))
        tail = self._n % 64
        beyond = int(words[-1]) >> tail if tail and len(words) else 0
        return int(np.bitwise_count(words).sum(dtype=np.int64)) - beyond.bit_count()

    @cached_property
    def byteorder(self) -> str:
        """Returns the byte order of the host that wrote the bitmap, "little" or "big".

        The bitmap is an array of the host's `unsigned long`, as it lies in memory, and nothing says of which
        host. Bits past the last page are never set; else pages that only one reading counts as present are
        looked at, and the reading wins under which more of them have content.
        """
        words = self._bitmap
        tail = self._n % 64
        if tail and len(words):
            last = words[-1:]
            little, big = (int(last.astype(last.dtype.newbyteorder("<"))[0]), int(last.byteswap()[0]))
            if (little >> tail == 0) != (big >> tail == 0):
                return "little" if little >> tail == 0 else "big"
        differ = np.flatnonzero(words != words.byteswap())[:64]
        score = 0
        for word in differ.tolist():
            raw = int(words[word])
            little, big = raw, int.from_bytes(raw.to_bytes(8, "little"), "big")
            for bit in range(64):
                page = word * 64 + bit
                if page < self._n and (little ^ big) >> bit & 1:
                    at = self._pages + page * self._page_size
                    if any(self._view[at : at + self._page_size]):
                        score += 1 if little >> bit & 1 else -1
        return "big" if score < 0 else "little"

    def _words(self, first: int, last: int) -> np.ndarray:
        words = self._bitmap[first:last]
        return words.byteswap() if self.byteorder == "big" else words

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        for edges in self._edges(start, end):
            for begin, stop in edges.tolist():
                for at in range(max(begin, start), min(stop, end), _PIECE):
                    until = min(at + _PIECE, stop, end)
                    yield at, self._view[self._pages + at : self._pages + until]

    def stretches(self) -> np.ndarray:
        return np.concatenate([np.empty((0, 2), np.int64), *self._edges(0, self._n * self._page_size)])

    def _edges(self, start: int, end: int) -> Iterator[np.ndarray]:
        """Yields where pages that have content begin and end, in bytes, a part of the bitmap at a time."""
        size = self._page_size
        step = 1 << 20  # pages whose bits are unpacked at once
        for page in range(start // size // 64 * 64, min(end // size, self._n), step):
            words = self._words(page // 64, min((page + step) // 64, len(self._bitmap)))
            bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: self._n - page]
            yield np.flatnonzero(np.diff(bits, prepend=0, append=0)).reshape(-1, 2) * size + page * size


def _last_writers(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds which of the intervals [start, end), written one after another, is seen where.

    Returns (bounds, owner): owner[i] is the number of the last interval over [bounds[i], bounds[i + 1]), or
    -1.
    """
    bounds = np.unique(np.concatenate((starts, ends)))
    owner = np.full(max(len(bounds) - 1, 0), -1, np.int64)
    first = np.searchsorted(bounds, starts)
    lengths = np.searchsorted(bounds, ends) - first
    # An interval of n pages lies over at most n parts, so this is bounded by the pages sent. In batches all
    # the same: many small intervals over large ones come to many parts.
    total = np.cumsum(lengths)
    done = 0
    while done < len(starts):
        before = int(total[done - 1]) if done else 0
        until = max(done + 1, int(np.searchsorted(total, before + (1 << 20))))
        n = lengths[done:until]
        part = np.arange(int(n.sum())) + np.repeat(first[done:until] - (np.cumsum(n) - n), n)
        owner[part] = np.repeat(np.arange(done, until), n)  # of equal indices numpy keeps the last value
        done = until
    return bounds, owner
