"""The page records of the RAM section: their flags and headers.

A payload of the `ram` section is a row of records, each headed by a be64: a page's offset in its RAMBlock and, in the
bits below the page size, flags (migration/ram.c: `save_page_header`, `ram_load`; arch_init.c before 2.4). The content
follows the header: one fill byte (`ZERO`), a page (`PAGE`), or what its own header gives the length of.
"""

from __future__ import annotations

import struct

import construct as c

from vmstate_tools.errors import TruncatedError
from vmstate_tools.source.parsing import Counted8, Format

PAGE_SIZES = tuple(1 << bits for bits in range(16, 9, -1))
"""Page sizes a target may have, in bytes. Below 1024 there is no room for the flags of a page record."""

# RAM_SAVE_FLAG_*
ZERO = 0x002  # RAM_SAVE_FLAG_COMPRESS until 2.7: one fill byte; always 0 since 1.5, any byte before
MEM_SIZE = 0x004  # the block list (`ram_blocks`)
PAGE = 0x008
EOS = 0x010
CONTINUE = 0x020  # of the same block as the record before
XBZRLE = 0x040  # since 1.2
HOOK = 0x080  # RDMA, since 1.6
COMPRESS_PAGE = 0x100  # 2.4 to 9.0
MULTIFD_FLUSH = 0x200  # since 8.1
FLAGS = 0x3FF

KINDS = {ZERO: "zero", PAGE: "normal", XBZRLE: "xbzrle", COMPRESS_PAGE: "compressed"}
"""The records that hold a page, by the flag that tells them, as `Ram.pages` names them."""

PAGE_HEADER = Format(
    "RAM page record",
    "head" / c.Int64ub,
    "block" / c.IfThenElse(c.this.head & (CONTINUE | EOS | MULTIFD_FLUSH | HOOK), c.Pass, Counted8),
    compiled=True,
)
"""Of any record but the block list. `block` is the RAMBlock's name, None where the record gives none."""

XBZRLE_HEADER = Format("XBZRLE page", "encoding" / c.Int8ub, "length" / c.Int16ub, compiled=True)
"""`migration/ram.c: load_xbzrle`; `length` bytes of difference follow (`xbzrle`)."""

COMPRESSED_HEADER = Format("compressed page", "length" / c.Int32ub, compiled=True)
"""`migration/ram-compress.c: decompress_data_with_multi_threads`; `length` bytes of zlib data follow."""

# By struct and not construct: each page has such a word, and a stream millions of pages.
_word = struct.Struct(">Q").unpack_from


def head_at(view: memoryview, offset: int) -> int:
    """Returns the word that heads the record at `offset`; raises StreamError past the end."""
    if offset + 8 > len(view):
        raise TruncatedError("the stream ends inside the RAM section", offset=len(view), expected="8 bytes more")
    return int(_word(view, offset)[0])


def stride(head: int, page_size: int) -> int:
    """Returns the bytes from one record of full or zero pages (`head` with CONTINUE) to the next one of its kind."""
    return 9 if head & ZERO else 8 + page_size


def longest_compressed(page_size: int) -> int:
    """Returns the most bytes that a compressed page takes: zlib's `compressBound`, to which QEMU's loader holds it."""
    return page_size + (page_size >> 12) + (page_size >> 14) + (page_size >> 25) + 13
