from __future__ import annotations

import zlib

import pytest
from writer import be, pstring

from vmstate_tools.errors import StreamError
from vmstate_tools.format.ram_pages import (
    COMPRESSED_HEADER,
    PAGE_HEADER,
    XBZRLE_HEADER,
    head_at,
    longest_compressed,
    stride,
)


@pytest.mark.parametrize(
    ("data", "head", "block"),
    [
        (be(0x5008, 8) + pstring("pc.ram"), 0x5008, b"pc.ram"),
        (be(0x5028, 8), 0x5028, None),  # a page of the same block
        (be(0x5002, 8) + pstring("pc.ram"), 0x5002, b"pc.ram"),
        (be(0x10, 8), 0x10, None),
        (be(0x200, 8), 0x200, None),
    ],
)
def test_a_page_header_names_its_block_but_for_the_same_one(data: bytes, head: int, block: bytes | None) -> None:
    value, end = PAGE_HEADER.read(memoryview(data + b"\x09content"), 0, "a page")
    assert (value.head, value.block, end) == (head, block, len(data))
    assert PAGE_HEADER.build({"head": head, "block": block}) == data


def test_headers_of_packed_pages() -> None:
    assert XBZRLE_HEADER.read(memoryview(b"\x01\x01\x02"), 0, "a page")[0].length == 0x102
    assert XBZRLE_HEADER.build({"encoding": 1, "length": 0x102}) == b"\x01\x01\x02"
    assert COMPRESSED_HEADER.build({"length": 5}) == be(5, 4)


def test_a_word_past_the_end() -> None:
    assert head_at(memoryview(b"x" + be(7, 8)), 1) == 7
    with pytest.raises(StreamError, match="ends inside the RAM section"):
        head_at(memoryview(be(7, 8)), 1)


def test_sizes() -> None:
    assert (stride(0x5022, 4096), stride(0x5028, 4096)) == (9, 4104)
    # What zlib itself makes of bytes that cannot be packed is below its bound.
    assert len(zlib.compress(bytes(range(256)) * 16, 0)) <= longest_compressed(4096)
