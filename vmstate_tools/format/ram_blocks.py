"""The list of RAMBlocks at the head of the RAM section (migration/ram.c: `ram_save_setup`, `parse_ramblocks`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.format.ram_pages import FLAGS, PAGE_SIZES
from vmstate_tools.source.parsing import Counted8, Format, shown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_BLOCKS = 8192
_MAX_LENGTH = 1 << 62  # so that offsets are good in signed arithmetic


def _is_host_page_size(context: Any) -> bool:
    """Tells whether a page size stands here.

    Nothing announces it, but what could stand here instead (a name's length and the name, a record with flags) is
    never a power of two from 4096 on.
    """
    if context._building:
        return context.page_size is not None
    word = context._ahead
    return word is not None and word & (word - 1) == 0 and 4096 <= word < 1 << 48


TOTAL = Format("RAM total size", "head" / c.Int64ub)
"""The record in front of the list: the sum of all blocks' lengths, with the flag MEM_SIZE."""

MAPPED_HEADER = Format(
    "mapped-ram header",
    "version" / c.Int32ub,
    "page_size" / c.Int64ub,
    "bitmap_offset" / c.Int64ub,
    "pages_offset" / c.Int64ub,
)
"""`MappedRamHeader` (migration/ram.c), since 9.0. Offsets count from the file's start."""

BLOCK = Format(
    "RAM block",
    "name" / Counted8,
    "used_length" / c.Int64ub,
    "gpa" / c.If(c.this._params.shared, c.Int64ub),  # x-ignore-shared, since 4.0
    "_ahead" / c.If(c.this._params.postcopy & c.this._parsing, c.Peek(c.Int64ub)),
    "page_size" / c.If(_is_host_page_size, c.Int64ub),  # of huge pages, where postcopy was advised, since 2.9
    "mapped" / c.If(c.this._params.mapped, MAPPED_HEADER.struct),
)
"""An entry of the list. Give `shared`, `postcopy` and `mapped`: which capabilities change it."""


@dataclass(slots=True)
class Block:
    """A Block is a RAMBlock as the stream lists it. Sizes and offsets in bytes; None where the stream does not say.

    Attributes
    ----------
    raw_name : its bytes in the stream, by which blocks are told apart.
    used_length : bytes of guest memory.
    offset, end : of its entry in the list; with mapped-ram `end` is that of the pages.
    page_size : of the backing memory, where that is huge pages and postcopy was advised.
    gpa : guest physical address, with x-ignore-shared.
    mapped : the fields of `MAPPED_HEADER`, with mapped-ram.
    """

    raw_name: bytes
    used_length: int
    offset: int
    end: int
    page_size: int | None = None
    gpa: int | None = None
    mapped: Any = None

    @property
    def name(self) -> str:
        """Returns the name as text that is safe to show. Two different names may look alike: see `number_of`."""
        return shown_name(self.raw_name)

    @property
    def bitmap_offset(self) -> int | None:
        """Returns where the bitmap of pages that have content begins, counted from the file's start."""
        return self.mapped.bitmap_offset if self._in_file else None

    @property
    def pages_offset(self) -> int | None:
        """Returns where the block's first page lies, counted from the file's start."""
        return self.mapped.pages_offset if self._in_file else None

    @property
    def _in_file(self) -> bool:
        # Shared memory that is ignored has a header, and no place in the file.
        return self.mapped is not None and self.mapped.pages_offset != 0

    @property
    def bitmap_size(self) -> int:
        """Returns the bytes of the mapped-ram bitmap: whole host `long`s of 64 bits."""
        return -(-(self.used_length // self.mapped.page_size) // 64) * 8 if self.mapped else 0

    def build(self) -> bytes:
        """Returns the bytes of the entry in the list, without the bitmap and the pages of mapped-ram."""
        values = {
            "name": self.raw_name,
            "used_length": self.used_length,
            "gpa": self.gpa,
            "page_size": self.page_size,
            "mapped": self.mapped,
        }
        return BLOCK.build(values, shared=self.gpa is not None, postcopy=False, mapped=self.mapped is not None)


def number_of(blocks: Sequence[Block], name: str | bytes) -> int:
    """Returns the number of the block of that name in the list.

    Bytes are the name as the stream has it. Text is a name as it is shown; if several blocks are shown alike, it is
    the one whose bytes are this text.

    Raises
    ------
    KeyError : no block has this name, or several are shown so and none of them is written so.
    """
    raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    exact = [number for number, block in enumerate(blocks) if block.raw_name == raw]
    if exact:
        return exact[0]
    found = [number for number, block in enumerate(blocks) if block.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(repr(blocks[number].raw_name) for number in found)
        raise KeyError(f"{len(found)} RAM blocks are shown as {name!r}: give its bytes, one of {names}")
    raise KeyError(f"no RAM block {name!r}; there are {', '.join(repr(block.name) for block in blocks)}")


def read_block_list(
    view: memoryview,
    offset: int,
    capabilities: frozenset[str],
    *,
    postcopy: bool,
    page_size: int | None,
) -> list[Block]:
    """Returns the blocks of the MEM_SIZE record at `offset`.

    Their sizes add up to the total in the record; nothing else says where the list ends.

    Parameters
    ----------
    capabilities : names from the configuration section; `mapped-ram` and `x-ignore-shared` change the entries.
    postcopy : the command POSTCOPY_ADVISE came before.
    page_size : of the target, in bytes, if it is known; the headers of mapped-ram must agree with it.

    Raises
    ------
    StreamError : the list is cut short, names a block twice, does not add up, or places pages outside the file.
    """
    total, at = TOTAL.read(view, offset, "the total size of the RAM")
    left = total = total.head & ~FLAGS
    mapped = "mapped-ram" in capabilities
    shared = "x-ignore-shared" in capabilities
    blocks: list[Block] = []
    names: set[bytes] = set()
    while left:
        entry, end = BLOCK.read(
            view, at, "a RAM block", shared=shared, postcopy=postcopy and not mapped and not shared, mapped=mapped
        )
        block = Block(entry.name, entry.used_length, at, end, entry.page_size, entry.gpa, entry.mapped)
        if (
            not block.raw_name
            or block.raw_name in names
            or block.used_length > min(left, _MAX_LENGTH)
            or len(blocks) == _MAX_BLOCKS
        ):
            raise StreamError(
                f"RAM block {block.name!r} of {block.used_length} bytes, the {len(blocks) + 1}th",
                offset=at,
                expected=f"blocks of different names that add up to {total} bytes; {left} are still missing",
            )
        if mapped:
            _check_mapped(view, block, page_size)
            page_size = page_size or block.mapped.page_size
        left -= block.used_length
        names.add(block.raw_name)
        blocks.append(block)
        at = block.end
    return blocks


def _check_mapped(view: memoryview, block: Block, page_size: int | None) -> None:
    """Holds a mapped-ram header against the file and takes the block's end from it (`parse_ramblock_mapped_ram`)."""
    header, at = block.mapped, block.end - MAPPED_HEADER.size
    bitmap, pages = header.bitmap_offset, header.pages_offset
    if header.version > 1:
        raise StreamError(f"mapped-ram version {header.version}", offset=at, expected="version 1")
    if header.page_size not in PAGE_SIZES or page_size not in (None, header.page_size):
        wanted = str(page_size) if page_size else "a power of two from 1024 to 65536"
        raise StreamError(f"mapped-ram page size {header.page_size}", offset=at, expected=wanted)
    if not bitmap and not pages and block.gpa is not None:
        return  # shared memory, ignored: it has no place in the file
    if block.used_length % header.page_size or pages % header.page_size:
        raise StreamError(
            f"mapped-ram pages of block {block.name!r}: {block.used_length} bytes at {pages}",
            offset=at,
            expected=f"multiples of the page size {header.page_size}",
        )
    end = pages + block.used_length
    if not block.end <= bitmap <= bitmap + block.bitmap_size <= pages <= end <= len(view):
        raise StreamError(
            f"mapped-ram block {block.name!r} of {block.used_length} bytes, bitmap {bitmap}, pages {pages}",
            offset=at,
            expected=f"header, bitmap and pages one after another before the end at {len(view)}",
        )
    block.end = end
