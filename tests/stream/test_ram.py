from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from typing import TYPE_CHECKING

import captures as real
import numpy as np
import pytest
import ram_streams
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ram_streams import (
    COMPRESS,
    CONTINUE,
    DATA,
    EOS,
    FLUSH,
    HOOK,
    PAGE,
    PATTERN,
    XBZRLE,
    ZERO,
    Writer,
    be64,
    mem_size,
    named,
    pages_of,
    parse,
    unzst,
)  # fmt: skip

from vmstate_tools.errors import StreamError
from vmstate_tools.stream.ram import Ram

if TYPE_CHECKING:
    from pathlib import Path

RAM = b"pc.ram"
KINDS = {ZERO: "zero", PAGE: "normal", XBZRLE: "xbzrle", COMPRESS: "compressed"}


# -- what a running guest's RAM became, against QEMU's own dump of it (tests/data/ram/README.md)


@pytest.mark.parametrize("name", ["xbzrle", "compress", "both"])
def test_running_guest(name: str, tmp_path: Path) -> None:
    stream = unzst(DATA / f"{name}.mig.zst")
    ram, payloads = ram_streams.find(stream)
    assert ram.read("pc.ram", 0, 0xA0000) == unzst(DATA / f"{name}.memory.zst")
    for start, end in payloads:
        ram_streams.assert_accounted(ram, stream, start, end)
    memory, counts = ram_streams.load(stream, payloads, 4096)
    table = ram.pages.set_index("block")
    for block, pages in memory.items():
        assert ram_streams.content(ram, block.decode(), 4096, tmp_path / "out") == pages
        for kind, column in KINDS.items():
            assert table.loc[block.decode(), column] == counts.get((block, kind), 0)


def test_xbzrle_count_is_what_qemu_reported() -> None:
    ram, _ = ram_streams.find(unzst(DATA / "xbzrle.mig.zst"))
    reported = json.loads((DATA / "reported.json").read_text())["xbzrle"]
    assert ram.pages[["zero", "normal", "xbzrle"]].sum().to_dict() == reported


# -- every capture there is


RELEASES = [
    "1.6.0",
    "2.0.0",
    "2.1.0",
    "2.3.0",
    "2.5.0",
    "2.6.0",
    "2.7.0",
    "2.8.0",
    "2.10.0",
    "2.12.0",
    "3.1.0",
    "5.2",
    "7.2",
    "11.1",
]


@pytest.mark.parametrize("release", RELEASES)
def test_captures(release: str, captures: real.Captures) -> None:
    ran = 0
    loaded = set()
    rows = [row for row in captures.rows if row["release"] == release]
    assert rows
    for row in rows:
        stream = unzst(captures.path(row["file"]))
        ram, payloads = ram_streams.find(stream, stream.index(b"QEVM"))
        for start, end in payloads:
            ram_streams.assert_accounted(ram, stream, start, end)
        blocks = ram.blocks.set_index("block")
        if row["config"] in ("ran", "ran-htmoff"):
            assert ram.read("ppc_spapr.ram", 1 << 20, len(PATTERN)) == PATTERN, row["file"]
            ran += 1
        if ram.page_size is None or blocks["gpa"].notna().any() or blocks["pages_offset"].notna().any():
            continue
        # Loading record by record is slow: once for each machine and configuration.
        if (row["machine"], row["config"]) in loaded:
            continue
        loaded.add((row["machine"], row["config"]))
        memory, counts = ram_streams.load(stream, payloads, ram.page_size)
        table = ram.pages.set_index("block")
        for block, pages in memory.items():
            name = block.decode()
            for kind, column in KINDS.items():
                assert table.loc[name, column] == counts.get((block, kind), 0), (row["file"], name, column)
            for offset, page in pages.items():
                assert ram.read(name, offset, ram.page_size) == page, (row["file"], name, offset)
    assert ran == sum(row["config"] in ("ran", "ran-htmoff") for row in rows)


MAPPED = real.batches(lambda captures, file: "mapped-ram" in captures.manifest[file]["config"], size=1)


