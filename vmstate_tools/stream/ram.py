"""The RAM section: RAM blocks and page records, by numpy where the stream is regular.

A payload of the `ram` section is a row of records, each headed by a be64 that is a page's offset in its
RAMBlock and, in the bits below the page size, flags (migration/ram.c: `save_page_header`, `ram_load`;
arch_init.c before 2.4). A guest has millions of pages, so they are kept as *runs*: like records in a row, at
a fixed distance in the stream and consecutive in the block, are one row of a numpy table.
"""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format import framing as wire
from vmstate_tools.format import xbzrle
from vmstate_tools.format.ram_blocks import TOTAL, Block, number_of, read_block_list
from vmstate_tools.format.ram_pages import (
    COMPRESS_PAGE,
    COMPRESSED_HEADER,
    CONTINUE,
    EOS,
    FLAGS,
    HOOK,
    KINDS,
    MEM_SIZE,
    MULTIFD_FLUSH,
    PAGE,
    PAGE_HEADER,
    PAGE_SIZES,
    XBZRLE,
    XBZRLE_HEADER,
    ZERO,
    head_at,
    longest_compressed,
    stride,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, BinaryIO, Literal

    import numpy as np
    import pandas as pd

    from vmstate_tools.format.multifd import Channel, Packet
    from vmstate_tools.stream.guest_memory import GuestMemory

_WHAT = {
    ZERO: "ram zero page",
    PAGE: "ram page",
    XBZRLE: "ram XBZRLE page",
    COMPRESS_PAGE: "ram compressed page",
    EOS: "ram end of section",
    MULTIFD_FLUSH: "ram multifd flush",
}

RUN = [("file", "i8"), ("head", "u8"), ("count", "u4"), ("block", "u4")]
"""Like records in a row: offset of the first in the stream, its header word, how many there are, the block's
number.
"""

CHANNEL_RUN = [*RUN, ("sync", "u4")]
"""The same in a multifd channel: `file` counts in its full pages, `sync` the syncs before."""

NO_BLOCK = 0xFFFFFFFF
_STEP = 32 << 20  # bytes walked between two calls of `forget`
_FOOTER = bytes([wire.Record.SECTION_FOOTER])
_MIXED = 1024  # most records walked one by one before a regular stretch is looked for again

_be64 = struct.Struct(">Q").unpack_from
_be32 = struct.Struct(">I").unpack_from
_be16 = struct.Struct(">H").unpack_from


def _sum(numbers: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Sum of `values` for each block number below `n`."""
    out = np.zeros(n, np.int64)
    np.add.at(out, numbers, values)
    return out


def _alike(runs: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int, int, int, int]]:
    """Runs of one kind and block in a row together: offset, end, number of records, kind, block."""
    kinds = runs["head"] & np.uint64(FLAGS & ~CONTINUE)
    change = (np.diff(kinds) != 0) | (np.diff(runs["block"]) != 0) | (kinds[1:] == MEM_SIZE)
    first = np.append(0, np.flatnonzero(change) + 1)
    counts = np.add.reduceat(runs["count"].astype(np.int64), first)
    last_end = ends[np.append(first[1:], len(runs)) - 1]
    for (offset, _, _, block), stop, count, kind in zip(
        runs[first].tolist(), last_end.tolist(), counts.tolist(), kinds[first].tolist(), strict=True
    ):
        yield offset, stop, count, kind, block


def _few(runs: np.ndarray, ends: np.ndarray) -> Iterator[tuple[int, int, int, int, int]]:
    """The same for few runs: a stream may have a hundred thousand sections of one page each."""
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


@lru_cache(16)
def _ramp(n: int, form: str) -> tuple[int, int]:
    """`n` words of this form as one number: each 1; and 0, 1, 2 … n - 1."""
    one = struct.pack(f">{form}", 1)
    return int.from_bytes(one * n, "big"), int.from_bytes(struct.pack(f">{form * n}", *range(n)), "big")


_WINDOW = 1 << 13


@lru_cache(256)
def _zero_pages(page: int, window: int) -> bytes:
    """The records of `_WINDOW` zero pages of one block, from the page `window * _WINDOW` on: most of a fresh guest."""
    ones, steps = _ramp(_WINDOW, "Qx")
    return ((window * _WINDOW * page | ZERO | CONTINUE) * ones + page * steps).to_bytes(9 * _WINDOW, "big")


class Ram:
    """All RAM state of one stream: RAM blocks and page records, over all sections of `ram`.

    Parameters
    ----------
    view : the whole stream; it must stay open as long as this object is used (see `close`).
    page_size : the target's page size in bytes. Where None is given it is inferred from the first payload
        with pages: the size under which its records make sense (`page_size_source` tells).
    capabilities : names from `configuration/capabilities`; `mapped-ram` and `x-ignore-shared` count here.
    postcopy : MIG_CMD_POSTCOPY_ADVISE came before: a block on huge pages has its page size in the list.
    forget : called with (start, end) of ranges that were walked and are not needed now.
    files : names of the files that the view comes from: `extract` replaces none of them.
    """

    def __init__(
        self,
        view: memoryview,
        *,
        page_size: int | None = None,
        capabilities: frozenset[str] = frozenset(),
        postcopy: bool = False,
        forget: Callable[[int, int], None] | None = None,
        files: Sequence[str] = (),
    ) -> None:
        if page_size is not None and page_size not in PAGE_SIZES:
            raise StreamError(f"page size {page_size}", expected="a power of two from 1024 to 65536")
        self._view = view
        self._size = len(view)
        self._page = page_size or 0
        self.page_size_source: Literal["given", "mapped-ram header", "inferred", "assumed"] | None = (
            "given" if page_size else None
        )
        self._capabilities = capabilities
        self._postcopy = postcopy
        self._forget = forget
        self._files = files
        self._forgotten = 0
        self._blocks: list[Block] = []
        self._numbers: dict[bytes, int] = {}
        self._lists: dict[int, list[Block]] = {}
        self._filled = False  # a zero page's byte was not 0
        self._channels: list[Channel] = []
        self._memory: dict[int, GuestMemory] = {}
        self._breaks: list[int] = []  # ends of what was read before each further connection
        self._current = NO_BLOCK  # survives the end of a section, as in ram_block_from_stream
        self._stretch = 64
        self._pending: list[tuple[int, int, int, int]] = []
        self._chunks: list[np.ndarray] = []
        self._table: np.ndarray | None = None
        self.parsed_to = 0
        """End of the last record that was read whole, in bytes from the start of the view."""

    @property
    def page_size(self) -> int | None:
        """The target's page size in bytes; None as long as nothing told it."""
        return self._page or None

    def connect(self, view: memoryview) -> None:
        """Go on with what another connection carried: `view` reaches from the same beginning to that one's end."""
        self._view, self._size, self._current = view, len(view), NO_BLOCK
        self._breaks.append(self.parsed_to)

    # -- reading ---------------------------------------------------------------------------------------------

    def parse(self, offset: int, *, part: str) -> int:
        """Read the payload that starts at `offset`; its end.

        `part` is "start", "part" or "end"; QEMU reads all three alike (`ram_load`). Payloads must be parsed
        in stream order. After a `StreamError` what was read before it stays usable, up to `parsed_to`.
        """
        if part not in ("start", "part", "end"):
            raise ValueError(f"part is {part!r}, not 'start', 'part' or 'end'")
        self._table = None
        self._memory.clear()
        self._forgotten = max(self._forgotten, offset)
        self.parsed_to = offset
        while True:
            head = head_at(self._view, self.parsed_to)
            kind = head & FLAGS & ~CONTINUE
            if kind in KINDS and "mapped-ram" not in self._capabilities:
                self._pages(head, kind)
            elif head & FLAGS == MEM_SIZE:
                self._block_list(head)
            elif kind in (EOS, MULTIFD_FLUSH) and not head & CONTINUE:
                self._add(self.parsed_to, head, NO_BLOCK, self.parsed_to + 8)
                if kind == EOS:
                    return self.parsed_to
            elif kind == HOOK:
                raise StreamError(
                    "a hook record: RAM went by RDMA, past this stream",
                    offset=self.parsed_to,
                    expected="pages",
                )
            else:
                raise StreamError(
                    f"unknown RAM flags 0x{head & FLAGS:x}",
                    offset=self.parsed_to,
                    expected="a RAM page record",
                )

    def repeated(self, start: int, payload: int, end: int) -> int:
        """How many times the section from `start` to `end` follows itself byte for byte, if its payload has no page.

        Its last payload was just parsed, and those that follow are taken too.
        """
        size, head = end - start, head_at(self._view, payload)
        if head & FLAGS != EOS or self._view[start:end] != self._view[end : end + size]:
            return 0
        section = np.frombuffer(self._view[start:end], np.uint8)
        count, window, same = 0, 64, True
        while same and (n := min(window, (self._size - end) // size - count)):
            alike = (np.ndarray((n, size), np.uint8, self._view, end + count * size) == section).all(axis=1)
            same = bool(alike.all())
            count, window = count + (n if same else int(alike.argmin())), min(window * 8, _MIXED * 64)
        behind = end + count * size
        if end == payload + 8 and self._view[behind : behind + 1] == _FOOTER:  # the last one is another: it has one
            count -= 1
        if not count:
            return 0
        rows = np.zeros(count, RUN)
        rows["file"] = np.arange(payload + size, payload + size * (count + 1), size)
        rows["head"], rows["count"], rows["block"] = head, 1, NO_BLOCK
        self._flush()
        self._table = None
        self._chunks.append(rows)
        self._advance(payload + size * count + 8)
        return count

    def _block_list(self, head: int) -> None:
        start = self.parsed_to
        blocks = read_block_list(
            self._view, start, self._capabilities, postcopy=self._postcopy, page_size=self.page_size
        )
        self._lists[start] = blocks
        self._add(start, head, NO_BLOCK, blocks[-1].end if blocks else start + 8)
        for block in blocks:
            if block.mapped and not self._page:
                self._page, self.page_size_source = block.mapped.page_size, "mapped-ram header"
            if block.raw_name in self._numbers:  # listed again: COLO sends the list with every checkpoint
                self._blocks[self._numbers[block.raw_name]] = block
            else:
                self._numbers[block.raw_name] = len(self._blocks)
                self._blocks.append(block)

    def _add(self, file: int, head: int, block: int, end: int) -> None:
        if end > self._size:
            raise StreamError("the stream ends inside a RAM record", offset=self._size, expected=f"bytes up to {end}")
        self._pending.append((file, head, 1, block))
        if len(self._pending) >= 65536:
            self._flush()
        self._advance(end)

    def _advance(self, end: int) -> None:
        self.parsed_to = end
        if self._forget and end - self._forgotten >= _STEP:
            self._forget(self._forgotten, end)
            self._forgotten = end

    def _flush(self) -> None:
        if self._pending:
            self._chunks.append(np.array(self._pending, RUN))
            self._pending.clear()

    def _pages(self, head: int, kind: int) -> None:
        if not self._page:
            self._infer_page_size()
        if head & (self._page - 1) & ~FLAGS:
            raise StreamError(
                f"unknown RAM flags 0x{head & (self._page - 1):x}",
                offset=self.parsed_to,
                expected="a RAM page record",
            )
        if not head & CONTINUE:
            self._single(head, kind, self._named_block())
        elif self._current == NO_BLOCK:
            raise StreamError("a page of the same block as before, and none before", offset=self.parsed_to)
        elif kind not in (ZERO, PAGE):
            self._single(head, kind, self._current)
        elif self._regular(head & FLAGS) and self._like(head & FLAGS) >= 16:
            self._stretch = 64
        else:
            self._mixed(self._stretch)
            self._stretch = min(2 * self._stretch, _MIXED)

    def _named_block(self) -> int:
        header, _ = PAGE_HEADER.read(self._view, self.parsed_to, "a RAM page record with its block's name")
        name, number = header.block, self._numbers.get(header.block)
        if number is None:
            raise StreamError(
                f"a page of RAM block {wire.name(name)!r}",
                offset=self.parsed_to,
                expected="a block from the block list",
            )
        return number

    def _single(self, head: int, kind: int, block: int) -> None:
        """One page record, with its block's name or of its own size."""
        start = self.parsed_to
        if (head & ~FLAGS) >= self._blocks[block].used_length:
            raise self._beyond(start, head, block)
        body = start + 8 + (0 if head & CONTINUE else 1 + len(self._blocks[block].raw_name))
        self._add(start, head, block, body + self._body_size(body, kind))
        self._filled |= kind == ZERO and self._view[body] != 0
        self._current = block

    def _body_size(self, body: int, kind: int) -> int:
        """Bytes that follow a page record's header and name."""
        if kind == ZERO:
            return 1
        if kind == PAGE:
            return self._page
        if kind == XBZRLE:
            header, end = XBZRLE_HEADER.read(self._view, body, "an XBZRLE page")
            if header.encoding != xbzrle.ENCODING or header.length > self._page:
                raise StreamError(
                    f"XBZRLE encoding {header.encoding}, {header.length} bytes",
                    offset=body,
                    expected="encoding 1, at most a page",
                )
        else:
            header, end = COMPRESSED_HEADER.read(self._view, body, "a compressed page")
            limit = longest_compressed(self._page)
            if not 0 < header.length <= limit:
                raise StreamError(
                    f"a compressed page of {header.length} bytes", offset=body, expected=f"1 to {limit} bytes"
                )
        return end - body + int(header.length)

    def _beyond(self, offset: int, head: int, block: int) -> StreamError:
        return StreamError(
            f"a page at 0x{head & ~FLAGS:x} of RAM block {self._blocks[block].name!r}",
            offset=offset,
            expected=f"an offset below its size 0x{self._blocks[block].used_length:x}",
        )

    def _regular(self, flags: int) -> bool:
        """Whether many records of one kind seem to follow: there is one where the 33rd would stand."""
        at = self.parsed_to + 32 * self._stride(flags)
        return at + 8 <= self._size and _be64(self._view, at)[0] & (self._page - 1) == flags

    def _like(self, flags: int) -> int:
        """Take records from here on as long as they are of one page after the other; how many there were.

        Looks only at the headers, which lie at a fixed distance, in windows that grow while they match and end where
        those of `_zero_pages` do.
        """
        stride = self._stride(flags)
        taken, k, n, window = 0, 0, 0, 64
        while k == n:
            start = self.parsed_to
            n = min(window, (self._size - start) // stride)
            if not n:
                break
            head = int(_be64(self._view, start)[0])
            page, left = head // self._page, self._blocks[self._current].used_length - (head & ~FLAGS)
            n = min(n, _WINDOW - page % _WINDOW, -(-left // self._page))
            if n <= 0 or head & (self._page - 1) != flags:
                break
            k = self._in_order(start, stride, n, head)
            taken += k
            window = min(window * 8, _WINDOW)
        return taken

    def _in_order(self, start: int, stride: int, n: int, head: int) -> int:
        """Take those of `n` records, of which this is the first head, that are of one page after the other; how many.

        All together, as one number in which each header is 64 bits: much the same speed as by numpy, which takes
        longer to import than a small stream takes to read.
        """
        records = self._view[start : start + (n - 1) * stride + 9]
        if head & ZERO:
            same = self._zeros(records, head)
            if same:
                self._take_run(start, head, same)
                return same
            records = memoryview(bytes(records))  # faster, and not much to copy
        raw = bytearray(8 * n)
        for i in range(8):
            raw[i::8] = records[i::stride]
        ones, steps = _ramp(n, "Q")
        differ = int.from_bytes(raw, "big") ^ (head * ones + self._page * steps)
        n -= -(-differ.bit_length() // 64)
        if n:
            self._take_run(start, head, n)
            if head & ZERO and not self._filled:
                self._filled = bytes(records[8 : n * stride : stride]).count(0) != n
        return n

    def _zeros(self, records: memoryview, head: int) -> int:
        """How many of these records are what QEMU sends of consecutive zero pages from this head on."""
        page = head // self._page
        known, at = _zero_pages(self._page, page // _WINDOW), page % _WINDOW * 9
        low, high = 0, len(records) // 9
        middle = high
        while low < high:
            if known.startswith(records[low * 9 : middle * 9], at + low * 9):
                low = middle
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        return low

    def _take_run(self, start: int, head: int, n: int) -> None:
        """Add `n` consecutive records, of consecutive pages of the current block, as one run."""
        self._add_run(start, head, n)
        self._advance(start + n * self._stride(head))

    def _add_run(self, start: int, head: int, n: int) -> None:
        """Add records of the current block, to the run before them where they go on with it."""
        if self._pending:
            file, first, count, block = self._pending[-1]
            if (
                first + count * self._page == head
                and block == self._current
                and file + count * self._stride(head) == start
                and count + n < 1 << 32
            ):
                self._pending[-1] = (file, first, count + n, block)
                return
        self._pending.append((start, head, n, self._current))
        if len(self._pending) >= 65536:
            self._flush()

    def _mixed(self, most: int) -> None:
        """Walk full and zero pages in any order, `most` records one by one."""
        size = {ZERO | CONTINUE: 9, PAGE | CONTINUE: 8 + self._page}
        view, mask, at = self._view, self._page - 1, self.parsed_to
        heads: list[int] = []
        add = heads.append
        try:
            for _ in range(most):
                (head,) = _be64(view, at)
                at += size[head & mask]
                add(head)
        except (KeyError, struct.error):
            pass
        if len(heads) < _MIXED:  # few: numpy may not even be imported
            self._take_few(heads)
            return
        words = np.array(heads, np.uint64)
        if at > self._size:
            words = words[:-1]
        self._take(self.parsed_to, words, np.where(words & np.uint64(PAGE), 8 + self._page, 9))

    def _take_few(self, heads: list[int]) -> None:
        """Add consecutive full and zero pages of the current block, from here on."""
        at, limit = self.parsed_to, self._blocks[self._current].used_length
        for head in heads:
            end = at + (9 if head & ZERO else 8 + self._page)
            if head & ~FLAGS >= limit or end > self._size:
                self._advance(at)
                self._single(head, head & FLAGS & ~CONTINUE, self._current)  # says what is wrong
                return
            self._add_run(at, head, 1)
            if head & ZERO and self._view[at + 8]:
                self._filled = True
            at = end
        self._advance(at)

    def _take(self, start: int, heads: np.ndarray, sizes: np.ndarray) -> None:
        """Add consecutive records of the current block as runs."""
        wrong = np.flatnonzero(heads >= self._blocks[self._current].used_length)
        if len(wrong):
            bad = int(wrong[0])
            if bad:
                self._take(start, heads[:bad], sizes[:bad])
            raise self._beyond(self.parsed_to, int(heads[bad]), self._current)
        ends = start + np.cumsum(sizes)
        first = np.flatnonzero(np.diff(heads) != self._page) + 1
        first = np.concatenate(([0], first))
        rows = np.empty(len(first), RUN)
        rows["file"] = (ends - sizes)[first]
        rows["head"] = heads[first]
        rows["count"] = np.diff(first, append=len(heads))
        rows["block"] = self._current
        if not self._filled:
            zero = (ends - 1)[sizes == 9]
            self._filled = bool(np.frombuffer(self._view, np.uint8)[zero].any())
        self._add_runs(rows, int(ends[-1]))

    def _add_runs(self, rows: np.ndarray, end: int) -> None:
        self._flush()
        if self._chunks:
            self._join(rows)
        self._chunks.append(rows)
        self._advance(end)

    def _join(self, rows: np.ndarray) -> None:
        """If the first of `rows` goes on with the run before it, make them one."""
        last, first = self._chunks[-1][-1], rows[0]
        count = int(last["count"])
        if (
            int(last["head"]) + count * self._page == int(first["head"])
            and last["block"] == first["block"]
            and int(last["file"]) + count * self._stride(int(last["head"])) == int(first["file"])
            and count + int(first["count"]) < 1 << 32
        ):
            first["file"], first["head"] = last["file"], last["head"]
            first["count"] += last["count"]
            self._chunks[-1] = self._chunks[-1][:-1]
            if not len(self._chunks[-1]):
                self._chunks.pop()

    def _stride(self, head: int) -> int:
        """Bytes from one record of a run to the next."""
        return stride(head, self._page)

    # -- the page size, where nothing tells it ---------------------------------------------------------------

    def _infer_page_size(self) -> None:
        """Try every page size on the records from here on; take the one that fits them best."""
        for records in (64, 4096):  # the first few mostly tell
            fits = {size: step for size in PAGE_SIZES if (step := self._try(size, records)) is not None}
            # Pages are sent in order: the distance from one to the next is the page size, mostly.
            exact = [size for size, step in fits.items() if size == step]
            if len(exact) == 1:
                break
        exact = exact or list(fits)
        if len(exact) == 1:
            self._page, self.page_size_source = exact[0], "inferred"
        else:
            self._page, self.page_size_source = 4096, "assumed"

    def _try(self, page_size: int, records: int) -> int | None:
        """The least distance from page to page, if the records read well as pages of this size; else None."""
        at, block, before, step = self.parsed_to, self._current, None, 1 << 63
        for _ in range(records):
            if at + 8 > self._size:
                return None
            head = int(_be64(self._view, at)[0])
            kind = head & (page_size - 1) & ~CONTINUE
            if kind == EOS:
                break
            body = at + 8
            if kind not in KINDS or (head & CONTINUE and block == NO_BLOCK):
                return None
            if not head & CONTINUE:
                if body >= self._size or body + 1 + self._view[body] > self._size:
                    return None
                name = bytes(self._view[body + 1 : body + 1 + self._view[body]])
                if name not in self._numbers:
                    return None
                block, before = self._numbers[name], None
                body += 1 + len(name)
            guest = head & ~(page_size - 1)
            if guest >= self._blocks[block].used_length or self._blocks[block].used_length % page_size:
                return None
            if before is not None and guest != before:
                step = min(step, abs(guest - before))
            before = guest
            if kind in (ZERO, PAGE):
                at = body + (1 if kind == ZERO else page_size)
            elif body + 4 > self._size:
                return None
            elif kind == XBZRLE:
                at = body + 3 + _be16(self._view, body + 1)[0]
            else:
                at = body + 4 + _be32(self._view, body)[0]
        return step

    # -- what was read ---------------------------------------------------------------------------------------

    @property
    def _runs(self) -> np.ndarray:
        """All runs in stream order, as an array of `RUN`."""
        if self._table is None:
            self._flush()
            self._table = np.concatenate(self._chunks) if self._chunks else np.empty(0, RUN)
            self._chunks = [self._table] if len(self._table) else []
        return self._table

    @property
    def block_list(self) -> list[Block]:
        """The RAMBlocks in the stream's order."""
        return list(self._blocks)

    @property
    def blocks(self) -> pd.DataFrame:
        """One row per RAMBlock, in the stream's order.

        block (str), used_length (UInt64, bytes), page_size (Int64, bytes: the pages it is migrated in),
        host_page_size (Int64: of the memory behind it, where the stream says), gpa (UInt64, where sent:
        `x-ignore-shared`), bitmap_offset and pages_offset (Int64, in the file: `mapped-ram`).
        """
        import pandas as pd

        listed = self._blocks
        return pd.DataFrame(
            {
                "block": pd.array([b.name for b in listed], "str"),
                "used_length": pd.array([b.used_length for b in listed], "UInt64"),
                "page_size": pd.array([self.page_size] * len(listed), "Int64"),
                "host_page_size": pd.array([b.page_size for b in listed], "Int64"),
                "gpa": pd.array([b.gpa for b in listed], "UInt64"),
                "bitmap_offset": pd.array([b.bitmap_offset for b in listed], "Int64"),
                "pages_offset": pd.array([b.pages_offset for b in listed], "Int64"),
            }
        )

    @property
    def pages(self) -> pd.DataFrame:
        """Page records per RAMBlock, by kind: a page sent twice counts twice.

        block (str), zero, normal, xbzrle, compressed, multifd_zero, multifd_normal (int64), bytes (int64:
        what they take in the stream, headers included, and in the channels, as far as it can be told apart by
        block). With `mapped-ram` normal are the pages present in the file, zero all others.
        """
        import pandas as pd

        return pd.DataFrame(self.page_counts()).astype({"block": "str"})

    def page_counts(self) -> dict[str, Any]:
        """The columns of `pages`, for where a frame is not needed."""
        n = len(self._blocks)
        if not (self._chunks or self._channels or self._breaks) and all(b.pages_offset is None for b in self._blocks):
            return self._few_counts()
        from vmstate_tools.stream.guest_memory import MappedMemory

        runs = self._runs
        numbers = runs["block"]
        ends = np.append(runs["file"][1:], self.parsed_to)
        breaks = np.array([*self._breaks, self.parsed_to])
        ends = np.minimum(ends, breaks[np.searchsorted(breaks, runs["file"], "right")])
        zero = runs["head"] & np.uint64(ZERO) != 0
        sizes = np.where(
            runs["count"] > 1,
            runs["count"] * np.where(zero, 9, 8 + self._page),
            ends - runs["file"],
        )
        own = numbers != NO_BLOCK
        table: dict[str, Any] = {"block": [b.name for b in self._blocks]}
        for kind, name in KINDS.items():
            which = own & (runs["head"] & np.uint64(kind) != 0)
            table[name] = _sum(numbers[which], runs["count"][which], n)
        bytes_ = _sum(numbers[own], sizes[own], n)
        for number, block in enumerate(self._blocks):
            memory = self._memory_of(number) if block.pages_offset is not None else None
            if isinstance(memory, MappedMemory) and self._page:
                table["normal"][number] = memory.present
                table["zero"][number] = block.used_length // self._page - memory.present
                bytes_[number] = memory.present * self._page
        table["multifd_zero"], table["multifd_normal"] = np.zeros((2, n), np.int64)
        for channel in range(len(self._channels)):
            rows = self._channel_runs(channel)
            for kind, name in ((ZERO, "multifd_zero"), (PAGE, "multifd_normal")):
                which = rows["head"] & np.uint64(kind) != 0
                table[name] += _sum(rows["block"][which], rows["count"][which], n)
            for packet in self._channels[channel].packets:
                if packet.normal + packet.zero:
                    bytes_[self._packet_block(packet)] += packet.size + packet.data_size
        table["bytes"] = bytes_
        return table

    def _few_counts(self) -> dict[str, Any]:
        """`page_counts` of runs that are not in a table yet, as lists."""
        kinds = {kind: [0] * len(self._blocks) for kind in KINDS}
        bytes_ = [0] * len(self._blocks)
        ends = [*(file for file, *_ in self._pending[1:]), self.parsed_to]
        for (file, head, count, number), end in zip(self._pending, ends, strict=False):
            if number != NO_BLOCK:
                kinds[head & FLAGS & ~CONTINUE][number] += count
                bytes_[number] += end - file if count == 1 else count * self._stride(head)
        table: dict[str, Any] = {"block": [b.name for b in self._blocks]}
        table |= {name: kinds[kind] for kind, name in KINDS.items()}
        none = [0] * len(self._blocks)
        return table | {"multifd_zero": none, "multifd_normal": none, "bytes": bytes_}

    @property
    def filled(self) -> bool:
        """Tells whether a page was sent as filled with one byte that is not 0 (to 8.1, see 413d64fedc)."""
        return self._filled

    @property
    def flags(self) -> int:
        """All flags (`RAM_SAVE_FLAG_*`) that records carry, together."""
        found = 0
        for _, head, _, _ in self._pending:
            found |= head
        for chunk in self._chunks:
            found |= int(np.bitwise_or.reduce(chunk["head"], initial=np.uint64(0)))
        return found & FLAGS

    def _between(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The runs of the payload [start, end), and where each ends."""
        first, last = np.searchsorted(self._runs["file"], (start, end))
        runs = self._runs[first:last]
        return runs, np.append(runs["file"], min(end, self.parsed_to))[1:]

    def records(self, start: int, end: int) -> list[tuple[int, int, str, str]]:
        """What the payload [start, end) consists of: (offset, size, what, detail), no gap, no overlap.

        Pages of one kind and block in a row are one entry, `detail` being their number and the block.
        """
        runs, ends = self._between(start, end)
        if not len(runs):
            return []
        out: list[tuple[int, int, str, str]] = []
        for offset, stop, count, kind, block in _few(runs, ends) if len(runs) < 8 else _alike(runs, ends):
            if kind == MEM_SIZE:
                out += self._list_records(offset)
            else:
                what = _WHAT[kind] + ("s" if kind in KINDS and count > 1 else "")
                detail = f"{count} x {self._blocks[block].name}" if kind in KINDS else ""
                out.append((offset, stop - offset, what, detail))
        return out

    def _list_records(self, offset: int) -> Iterator[tuple[int, int, str, str]]:
        yield offset, 8, "ram total size", ""
        for block in self._lists[offset]:
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
        """The bytes of the payload [start, end) again, made from what was read.

        Headers, names and lengths come from the runs and blocks; page contents, compressed data, fill bytes,
        mapped-ram bitmaps and padding from the stream.
        """
        runs, ends = self._between(start, end)
        parts: list[bytes | memoryview] = []
        waiting = 0
        for (file, head, count, number), stop in zip(runs.tolist(), ends.tolist(), strict=True):
            if head & FLAGS == MEM_SIZE:
                parts += self._build_list(file, head)
            elif count > 1:
                yield b"".join(parts)
                parts, waiting = [], 0
                yield from self._build_run(file, head, count)
            else:
                name = self._blocks[number].raw_name if number != NO_BLOCK else None
                parts.append(PAGE_HEADER.build({"head": head, "block": name}))
                parts.append(self._view[file + len(parts[-1]) : stop])
            waiting += stop - file
            if waiting > 1 << 20:
                yield b"".join(parts)
                parts, waiting = [], 0
        yield b"".join(parts)

    def _build_run(self, file: int, head: int, count: int) -> Iterator[memoryview]:
        stride = self._stride(head)
        most = max(1, (4 << 20) // stride)
        for done in range(0, count, most):
            n = min(most, count - done)
            out = np.empty((n, stride), np.uint8)
            words = np.uint64(head) + np.uint64(self._page) * np.arange(done, done + n, dtype=np.uint64)
            out[:, :8] = words.astype(">u8").view(np.uint8).reshape(n, 8)
            out[:, 8:] = np.ndarray((n, stride - 8), np.uint8, self._view, file + done * stride + 8, (stride, 1))
            yield out.reshape(-1).data

    def _build_list(self, file: int, head: int) -> Iterator[bytes | memoryview]:
        yield TOTAL.build({"head": head})
        for block in self._lists[file]:
            entry = block.build()
            yield entry
            yield self._view[block.offset + len(entry) : block.end]

    # -- channels --------------------------------------------------------------------------------------------

    def add_channel(self, view: memoryview) -> Channel:
        """Join the pages of a multifd connection; parse the main stream's RAM before reading memory."""
        from vmstate_tools.format.multifd import Channel

        channel = Channel(view, page_size=self.page_size)
        if not self._page:
            self._page, self.page_size_source = channel.page_size, "inferred"
        self._channels.append(channel)
        self._memory.clear()
        return channel

    def _packet_block(self, packet: Packet) -> int:
        name = packet.ramblock.split(b"\0")[0]
        if name not in self._numbers:
            raise StreamError(
                f"multifd pages of RAM block {wire.name(name)!r}",
                offset=packet.offset,
                expected="a block from the main stream's block list",
            )
        return self._numbers[name]

    def _channel_runs(self, number: int) -> np.ndarray:
        """A channel's pages as runs (`file` counts in its full pages)."""
        channel = self._channels[number]
        size = channel.page_size
        if size != self._page:
            raise StreamError(f"a channel of pages of {size} bytes", offset=0, expected=f"{self._page} bytes")
        parts = []
        for index, packet in enumerate(channel.packets):
            offsets = channel.offsets(packet)
            if not len(offsets):
                continue
            block = self._packet_block(packet)
            limit = self._blocks[block].used_length
            if int(offsets.max()) + size > limit or (offsets & np.uint64(size - 1)).any():
                raise StreamError(
                    f"a multifd page at 0x{int(offsets.max()):x} of RAM block {self._blocks[block].name!r}",
                    offset=packet.offset,
                    expected=f"page offsets below its size 0x{limit:x}",
                )
            rows = np.empty(len(offsets), CHANNEL_RUN)
            full = np.arange(len(offsets)) < packet.normal
            rows["file"] = int(channel.starts[index]) + np.minimum(np.arange(len(offsets)), packet.normal) * size
            rows["head"] = offsets | np.where(full, PAGE, ZERO).astype(np.uint64)
            rows["block"] = block
            rows["sync"] = packet.sync
            first = np.append(0, np.flatnonzero(np.diff(rows["head"]) != size) + 1)
            count = np.diff(first, append=len(rows))
            rows = rows[first]
            rows["count"] = count
            parts.append(rows)
        return np.concatenate(parts) if parts else np.empty(0, CHANNEL_RUN)

    # -- guest memory ----------------------------------------------------------------------------------------

    def read(self, block: str | bytes, offset: int, size: int) -> bytes:
        """`size` bytes of guest memory at `offset` in a RAMBlock, as the destination would have them.

        `block` is its name as it is shown, or its bytes in the stream where several are shown alike.
        The last write of a page wins; what was never sent is zero. Raises `KeyError` for an unknown block,
        `ValueError` for a range outside it, `StreamError` where a page cannot be decoded.
        """
        number = number_of(self._blocks, block)
        length = self._blocks[number].used_length
        if not 0 <= offset <= offset + size <= length:
            raise ValueError(f"bytes {offset} to {offset + size} of a RAM block of {length}")
        out = bytearray(size)
        page = self._page or 1
        for at, data in self._memory_of(number).pieces(offset // page * page, -(-(offset + size) // page) * page):
            begin, end = max(at, offset), min(at + len(data), offset + size)
            out[begin - offset : end - offset] = data[begin - at : end - at]
        return bytes(out)

    def contents(self, block: str | bytes) -> Iterator[tuple[int, memoryview]]:
        """Yields what a RAMBlock holds that is not zero, as it was sent: offset in the block, and bytes.

        A piece lies on page boundaries, is good until the next is asked for, and goes over an earlier one at its place.
        Raises as `read` does.
        """
        number = number_of(self._blocks, block)
        yield from self._memory_of(number).pieces(0, self._blocks[number].used_length)

    def extract(
        self,
        block: str | bytes,
        out: BinaryIO | str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: bool = True,
    ) -> int:
        """Write one RAMBlock's content, with holes where it is zero; the number of bytes that are not holes.

        `out` is a path (which must not exist unless `overwrite`) or an empty file opened for writing in
        binary. A file gets no more permissions than the stream's files have.
        """
        import contextlib

        from tqdm.auto import tqdm

        from vmstate_tools.source.new_file import new_file

        number = number_of(self._blocks, block)
        length = self._blocks[number].used_length
        written = 0
        with contextlib.ExitStack() as stack:
            if isinstance(out, (str, os.PathLike)):
                out = stack.enter_context(new_file(out, overwrite=overwrite, inputs=self._files, guest_memory=True))
            bar = stack.enter_context(
                tqdm(total=length, unit="B", unit_scale=True, desc=self._blocks[number].name, disable=not progress)
            )
            try:
                out.truncate(length)
            except (OSError, OverflowError) as error:
                raise StreamError(f"RAM block {block!r} of {length} bytes: {error}") from None
            for at, data in self._memory_of(number).pieces(0, length):
                out.seek(at)
                out.write(data[: length - at])
                written += len(data)
                bar.update(len(data))
        return written

    def _memory_of(self, number: int) -> GuestMemory:
        if number not in self._memory:
            self._memory[number] = self._make_memory(number)
        return self._memory[number]

    def _make_memory(self, number: int) -> GuestMemory:
        from vmstate_tools.stream.guest_memory import PAGES, MappedMemory, RecordedMemory

        block, size = self._blocks[number], self._page or 1
        if self._size and not len(self._view):
            raise StreamError("the stream is closed")
        if block.bitmap_offset is not None and block.pages_offset is not None:
            n = block.used_length // size
            return MappedMemory(self._view, block.bitmap_offset, block.pages_offset, n, size)
        # Pages of one sync round are in no order among the channels, and none is written twice in it.
        tables = [(0, self._runs, self._syncs())]
        for n in range(len(self._channels)):
            rows = self._channel_runs(n)
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
        return RecordedMemory(self._view, self._channels, pages, size, filled=self._filled)

    def _syncs(self) -> np.ndarray:
        """Number of multifd syncs before each run: at MULTIFD_FLUSH, or before 8.1 at each section's end."""
        kinds = self._runs["head"] & np.uint64(FLAGS)
        mark = kinds == MULTIFD_FLUSH
        if not mark.any():
            mark = kinds == EOS
        return np.cumsum(mark) - mark

    def close(self) -> None:
        """Let go of the view, so that the memory map under it can be closed. What was read stays in place."""
        self._memory.clear()
        self._channels.clear()
        self._view = memoryview(b"")
