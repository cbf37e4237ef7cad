"""The list of RAMBlocks at the head of the RAM section."""

from __future__ import annotations

import struct

from vmstate_tools.errors import StreamError
from vmstate_tools.format import framing as wire

PAGE_SIZES = tuple(1 << bits for bits in range(16, 9, -1))
"""Page sizes a target may have, in bytes. Below 1024 there is no room for the flags of a page record."""

_MAPPED_HEADER = struct.Struct(">IQQQ")  # MappedRamHeader, since 9.0
_MAX_BLOCKS = 65536
_MAX_LENGTH = 1 << 62  # so that offsets are good in signed arithmetic

put_be64 = struct.Struct(">Q").pack
_get_be64 = struct.Struct(">Q").unpack_from


def be64(view: memoryview, offset: int) -> int:
    """The 64-bit word at `offset`; `StreamError` past the end."""
    if offset + 8 > len(view):
        raise StreamError("the stream ends inside the RAM section", offset=len(view), expected="8 bytes more")
    return int(_get_be64(view, offset)[0])


def short_string(view: memoryview, offset: int) -> bytes:
    """The bytes that follow their number, one byte, at `offset`; `StreamError` past the end."""
    if offset >= len(view) or offset + 1 + view[offset] > len(view):
        raise StreamError("the stream ends inside a RAM block name", offset=len(view), expected="a name")
    return bytes(view[offset + 1 : offset + 1 + view[offset]])


class Block:
    """One RAMBlock as the stream lists it. Sizes and offsets in bytes; None where the stream does not say."""

    def __init__(self, raw_name: bytes, used_length: int, offset: int, end: int) -> None:
        self.raw_name = raw_name
        self.used_length = used_length
        self.offset = offset  # of its entry in the block list
        self.end = end
        self.page_size: int | None = None  # of the backing memory, where it is huge pages and postcopy was advised
        self.gpa: int | None = None
        self.mapped: tuple[int, int, int, int] | None = None  # MappedRamHeader: version, page size, bitmap, pages

    @property
    def name(self) -> str:
        return wire.name(self.raw_name)

    @property
    def bitmap_offset(self) -> int | None:
        return self.mapped[2] if self.mapped and self.mapped[3] else None

    @property
    def pages_offset(self) -> int | None:
        return self.mapped[3] if self.mapped and self.mapped[3] else None

    @property
    def bitmap_size(self) -> int:
        """Bytes of the mapped-ram bitmap: whole host `long`s of 64 bits."""
        return -(-(self.used_length // self.mapped[1]) // 64) * 8 if self.mapped else 0

    def build(self) -> bytes:
        out = bytes([len(self.raw_name)]) + self.raw_name + put_be64(self.used_length)
        out += b"".join(put_be64(word) for word in (self.page_size, self.gpa) if word is not None)
        return out + (_MAPPED_HEADER.pack(*self.mapped) if self.mapped else b"")


def read_block_list(
    view: memoryview,
    offset: int,
    capabilities: frozenset[str],
    *,
    postcopy: bool,
    page_size: int | None,
) -> list[Block]:
    """The blocks of the MEM_SIZE record at `offset` (migration/ram.c: `ram_save_setup`, `parse_ramblocks`).

    Their sizes add up to the total in the record; nothing else tells where the list ends.
    """
    left = total = be64(view, offset) & ~0x3FF
    blocks: list[Block] = []
    names: set[bytes] = set()
    at = offset + 8
    while left:
        name = short_string(view, at)
        length = be64(view, at + 1 + len(name))
        if not name or name in names or length > min(left, _MAX_LENGTH) or len(blocks) == _MAX_BLOCKS:
            raise StreamError(
                f"RAM block {Block(name, 0, 0, 0).name!r} of {length} bytes, the {len(blocks) + 1}th",
                offset=at,
                expected=f"blocks of different names that add up to {total} bytes; {left} are still missing",
            )
        block = Block(name, length, at, at + 1 + len(name) + 8)
        if "x-ignore-shared" in capabilities:  # since 4.0
            block.gpa = be64(view, block.end)
            block.end += 8
        elif postcopy and "mapped-ram" not in capabilities:  # since 2.9; excludes the other two
            # Nothing announces the page size, but what could stand here instead (a name's length and the
            # name, a record with flags) is never a power of two from 4096 on.
            word = be64(view, block.end)
            if word & (word - 1) == 0 and 4096 <= word < 1 << 48:
                block.page_size = word
                block.end += 8
        if "mapped-ram" in capabilities:
            _read_mapped_header(view, block, page_size)
            page_size = page_size or (block.mapped[1] if block.mapped else None)
        left -= length
        names.add(name)
        blocks.append(block)
        at = block.end
    return blocks


def _read_mapped_header(view: memoryview, block: Block, page_size: int | None) -> None:
    """The header, then the bitmap and the pages at the places it names (`parse_ramblock_mapped_ram`)."""
    at = block.end
    if at + _MAPPED_HEADER.size > len(view):
        raise StreamError("the stream ends inside a mapped-ram header", offset=len(view), expected="28 bytes")
    block.mapped = _MAPPED_HEADER.unpack_from(view, at)
    version, size, bitmap, pages = block.mapped
    block.end = at + _MAPPED_HEADER.size
    if version > 1:
        raise StreamError(f"mapped-ram version {version}", offset=at, expected="version 1")
    if size not in PAGE_SIZES or page_size not in (None, size):
        wanted = str(page_size) if page_size else "a power of two from 1024 to 65536"
        raise StreamError(f"mapped-ram page size {size}", offset=at, expected=wanted)
    if not bitmap and not pages and block.gpa is not None:
        return  # shared memory, ignored: it has no place in the file
    if block.used_length % size or pages % size:
        raise StreamError(
            f"mapped-ram pages of block {block.name!r}: {block.used_length} bytes at {pages}",
            offset=at,
            expected=f"multiples of the page size {size}",
        )
    end = pages + block.used_length
    if not block.end <= bitmap <= bitmap + block.bitmap_size <= pages <= end <= len(view):
        raise StreamError(
            f"mapped-ram block {block.name!r} of {block.used_length} bytes, bitmap {bitmap}, pages {pages}",
            offset=at,
            expected=f"header, bitmap and pages one after another before the end at {len(view)}",
        )
    block.end = end