@pytest.mark.parametrize("batch", MAPPED)
def test_mapped_ram_holds_what_the_plain_stream_holds(batch: real.Batch) -> None:
    (file,) = batch.files
    block = "pc.ram" if "/q35/" in file else "ppc_spapr.ram"
    ram, payloads = ram_streams.find(unzst(batch.captures.path(file)))
    plain, _ = ram_streams.find(unzst(batch.captures.path(re.sub(r"\+.*(?=\.mig)", "+file-uri", file))))
    assert ram.page_size_source == "mapped-ram header"
    mapped, other = ram.pages.set_index("block"), plain.pages.set_index("block")
    assert (mapped["zero"] + mapped["normal"]).to_dict() == (other["zero"] + other["normal"]).to_dict()
    if block == "pc.ram":  # a pseries guest's device tree has a random seed in it
        for name, size in plain.blocks[["block", "used_length"]].itertuples(index=False):
            assert ram.read(name, 0, int(size)) == plain.read(name, 0, int(size))
    else:
        assert ram.read(block, 1 << 20, len(PATTERN)) == PATTERN
    what = [w for s, e in payloads for _, _, w, _ in ram.records(s, e)]
    assert what.count("mapped-ram pages") == len(ram.blocks)


def test_ignored_shared_memory() -> None:
    stream = unzst(real.capture("qemu-11.1/pseries-5.2/POWER8_v2.0+x-ignore-shared.mig.zst"))
    ram, _ = ram_streams.find(stream)
    assert ram.blocks["gpa"].notna().all()
    assert not ram.pages[["zero", "normal"]].to_numpy().any()


# -- format, record by record


def writer() -> Writer:
    w = Writer()
    w.blocks((RAM, 64 * 4096), (b"vga.vram", 16 * 4096))
    w.eos()
    return w


def test_last_write_wins_over_sections(tmp_path: Path) -> None:
    w = writer()
    for i in range(64):
        w.page(RAM, i * 4096, pages_of(i)) if i % 3 else w.zero(RAM, i * 4096)
    w.page(b"vga.vram", 0, pages_of(99))
    w.eos()
    w.page(RAM, 3 * 4096, pages_of(100))
    w.zero(RAM, 4 * 4096)
    w.patched(RAM, 5 * 4096, 4000, b"new")
    w.patched(RAM, 5 * 4096, 0, b"newer")
    w.patched(RAM, 6 * 4096, 1, b"lost")
    w.eos()
    w.page(RAM, 6 * 4096, pages_of(101))
    w.patched(RAM, 7 * 4096, 4095, b"!")
    w.compressed(b"vga.vram", 4096, bytes(4095) + b"x")
    w.eos()
    ram = w.parse()
    ram_streams.assert_accounted(ram, bytes(w.out), 0, len(w.out))
    for name, memory in w.memory.items():
        assert ram.read(name.decode(), 0, len(memory)) == memory
        assert ram.read(name.decode(), 4097, 9000) == memory[4097 : 4097 + 9000]
        with (tmp_path / "out").open("w+b") as out:
            ram.extract(name.decode(), out, progress=False)
            out.seek(0)
            assert out.read() == memory
    table = ram.pages.set_index("block")
    assert table.loc["pc.ram", ["zero", "normal", "xbzrle", "compressed"]].tolist() == [23, 44, 4, 0]
    assert table.loc["vga.vram", ["zero", "normal", "xbzrle", "compressed"]].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("odd", [1, 2, 63, 64, 8191, 8192, 8193, 16384, 19999])
@pytest.mark.parametrize("what", ["filled", "full", "left out"])
def test_many_zero_pages_and_one_that_is_not(what: str, odd: int) -> None:
    w = Writer(1024)
    w.blocks((RAM, 20_000 * 1024))
    for i in range(20_000):
        if i != odd:
            w.zero(RAM, i * 1024)
        elif what == "filled":
            w.zero(RAM, i * 1024, 7)
        elif what == "full":
            w.page(RAM, i * 1024, pages_of(odd, size=1024))
    w.eos()
    ram = w.parse(page_size=1024)
    ram_streams.assert_accounted(ram, bytes(w.out), 0, len(w.out))
    assert ram.pages[["zero", "normal"]].to_numpy().tolist() == [[20_000 - (what != "filled"), int(what == "full")]]
    assert ram.read(RAM.decode(), 0, 20_000 * 1024) == w.memory[RAM]


