from __future__ import annotations

import pytest
from writer import be, pstring

from vmstate_tools.errors import StreamError
from vmstate_tools.format.ram_blocks import Block, number_of, read_block_list


def listed(total: int, *entries: bytes, before: bytes = b"") -> memoryview:
    return memoryview(before + be(total | 4, 8) + b"".join(entries) + b"behind it")


def read(view: memoryview, *capabilities: str, offset: int = 0, postcopy: bool = False) -> list[Block]:
    return read_block_list(view, offset, frozenset(capabilities), postcopy=postcopy, page_size=4096)


def test_entries_parse_and_build() -> None:
    entries = [pstring("pc.ram") + be(1 << 20, 8), pstring("pc.bios") + be(4096, 8)]
    blocks = read(listed((1 << 20) + 4096, *entries, before=b"??"), offset=2)
    assert [(b.name, b.used_length, b.offset, b.end) for b in blocks] == [
        ("pc.ram", 1 << 20, 10, 10 + len(entries[0])),
        ("pc.bios", 4096, 10 + len(entries[0]), 10 + len(entries[0] + entries[1])),
    ]
    assert [b.build() for b in blocks] == entries


def test_addresses_of_memory_that_is_shared() -> None:
    entry = pstring("pc.ram") + be(4096, 8) + be(1 << 32, 8)
    (block,) = read(listed(4096, entry), "x-ignore-shared")
    assert (block.gpa, block.page_size, block.mapped) == (1 << 32, None, None)
    assert block.build() == entry


def test_huge_pages_are_given_only_where_postcopy_was_advised() -> None:
    huge, small = pstring("huge") + be(4096, 8) + be(2 << 20, 8), pstring("small") + be(4096, 8)
    blocks = read(listed(8192, huge, small), postcopy=True)
    assert [b.page_size for b in blocks] == [2 << 20, None]
    assert [b.build() for b in blocks] == [huge, small]


def test_places_of_pages_in_the_file() -> None:
    head = pstring("pc.ram") + be(8192, 8)
    entry = head + be(1, 4) + be(4096, 8) + be(100, 8) + be(4096, 8)
    view = memoryview((be(8192 | 4, 8) + entry).ljust(4096 + 8192, b"\0"))
    (block,) = read(view, "mapped-ram")
    assert (block.bitmap_offset, block.pages_offset, block.bitmap_size, block.end) == (100, 4096, 8, 4096 + 8192)
    assert block.build() == entry
    with pytest.raises(StreamError, match="one after another before the end") as caught:
        read(view[:-1], "mapped-ram")
    assert caught.value.offset == 8 + len(head)


@pytest.mark.parametrize("size", [7, 8, 9, 14, 15, 22])
def test_a_list_cut_short(size: int) -> None:
    view = listed(4096, pstring("pc.ram") + be(4096, 8))
    with pytest.raises(StreamError, match="the stream ends"):
        read(view[:size])


def test_blocks_are_told_apart_by_their_bytes() -> None:
    blocks = [
        Block(raw, 4096, 0, 0) for raw in (b"a\x1b", b"a\\x1b", b"b\x1b", b"c\xff", b"c\\xff\x00", b"\xfe", b"\\xfe")
    ]
    assert blocks[0].name == blocks[1].name == "a\\x1b"
    assert (number_of(blocks, b"a\x1b"), number_of(blocks, b"a\\x1b")) == (0, 1)
    assert (number_of(blocks, "a\x1b"), number_of(blocks, "a\\x1b")) == (0, 1)
    assert (number_of(blocks, "b\\x1b"), number_of(blocks, "c\\xff")) == (2, 3)
    with pytest.raises(KeyError, match="no RAM block 'd'; there are 'a"):
        number_of(blocks, "d")


def test_a_name_that_several_blocks_are_shown_by() -> None:
    blocks = [Block(raw, 4096, 0, 0) for raw in (b"a\x1b\\x1c", b"a\\x1b\x1c")]
    with pytest.raises(KeyError, match="2 RAM blocks are shown as"):
        number_of(blocks, "a\\x1b\\x1c")
    assert number_of(blocks, blocks[1].raw_name) == 1
