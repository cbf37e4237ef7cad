"""Reads the payloads of the RAM section: RAM blocks and page records, by rows where the stream is regular."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

import numpy as np

from vmstate_tools.errors import StreamError, TruncatedError
from vmstate_tools.format import xbzrle
from vmstate_tools.format.framing import name as shown_name
from vmstate_tools.format.ram_blocks import Block, read_block_list
from vmstate_tools.format.ram_pages import (
    CONTINUE,
    EOS,
    FLAGS,
    HOOK,
    KINDS,
    MEM_SIZE,
    MULTIFD_FLUSH,
    PAGE,
    PAGE_SIZES,
    XBZRLE,
    ZERO,
    head_at,
    longest_compressed,
    stride,
)
from vmstate_tools.stream import page_size as page_sizes
from vmstate_tools.stream.page_rows import in_order
from vmstate_tools.stream.page_table import NO_BLOCK, RUN, PageTable

if TYPE_CHECKING:
    from collections.abc import Callable

_STEP = 32 << 20  # bytes read between two calls of `forget`
_WINDOW = 1 << 20  # bytes of a file that are looked at together
_LEAST = 1 << 17  # bytes that are there at least when a payload begins: its page size is seen in fewer
_MIXED = 1024  # most records read one by one before a regular stretch is looked for again
_FEW = 64  # records read one by one at first
_ROW = 1 << 13  # records of a row that are looked at together
_AHEAD = 32  # a stretch is regular if the record this far ahead is of the same kind

# By struct and not by the statements in `format.ram_pages`: each page has them, and a stream millions of pages.
_be64 = struct.Struct(">Q").unpack_from
_XBZRLE = struct.Struct(">BH")  # XBZRLE_HEADER
_COMPRESSED = struct.Struct(">I")  # COMPRESSED_HEADER


class RamReader:
    """Reads payloads of `ram` one after another (migration/ram.c: `ram_load`); `table` has what was read.

    Parameters
    ----------
    view : the whole stream, or a window of one that comes piece by piece (`move`). It need be no memoryview, if its
        slices are.
    page_size : the target's page size in bytes. None: inferred from the first payload with pages.
    capabilities : names from `configuration/capabilities`; `mapped-ram` and `x-ignore-shared` count here.
    postcopy : MIG_CMD_POSTCOPY_ADVISE came before: a block on huge pages has its page size in the list.
    forget : called with (start, end) of ranges that were read and are not needed now.
    most_runs : how many runs of pages there may be; a StreamError refuses more.

    Attributes
    ----------
    page_size : bytes; 0 as long as nothing says it.
    blocks : the RAMBlocks in the stream's order; `numbers` has the place of each by its bytes.
    lists : the entries of each block list, by the offset of the list.
    breaks : what `parsed_to` was before each further connection.
    fill_bytes : whether a zero page had a fill byte that is not 0 (before 1.5).
    """

    def __init__(
        self,
        view: memoryview,
        *,
        page_size: int | None = None,
        capabilities: frozenset[str] = frozenset(),
        postcopy: bool = False,
        forget: Callable[[int, int], None] | None = None,
        most_runs: int = 1 << 62,
    ) -> None:
        if page_size is not None and page_size not in PAGE_SIZES:
            raise StreamError(f"page size {page_size}", expected="a power of two from 1024 to 65536")
        self.page_size = page_size or 0
        self.page_size_source: Literal["given", "mapped-ram header", "inferred", "assumed"] | None = (
            "given" if page_size else None
        )
        self.capabilities = capabilities
        self.postcopy = postcopy
        self.table = PageTable(most_runs)
        self.blocks: list[Block] = []
        self.numbers: dict[bytes, int] = {}
        self.lists: dict[int, list[Block]] = {}
        self.breaks: list[int] = []
        self.fill_bytes = False
        self._stream, self._whole = view, True
        self._view = memoryview(b"")  # a window of the stream; what is read is counted from its beginning
        self._base = self._size = self._at = 0
        self._forget = forget
        self._forgotten = 0
        self._current = NO_BLOCK  # survives the end of a section, as in ram_block_from_stream
        self._stretch = _FEW

    @property
    def parsed_to(self) -> int:
        """Returns the end of the last record that was read whole, in bytes from the start of the view."""
        return self._base + self._at

    def connect(self, view: memoryview) -> None:
        """Goes on with what another connection carried: `view` reaches from the same beginning to its end."""
        self.breaks.append(self.parsed_to)
        self._stream, self._current = view, NO_BLOCK
        self._look(self.parsed_to)

    def move(self, view: memoryview, *, whole: bool) -> None:
        """Goes on in another window of the stream, of which offsets count from here on.

        `whole` is True where nothing is to come behind it. The runs before are forgotten: they are of the old window.
        """
        self._stream, self._whole = view, whole
        self._view, self._size = memoryview(b""), 0
        self.table.clear()
        self.lists.clear()

    def _look(self, offset: int, least: int = _WINDOW) -> None:
        """Has the records from `offset` on in the window: all that is in memory, of a file some at a time."""
        if isinstance(self._stream, memoryview):
            self._view, self._base = self._stream, 0
        elif not self._base <= offset <= self._base + self._size - least:
            self._view, self._base = self._stream[offset : offset + max(least, _WINDOW)], offset
        self._size, self._at = len(self._view), offset - self._base

    @property
    def _at_end(self) -> bool:
        """Tells whether the window reaches to the end of the stream."""
        return self._base + self._size >= len(self._stream)

    # -- payloads ----------------------------------------------------------------------------------------------

    def parse(self, offset: int) -> int:
        """Reads the payload that starts at `offset`, or goes on in it there, and returns its end.

        Payloads must be read in the order of the stream. After a StreamError, what was read before stays usable, up
        to `parsed_to`.
        """
        self._forgotten = max(self._forgotten, offset)
        self._look(offset, _LEAST)
        while True:
            try:
                self._payload()
            except StreamError as error:
                if isinstance(error, TruncatedError) and not self._at_end:
                    self._look(self.parsed_to, 2 * max(self._size - self._at, _LEAST))
                    continue
                if error.offset is not None:
                    error.offset += self._base
                raise
            return self.parsed_to

    def _payload(self) -> None:
        """Reads records from here on, up to the end of the section."""
        while True:
            head = head_at(self._view, self._at)
            kind = head & FLAGS & ~CONTINUE
            if kind in KINDS and "mapped-ram" not in self.capabilities:
                self._pages(head, kind)
            elif head & FLAGS == MEM_SIZE:
                self._block_list(head)
            elif kind in (EOS, MULTIFD_FLUSH) and not head & CONTINUE:
                self._add(head, NO_BLOCK, self._at + 8)
                if kind == EOS:
                    return
            elif kind == HOOK:
                raise StreamError(
                    "a hook record: RAM went by RDMA, past this stream", offset=self._at, expected="pages"
                )
            else:
                raise self._unknown(head & FLAGS)

    def take_empty(self, payload: int, distance: int, count: int) -> None:
        """Takes `count` payloads without a page: the first at `payload`, each `distance` bytes behind the last."""
        rows = np.zeros(count, RUN)
        rows["file"] = np.arange(payload, payload + distance * count, distance)
        rows["head"], rows["count"], rows["block"] = EOS, 1, NO_BLOCK
        self.table.add_rows(rows)
        self._look(payload + distance * (count - 1) + 8)

    def _unknown(self, flags: int) -> StreamError:
        return StreamError(f"unknown RAM flags 0x{flags:x}", offset=self._at, expected="a RAM page record")

    def _block_list(self, head: int) -> None:
        start = self.parsed_to
        try:
            blocks = read_block_list(
                self._stream, start, self.capabilities, postcopy=self.postcopy, page_size=self.page_size or None
            )
        except StreamError as error:
            error.offset = None if error.offset is None else error.offset - self._base
            raise
        self.lists[start] = blocks
        self.table.add(start, head, NO_BLOCK)
        self._advance((blocks[-1].end if blocks else start + 8) - self._base)
        for block in blocks:
            if block.mapped and not self.page_size:
                self.page_size, self.page_size_source = block.mapped.page_size, "mapped-ram header"
            if block.raw_name in self.numbers:  # listed again: COLO sends the list with every checkpoint
                self.blocks[self.numbers[block.raw_name]] = block
            else:
                self.numbers[block.raw_name] = len(self.blocks)
                self.blocks.append(block)

    def _add(self, head: int, block: int, end: int) -> None:
        """Takes the record that stands here and ends at `end`."""
        if end > self._size:
            raise TruncatedError(
                "the file ends here, in a RAM record", offset=self._size, expected=f"bytes up to {self._base + end}"
            )
        self.table.add(self.parsed_to, head, block)
        self._advance(end)

    def _advance(self, end: int) -> None:
        self._at = end
        if self._forget and self._base + end - self._forgotten >= _STEP:
            self._forget(self._forgotten, self._base + end)
            self._forgotten = self._base + end

    # -- pages -------------------------------------------------------------------------------------------------

    def _pages(self, head: int, kind: int) -> None:
        """Reads one page record or more."""
        if not self.page_size:
            self.page_size, sure = page_sizes.infer(
                self._view, self._at, self.blocks, self.numbers, self._current, whole=self._whole and self._at_end
            )
            self.page_size_source = "inferred" if sure else "assumed"
        if head & (self.page_size - 1) & ~FLAGS:
            raise self._unknown(head & (self.page_size - 1))
        if not head & CONTINUE:
            self._single(head, kind, self._named_block())
        elif self._current == NO_BLOCK:
            raise StreamError("a page of the same block as before, and none before", offset=self._at)
        elif kind not in (ZERO, PAGE):
            self._single(head, kind, self._current)
        elif self._regular(head & FLAGS) and self._row(head & FLAGS) >= 16:
            self._stretch = _FEW
        else:
            self._mixed(self._stretch)
            self._stretch = min(2 * self._stretch, _MIXED)

    def _named_block(self) -> int:
        at = self._at + 8
        if at >= self._size or at + 1 + self._view[at] > self._size:
            raise TruncatedError("the file ends here, in a RAM record", offset=self._size, expected="a block's name")
        name = bytes(self._view[at + 1 : at + 1 + self._view[at]])  # by hand: in some streams each page has it
        number = self.numbers.get(name)
        if number is None:
            raise StreamError(
                f"a page of RAM block {shown_name(name)!r}", offset=at, expected="a block from the block list"
            )
        return number

    def _single(self, head: int, kind: int, block: int) -> None:
        """Reads one page record, with its block's name or of its own size."""
        start = self._at
        if (head & ~FLAGS) >= self.blocks[block].used_length:
            raise self._beyond(start, head, block)
        body = start + 8 + (0 if head & CONTINUE else 1 + len(self.blocks[block].raw_name))
        self._add(head, block, body + self._body_size(body, kind))
        self.fill_bytes |= kind == ZERO and self._view[body] != 0
        self._current = block

    def _body_size(self, body: int, kind: int) -> int:
        """Returns how many bytes follow a page record's header and name."""
        if kind == ZERO:
            return 1
        if kind == PAGE:
            return self.page_size
        if kind == XBZRLE:
            encoding, length = self._numbers(_XBZRLE, body)
            if encoding != xbzrle.ENCODING or length > self.page_size:
                raise StreamError(
                    f"XBZRLE encoding {encoding}, {length} bytes", offset=body, expected="encoding 1, at most a page"
                )
            return _XBZRLE.size + length
        (length,) = self._numbers(_COMPRESSED, body)
        limit = longest_compressed(self.page_size)
        if not 0 < length <= limit:
            raise StreamError(f"a compressed page of {length} bytes", offset=body, expected=f"1 to {limit} bytes")
        return _COMPRESSED.size + length

    def _numbers(self, header: struct.Struct, offset: int) -> tuple[int, ...]:
        if offset + header.size > self._size:
            raise TruncatedError("the file ends here, in a RAM record", offset=self._size, expected="a length")
        return header.unpack_from(self._view, offset)

    def _beyond(self, offset: int, head: int, block: int) -> StreamError:
        return StreamError(
            f"a page at 0x{head & ~FLAGS:x} of RAM block {self.blocks[block].name!r}",
            offset=offset,
            expected=f"an offset below its size 0x{self.blocks[block].used_length:x}",
        )

    # -- rows of pages -------------------------------------------------------------------------------------------

    def _regular(self, flags: int) -> bool:
        """Tells whether many records of one kind seem to follow."""
        at = self._at + _AHEAD * stride(flags, self.page_size)
        return at + 8 <= self._size and _be64(self._view, at)[0] & (self.page_size - 1) == flags

    def _row(self, flags: int) -> int:
        """Reads records as long as they are of one page after the other, and returns how many there were.

        In stretches that grow while they are in order.
        """
        size = stride(flags, self.page_size)
        taken, found, n, most = 0, 0, 0, _FEW
        while found == n:
            start = self._at
            n = min(most, (self._size - start) // size)
            if not n:
                break
            head = head_at(self._view, start)
            left = self.blocks[self._current].used_length - (head & ~FLAGS)
            n = min(n, -(-left // self.page_size))
            if n <= 0 or head & (self.page_size - 1) != flags:
                break
            found, zeros = in_order(self._view, start, n, head, self.page_size)
            if found:
                self.fill_bytes |= not zeros
                self.table.add_run(self._base + start, head, found, self._current, self.page_size)
                self._advance(start + found * size)
            taken += found
            most = min(most * 8, _ROW)
        return taken

    def _mixed(self, most: int) -> None:
        """Reads full and zero pages in any order, `most` records at most."""
        size = {ZERO | CONTINUE: 9, PAGE | CONTINUE: 8 + self.page_size}
        view, mask, at = self._view, self.page_size - 1, self._at
        heads: list[int] = []
        add = heads.append
        try:
            for _ in range(most):  # with struct, one by one: where the next record is, only this one says
                (head,) = _be64(view, at)
                at += size[head & mask]
                add(head)
        except (KeyError, struct.error):
            pass
        if len(heads) < _MIXED:
            self._take_few(heads)
            return
        words = np.array(heads, np.uint64)
        if at > self._size:
            words = words[:-1]
        self._take(self._at, words, np.where(words & np.uint64(PAGE), 8 + self.page_size, 9))

    def _take_few(self, heads: list[int]) -> None:
        """Takes consecutive full and zero pages of the current block, one by one: numpy would be slower."""
        at, limit = self._at, self.blocks[self._current].used_length
        for head in heads:
            end = at + stride(head, self.page_size)
            if head & ~FLAGS >= limit or end > self._size:
                self._advance(at)
                self._single(head, head & FLAGS & ~CONTINUE, self._current)  # says what is wrong
                return
            self.table.add_run(self._base + at, head, 1, self._current, self.page_size)
            if head & ZERO and self._view[at + 8]:
                self.fill_bytes = True
            at = end
        self._advance(at)

    def _take(self, start: int, heads: np.ndarray, sizes: np.ndarray) -> None:
        """Takes consecutive full and zero pages of the current block, by numpy: there are a thousand."""
        wrong = np.flatnonzero(heads >= self.blocks[self._current].used_length)
        if len(wrong):
            bad = int(wrong[0])
            if bad:
                self._take(start, heads[:bad], sizes[:bad])
            raise self._beyond(self._at, int(heads[bad]), self._current)
        ends = start + np.cumsum(sizes)
        first = np.concatenate(([0], np.flatnonzero(np.diff(heads) != self.page_size) + 1))
        rows = np.empty(len(first), RUN)
        rows["file"] = self._base + (ends - sizes)[first]
        rows["head"] = heads[first]
        rows["count"] = np.diff(first, append=len(heads))
        rows["block"] = self._current
        if not self.fill_bytes:
            zero = (ends - 1)[sizes == 9]
            self.fill_bytes = bool(np.frombuffer(self._view, np.uint8)[zero].any())
        self.table.add_rows(rows, self.page_size)
        self._advance(int(ends[-1]))

    def close(self) -> None:
        """Lets go of the view."""
        self._stream = self._view = memoryview(b"")