@pytest.mark.parametrize("page_size", [1024, 4096, 8192, 65536])
def test_page_size_is_found(page_size: int) -> None:
    w = Writer(page_size)
    w.blocks((RAM, 64 * page_size))
    for i in range(40):
        w.page(RAM, i * page_size, pages_of(i, size=page_size)) if i % 2 else w.zero(RAM, i * page_size)
    w.eos()
    ram = w.parse()
    assert (ram.page_size, ram.page_size_source) == (page_size, "inferred")
    assert ram.read("pc.ram", 0, 64 * page_size) == w.memory[RAM]


def test_one_zero_page_does_not_tell_the_page_size() -> None:
    w = Writer()
    w.blocks((RAM, 1 << 20))
    w.zero(RAM, 0)
    w.eos()
    ram = w.parse()
    assert (ram.page_size, ram.page_size_source) == (4096, "assumed")


def test_fill_byte_before_1_5() -> None:
    w = writer()
    for i in range(50):
        w.zero(RAM, i * 4096, fill=i if i > 40 else 0)
    w.eos()
    ram = w.parse()
    assert ram.read("pc.ram", 0, 64 * 4096) == w.memory[RAM]


def test_huge_page_sizes_after_postcopy_advise() -> None:
    data = be64(6 << 20 | 4) + named(b"m0") + be64(4 << 20, 2 << 20) + named(b"m1") + be64(2 << 20) + be64(EOS)
    ram = parse(data, postcopy=True)
    assert ram.blocks["host_page_size"].fillna(0).tolist() == [2 << 20, 0]
    ram_streams.assert_accounted(ram, data, 0, len(data))
    with pytest.raises(StreamError):
        parse(data)


def test_multifd_flush_is_a_record() -> None:
    data = mem_size((RAM, 4096)) + be64(FLUSH, EOS)
    assert [r[2] for r in parse(data).records(0, len(data))][-2:] == [
        "ram multifd flush",
        "ram end of section",
    ]


