"""What a small file unpacks to takes no more time and memory than its size allows; what repeats is one record."""

from __future__ import annotations

import gzip
import json
import struct
import time
from pathlib import Path

import handmade
import pytest
from writer import be

import vmstate_tools as vt
from vmstate_tools.errors import StreamError
from vmstate_tools.stream.records import Repeated, Unrolled
from vmstate_tools.stream.summary import summarize

HEAD = b"QEVM" + be(3, 4)
PING = b"\x08" + be(2, 2) + be(4, 2)
RAM = (
    b"\x01" + be(2, 4) + b"\x03ram" + be(0, 4) + be(4, 4)
    + be(1 << 32 | 4, 8) + b"\x01x" + be(1 << 32, 8) + be(0x10, 8)
)  # fmt: skip
END = b"\x03" + be(2, 4) + be(0x10, 8)
PART = b"\x02" + be(2, 4)
EMPTY = PART + be(0x10, 8)


def full(section_id: int, idstr: bytes = b"zz") -> bytes:
    """A FULL section without a payload, with its footer."""
    head = b"\x04" + be(section_id, 4) + bytes([len(idstr)]) + idstr + be(0, 4) + be(1, 4)
    return head + b"\x7e" + be(section_id, 4)


def packed(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "a.mig.gz"
    path.write_bytes(gzip.compress(data, 6))
    return path


@pytest.mark.parametrize(
    ("one", "sections", "commands"),
    [(PING + be(1, 4), 0, 1), (full(1), 1, 0), (RAM + EMPTY, 2, 0)],
    ids=["commands", "sections", "parts"],
)
def test_what_repeats_is_one_record(one: bytes, sections: int, commands: int, tmp_path: Path) -> None:
    n = 300_000
    again = EMPTY if one.startswith(RAM) else one
    data = HEAD + one + again * n + (END if one.startswith(RAM) else b"") + b"\0"
    with vt.open(packed(data, tmp_path)) as stream:
        began = time.process_time()
        assert sum(isinstance(record, Repeated) for record in stream.records) == 1
        assert len(stream.records) < 8
        assert len(stream.sections) == (sections and sections + n + one.startswith(RAM))
        assert len(stream.commands) == (commands and commands + n)
        cover = stream.coverage()
        assert len(cover) < 20
        assert cover["size"].sum() == len(data)
        assert (cover["offset"].iloc[1:].array == (cover["offset"] + cover["size"]).iloc[:-1].array).all()
        assert b"".join(stream.chunks()) == data
        assert len(json.dumps(summarize(stream))) < 10_000
        assert len(stream.fields()) == 0
        assert time.process_time() - began < 1


def test_a_run_is_a_sequence() -> None:
    data = HEAD + full(1, b"first") + full(2) * 1000 + full(3, b"last") + b"\0"
    size, first = len(full(2)), len(HEAD + full(1, b"first"))
    with vt.open(data) as stream:
        sections = stream.sections
        assert isinstance(sections, Unrolled)
        assert len(sections) == len(list(sections)) == 1002
        assert [s.offset for s in sections[1:1001]] == list(range(first, first + 1000 * size, size))
        assert (sections[0].idstr, sections[1000].offset, sections[-1].idstr) == ("first", first + 999 * size, "last")
        assert [s.footer.offset - s.offset for s in sections if s.footer][1:1001] == [size - 5] * 1000
        assert [s.idstr for s in sections.distinct] == ["first", "zz", "last"]
        for beyond in (1002, -1003):
            with pytest.raises(IndexError):
                sections[beyond]


DEVICES = b'{"devices": [' + b'{"name":"x","instance_id":0,"fields":[]},' * 200_000 + b"0]}"
MANY_DEVICES = b"\x06" + be(len(DEVICES), 4) + DEVICES

ENDLESS = {
    "commands of two kinds": HEAD + (PING + be(1, 4) + PING + be(2, 4)) * 2_000_000 + b"\0",
    "sections of two kinds": HEAD + (full(1) + full(2, b"zy")) * 500_000 + b"\0",
    "sections of distinct ids": HEAD + b"".join(map(full, range(200_000))) + b"\0",
    "parts with and without a page": HEAD + RAM + (PART + be(2, 8) + b"\x01x\0" + be(0x10, 8) + EMPTY) * 500_000 + END,
    "parts with a page": HEAD + RAM + (PART + be(2, 8) + b"\x01x\0" + be(0x10, 8)) * 500_000 + END,
    "one page again and again": HEAD + RAM + PART + be(2, 8) + b"\x01x\0" + (be(0x22, 8) + b"\0") * 2_000_000,
    "pages with names": HEAD + RAM + PART + (be(2, 8) + b"\x01x\0") * 2_000_000,
    "XBZRLE": HEAD + RAM + PART + be(2, 8) + b"\x01x\0" + (be(0x60, 8) + b"\x01\0\x01\0") * 2_000_000,
    "a vmdesc of many devices": HEAD + b"\0" + MANY_DEVICES,
    "many blocks": HEAD + RAM[:17] + be(60_000 << 12 | 4, 8)
    + b"".join(b"\x08%08d" % i + be(4096, 8) for i in range(60_000)),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDLESS)
def test_records_are_limited_by_the_size_of_the_file(case: str, tmp_path: Path) -> None:
    path = packed(ENDLESS[case], tmp_path)
    began = time.process_time()
    with pytest.raises(StreamError, match=r"one record too|too many pages|RAM block|a vmdesc of") as error:
        vt.open(path).sections  # noqa: B018
    assert error.value.file == str(path)
    assert error.value.offset is not None
    assert "at most" in str(error.value) or "different names" in str(error.value)
    assert time.process_time() - began < 2  # on a busy machine; 0.5 s on an idle one


def test_a_long_stream_is_not_limited() -> None:
    """What is not packed has few bytes for each record in no real stream, and never too few."""
    data = HEAD + (PING + be(1, 4) + PING + be(2, 4)) * 10_000 + b"\0"
    with vt.open(data) as stream:
        assert len(stream.commands) == 20_000


@pytest.mark.parametrize("n", [5_000, 30_000])
def test_sections_are_more_work_than_commands(n: int) -> None:
    """More than 5,000 different ones in a small file are no QEMU's, and each takes 0.1 ms to build."""
    data = HEAD + b"".join(full(i, b"s%d" % (i % 977)) for i in range(n)) + b"\0"
    small = gzip.compress(data, 9)
    assert len(small) < 1 << 18
    began = time.process_time()
    if n > 5_000:
        with pytest.raises(StreamError, match="one record too many"):
            vt.open(small).sections  # noqa: B018
    else:
        with vt.open(small) as stream:
            assert len(stream.sections) == n
            assert stream.build() == data
    assert time.process_time() - began < 3  # 0.6 s on an idle machine


def test_a_truncated_file_says_in_which_section_it_ends(tmp_path: Path) -> None:
    whole = HEAD + RAM + PART + be(8, 8) + b"\x01x" + bytes(4096) + be(0x10, 8) + END + b"\0"
    for cut, says in [
        (len(HEAD), "the file ends here, before the first section"),
        (len(HEAD + RAM), "the file ends here, after section ram/0"),
        (len(HEAD) + 30, "the file ends here, in section ram/0"),
        (len(whole) - 1000, "the file ends here, in section ram/0"),
        (len(whole) - 1, "the file ends here, after section ram/0"),
    ]:
        path = tmp_path / "cut.mig"
        path.write_bytes(whole[:cut])
        with pytest.raises(StreamError) as error:
            vt.open(path).sections  # noqa: B018
        assert error.value.message == says
        assert error.value.offset == cut
        assert error.value.file == str(path)


def test_an_error_in_guest_memory_names_file_offset_and_section(tmp_path: Path) -> None:
    bad = b"not zlib" * 4
    at = len(HEAD + RAM + PART)
    data = HEAD + RAM + PART + be(0x100, 8) + b"\x01x" + be(len(bad), 4) + bad + be(0x10, 8) + END + b"\0"
    path = tmp_path / "bad.mig"
    path.write_bytes(data)
    with vt.open(path) as stream:
        for read in (
            lambda: stream.ram.read("x", 0, 10),
            lambda: list(stream.ram.contents("x")),
            lambda: stream.ram.extract("x", tmp_path / "out", progress=False),
        ):
            with pytest.raises(StreamError, match="does not expand") as error:
                read()
            assert (error.value.file, error.value.section) == (str(path), "ram/0")
            assert error.value.offset == at + 8 + 2
    assert not (tmp_path / "out").exists()


def test_ten_bytes_that_no_header_can_hold() -> None:
    with pytest.raises(StreamError, match="found 0x06"):
        vt.open(HEAD + b"\x06}").sections  # noqa: B018


@pytest.mark.parametrize("count", [25_000, 60_000])
def test_described_fields_are_limited_by_the_size_of_the_file(count: int) -> None:
    """An array of structs of four bytes, each a field of its own: in zeros that pack to some hundred bytes."""
    fields = [handmade.field(name, "uint8", 1) for name in "abcd"]
    vmsd = {"vmsd_name": "s", "version": 1, "fields": fields}
    array = handmade.field("s", "struct", 4, array_len=count, struct=vmsd)
    data = handmade.stream([handmade.section("d", bytes(4 * count))], [handmade.device("d", [array])])
    began = time.process_time()
    with vt.open(gzip.compress(data)) as stream:
        if count > 1 << 15:
            for read in (stream.coverage, stream.fields, stream.build):
                with pytest.raises(StreamError, match=r"at most \d+ fields in a file of this size"):
                    read()
        else:
            assert len(stream.fields()) == 4 * count
            assert stream.build() == data
            assert stream.coverage()["size"].sum() == len(data)
    assert time.process_time() - began < 2


def test_values_of_sections_written_by_hand_are_limited_by_the_size_of_the_file() -> None:
    """Records of `block` that hold nothing but progress: half a million values in some kilobytes."""
    footer = b"\x7e\0\0\0\2"
    start = b"\x01\0\0\0\2\x05block" + struct.pack(">II", 0, 1) + struct.pack(">Q", 2) + footer
    part = b"\x02\0\0\0\2" + struct.pack(">Q", 4) * 60_000 + struct.pack(">Q", 2) + footer
    data = gzip.compress(b"QEVM\0\0\0\3" + start + part * 8 + b"\0")
    with (
        vt.open(data) as stream,
        pytest.raises(StreamError, match=r"too many values.*at most \d+ in a file of this size"),
    ):
        _ = stream.sections


def guest(content: dict[int, bytes], length: int) -> bytes:
    """A stream whose RAM block `x` of so many bytes has these pages; another block fills up the last page of both."""
    rest = -length % 4096
    blocks = b"\x01x" + be(length, 8) + (b"\x01y" + be(rest, 8) if rest else b"")
    ram = RAM[:-26] + be(length + rest | 4, 8) + blocks + be(0x10, 8)
    pages = b"".join(be(at | 8, 8) + b"\x01x" + page for at, page in content.items())
    return HEAD + ram + PART + pages + be(0x10, 8) + END + b"\0"


def test_a_block_may_end_inside_of_a_page(tmp_path: Path) -> None:
    one = guest({0: b"a" * 4096, 4096: b"b" * 4096}, 6000)
    two = guest({0: b"a" * 4096, 4096: b"b" * 1000 + b"c" * 3096}, 6000)
    three = guest({0: b"a" * 4096, 4096: b"b" * 1904 + b"c" * 2192}, 6000)
    with vt.open(one) as a, vt.open(two) as b, vt.open(three) as c:
        assert [(at, len(data)) for at, data in a.ram.contents("x")] == [(0, 6000)]
        assert a.ram.read("x", 4000, 2000) == b"a" * 96 + b"b" * 1904
        assert a.ram.extract("x", tmp_path / "out", progress=False) == 6000
        assert (tmp_path / "out").read_bytes() == b"a" * 4096 + b"b" * 1904
        assert vt.diff(a, b, ram=True)["pages"].tolist() == [1]
        assert vt.diff(a, c, ram=True).empty  # what is behind the end is nothing that the guest has


def test_scattered_pages_are_compared_together() -> None:
    """30,000 pages apart from one another; ten of them are sent again with other bytes, and one more page."""
    places = [n * 7919 % 100_000 << 13 for n in range(30_000)]
    pages = b"".join(be(at | 2, 8) + b"\x01x\x01" for at in places)
    more = b"".join(be(at | 2, 8) + b"\x01x\x02" for at in [*places[:10], 1 << 31])
    end = be(0x10, 8) + END + b"\0"
    with vt.open(HEAD + RAM + PART + pages + end) as a, vt.open(HEAD + RAM + PART + pages + more + end) as b:
        began = time.process_time()
        assert vt.diff(a, a, ram=True).empty
        assert vt.diff(a, b, ram=True)["pages"].tolist() == [11]
        assert time.process_time() - began < 3  # 0.7 s on an idle machine; 4 s where each page is looked up


def test_what_is_built_in_memory_follows_the_size_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of one record over and over: small when it is packed, and large again where it is built."""
    data = HEAD + (PING + be(1, 4)) * 100_000 + b"\0"
    monkeypatch.setattr("vmstate_tools.stream.stream._MOST_BUILT", 1 << 18)
    with vt.open(gzip.compress(data)) as stream:
        with pytest.raises(StreamError, match=r"900009 bytes are too many .* at most 262144; write\(\)"):
            stream.build()
        assert b"".join(stream.chunks()) == data
    monkeypatch.undo()
    with vt.open(gzip.compress(data)) as stream:
        assert stream.build() == data