def mapped(n: int, bits: list[int], *, big: bool) -> bytes:
    pages = 1 << 20
    head = be64(n * 4096 | 4) + named(RAM) + be64(n * 4096)
    head += struct.pack(">IQQQ", 1, 4096, len(head) + 28, pages)
    words = np.zeros(-(-n // 64), ">u8" if big else "<u8")
    body = bytearray(n * 4096)
    for bit in bits:
        words[bit // 64] |= np.uint64(1 << bit % 64)
        body[bit * 4096 : bit * 4096 + 4096] = pages_of(bit)
    head += words.tobytes()
    return head + bytes(pages - len(head)) + body + be64(EOS)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("n", [100, 128])
def test_mapped_ram_of_either_host(n: int, big: bool) -> None:
    bits = [0, 1, 2, 9, 64, 70, 99]
    data = mapped(n, bits, big=big)
    ram = parse(data, capabilities=frozenset({"mapped-ram"}))
    assert ram.pages.loc[0, ["normal", "zero"]].tolist() == [len(bits), n - len(bits)]
    want = data[1 << 20 : (1 << 20) + n * 4096]
    assert ram.read("pc.ram", 0, n * 4096) == want
    assert ram.read("pc.ram", 9 * 4096 + 5, 56 * 4096) == want[9 * 4096 + 5 : 65 * 4096 + 5]
    ram_streams.assert_accounted(ram, data, 0, len(data))


def test_mapped_ram_stale_page_is_zero() -> None:
    """A page that became zero keeps its old bytes in the file: the bitmap decides."""
    data = bytearray(mapped(100, [0, 1, 2, 3], big=False))
    data[(1 << 20) + 50 * 4096] = 1
    assert parse(bytes(data), capabilities=frozenset({"mapped-ram"})).read("pc.ram", 50 * 4096, 4096) == bytes(4096)


def test_a_block_that_ends_within_a_page(tmp_path: Path) -> None:
    w = Writer()
    w.blocks((RAM, 4096 + 2048))
    w.page(RAM, 0, pages_of(1))
    w.page(b"pc.ram", 4096, pages_of(2))
    w.eos()
    ram = w.parse(page_size=4096)
    expected = (pages_of(1) + pages_of(2))[: 4096 + 2048]
    assert ram.extract("pc.ram", tmp_path / "out", progress=False) == len(expected)
    assert (tmp_path / "out").read_bytes() == ram.read("pc.ram", 0, len(expected)) == expected
    assert b"".join(bytes(data) for _, data in ram.contents("pc.ram")) == expected


def test_extract_keeps_what_is_there(tmp_path: Path) -> None:
    w = writer()
    w.page(RAM, 4096, pages_of(1))
    w.eos()
    ram = w.parse()
    out = tmp_path / "out"
    out.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        ram.extract("pc.ram", out, progress=False)
    assert out.read_bytes() == b"precious"
    assert ram.extract("pc.ram", out, overwrite=True, progress=False) == 4096
    assert out.stat().st_blocks * 512 < 64 * 4096
    assert hashlib.sha256(out.read_bytes()).digest() == hashlib.sha256(w.memory[RAM]).digest()


def test_a_stream_cut_anywhere_keeps_what_came_before() -> None:
    w = writer()
    for i in range(40):
        w.page(RAM, i * 4096, pages_of(i)) if i % 2 else w.zero(RAM, i * 4096)
    w.patched(RAM, 4096, 1, b"x")
    w.compressed(RAM, 0, bytes(4096))
    w.eos()
    data = bytes(w.out)
    for cut in [*range(300), *range(300, len(data), 97)]:
        ram = Ram(memoryview(data)[:cut], page_size=4096)
        with pytest.raises(StreamError) as caught:
            parsed = ram.parse(0, part="start")
            ram.parse(parsed, part="end")
        assert caught.value.offset is not None
        assert ram.parsed_to <= cut
        ram_streams.assert_accounted(ram, data, 0, ram.parsed_to)


# -- hostile input

BLOCK = mem_size((RAM, 1 << 20))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (be64((1 << 63) | 4) + named(RAM) + be64(4096) + be64(EOS), "without a name|Unknown|RAM block ''"),
        (be64(4096 | 4) + named(RAM) + be64(8192), "RAM block 'pc.ram' of 8192 bytes"),
        (be64(8192 | 4) + (named(RAM) + be64(4096)) * 2, "the 2th"),
        (be64((1 << 63) | 4) + named(RAM) + be64(1 << 63), "RAM block"),
        (BLOCK + be64(CONTINUE | PAGE) + bytes(4096), "none before"),
        (BLOCK + be64(PAGE) + named(b"other") + bytes(4096), "'other'"),
        (BLOCK + be64(PAGE) + named(b"\x1b[31m\xff") + bytes(4096), "xff"),
        (BLOCK + be64(1 << 20 | PAGE) + named(RAM) + bytes(4096), "0x100000"),
        (BLOCK + be64(HOOK), "RDMA"),
        (BLOCK + be64(1), "unknown RAM flags"),
        (BLOCK + be64(PAGE | ZERO) + named(RAM), "unknown RAM flags"),
        (BLOCK + be64(XBZRLE) + named(RAM) + b"\x02\0\1a", "encoding 2"),
        (BLOCK + be64(XBZRLE) + named(RAM) + b"\x01\xff\xffa", "65535 bytes"),
        (BLOCK + be64(COMPRESS) + named(RAM) + b"\xff\xff\xff\xff", "4294967295"),
    ],
)
def test_refused_at_once(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message) as caught:
        parse(data + be64(EOS), page_size=4096)
    assert caught.value.offset is not None
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "delta", [b"\0\0", b"\1", b"\0\2a", b"\xff\xff\1a", b"\x80\x20\1a", b"\1\1a\0\1b", b"\0\x81\x81a"]
)
def test_xbzrle_that_qemu_refuses(delta: bytes) -> None:
    data = BLOCK + be64(XBZRLE) + named(RAM) + b"\x01" + struct.pack(">H", len(delta)) + delta + be64(EOS)
    ram = parse(data, page_size=4096)
    with pytest.raises(StreamError):
        ram.read("pc.ram", 0, 1)


@pytest.mark.parametrize("size", [0, 4095, 4097, 1 << 20])
def test_compressed_page_of_another_size(size: int) -> None:
    w = writer()
    w.compressed(RAM, 0, bytes(size))
    w.eos()
    with pytest.raises(StreamError, match="a page"):
        w.parse(page_size=4096).read("pc.ram", 0, 1)


def test_a_claimed_size_allocates_nothing(tmp_path: Path) -> None:
    size = 1 << 60
    data = mem_size((RAM, size)) + be64(size - 4096 | PAGE) + named(RAM) + pages_of(1) + be64(EOS)
    ram = parse(data)
    assert ram.read("pc.ram", size - 4096, 4096) == pages_of(1)
    assert ram.read("pc.ram", size // 2, 100) == bytes(100)
    ram_streams.assert_accounted(ram, data, 0, len(data))
    with (tmp_path / "out").open("wb") as out, pytest.raises(StreamError, match="bytes"):
        ram.extract("pc.ram", out, progress=False)


@pytest.mark.parametrize("where", [24, 27, 35, 43, 51])
@pytest.mark.parametrize("value", [0, 1, 255])
def test_mapped_header_with_a_wrong_byte(where: int, value: int) -> None:
    """Bytes of the page size and the two offsets: refused, or read without leaving the file."""
    data = bytearray(mapped(100, [0, 9], big=False))
    data[where] = value
    try:
        ram = parse(bytes(data), capabilities=frozenset({"mapped-ram"}))
    except StreamError:
        return
    ram_streams.assert_accounted(ram, bytes(data), 0, len(data))
    ram.read("pc.ram", 0, 100 * 4096)


operations = st.lists(
    st.tuples(
        st.sampled_from(["page", "zero", "patched", "compressed", "eos", "run"]),
        st.sampled_from([RAM, b"vga.vram"]),
        st.integers(0, 15),
        st.integers(0, 255),
    ),
    max_size=60,
)


def written(steps: list[tuple[str, bytes, int, int]]) -> Writer:
    w = Writer(1024)
    w.blocks((RAM, 64 * 1024), (b"vga.vram", 16 * 1024))
    w.eos()
    for what, name, page, seed in steps:
        at = page * 1024
        if what == "page":
            w.page(name, at, pages_of(seed, size=1024))
        elif what == "zero":
            w.zero(name, at, seed if seed > 250 else 0)
        elif what == "compressed":
            w.compressed(name, at, pages_of(seed, size=1024))
        elif what == "patched":
            w.patched(name, at, seed * 4, b"patched"[: 1024 - seed * 4])
        elif what == "run":
            for i in range(64):
                w.page(RAM, i * 1024, pages_of(i + seed, size=1024)) if seed % 2 else w.zero(RAM, i * 1024)
        else:
            w.eos()
    w.eos()
    return w


def test_blocks_that_are_shown_alike_are_told_apart_by_their_bytes() -> None:
    raw, spelled = b"a\x1b", b"a\\x1b"
    data = mem_size((raw, 4096), (spelled, 4096))
    data += be64(PAGE) + named(raw) + b"A" * 4096 + be64(PAGE) + named(spelled) + b"B" * 4096 + be64(EOS)
    ram = parse(data)
    assert [block.name for block in ram.block_list] == ["a\\x1b"] * 2
    assert (ram.read(raw, 0, 1), ram.read(spelled, 0, 1)) == (b"A", b"B")
    assert (ram.read("a\x1b", 0, 1), ram.read("a\\x1b", 0, 1)) == (b"A", b"B")


@given(operations)
@settings(max_examples=150, deadline=None)
def test_any_stream_reads_as_it_was_written(steps: list[tuple[str, bytes, int, int]]) -> None:
    w = written(steps)
    ram = w.parse(page_size=1024)
    ram_streams.assert_accounted(ram, bytes(w.out), 0, len(w.out))
    for name, memory in w.memory.items():
        assert ram.read(name.decode(), 0, len(memory)) == memory


@given(operations, st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_stream_is_read_or_refused(
    steps: list[tuple[str, bytes, int, int]], changes: list[tuple[int, int]]
) -> None:
    data = bytearray(written(steps).out)
    for at, value in changes:
        data[at % len(data)] = value
    ram = Ram(memoryview(bytes(data)))
    at = 0
    with contextlib.suppress(StreamError):
        while at < len(data):
            at = ram.parse(at, part="part")
    ram_streams.assert_accounted(ram, bytes(data), 0, ram.parsed_to)
    for name, size in ram.blocks[["block", "used_length"]].itertuples(index=False):
        with contextlib.suppress(StreamError):
            ram.read(name, 0, min(int(size), 1 << 16))
