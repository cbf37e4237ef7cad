from __future__ import annotations

import io
from pathlib import Path

import pytest
from writer import Vmsd, Writer, be, buffer, toy, u8, u32, u64

import vmstate_tools as vt
from vmstate_tools.errors import StreamError


@pytest.fixture
def stream() -> vt.Stream:
    return vt.open(toy().finish())


def test_what_it_says_of_itself(stream: vt.Stream) -> None:
    assert (stream.machine, stream.page_size, stream.error) == ("toy-1.0", 4096, None)
    assert stream.vmdesc is not None
    assert stream.vmdesc.size == len(toy().vmdesc())
    assert "toy-1.0" in repr(stream)
    with vt.open(toy(machine=None).finish(vmdesc=False)) as bare:
        assert bare.machine is None
        assert bare.vmdesc is None
        assert bare.page_size == 4096  # what makes the RAM section consistent
        assert bare.configuration == {}


def test_sections(stream: vt.Stream) -> None:
    assert [(s.idstr, s.instance_id, s.version_id, s.section_id, s.part, s.how) for s in stream.sections] == [
        ("ram", 0, 4, 0, "start", "ram"),
        ("ram", 0, 4, 0, "part", "ram"),
        ("ram", 0, 4, 0, "end", "ram"),
        ("timer", 0, 2, 1, "full", "vmdesc"),
        ("toy", 0x8000_0000, 3, 2, "full", "vmdesc"),
        ("byhand", 0, 1, 3, "full", "vmdesc"),
        ("toy", 1, 3, 4, "full", "vmdesc"),
    ]
    data = stream.source.view
    for section in stream.sections:
        assert data[section.offset] in (1, 2, 3, 4)
        assert data[section.payload_end] == 0x7E
        assert section.offset + section.size == section.payload_end + 5
    assert all(a.offset + a.size == b.offset for a, b in zip(stream.sections, stream.sections[1:], strict=False))


def test_a_section_by_name_and_instance(stream: vt.Stream) -> None:
    assert stream.section("toy").instance_id == 0x8000_0000
    assert stream.section("toy", instance=1).instance_id == 1
    with pytest.raises(KeyError, match="toy/1"):
        stream.section("toy", instance=2)
    with pytest.raises(KeyError, match="byhand"):
        stream.section("nothing")


def test_values(stream: vt.Stream) -> None:
    assert stream.value("timer", "ticks[0]") == 1 << 63
    assert stream.value("toy", "a") == 0xFFFF_FFFF
    assert stream.value("toy", "a", instance=1) == 5
    assert stream.value("toy", "points[2].x") == -2
    assert stream.value("toy", "points[1].on") is True
    assert stream.value("toy", "d[1]") == 4
    assert stream.value("byhand", "data") == b"\1\2\3"
    with pytest.raises(KeyError, match="points"):
        stream.value("toy", "point")
    with pytest.raises(KeyError, match="no field"):
        stream.value("toy", "d[2]")
    with pytest.raises(KeyError, match="no field"):
        stream.value("toy", "c", instance=1)


def test_fields_stand_in_file_order_with_what_tells_them_apart(stream: vt.Stream) -> None:
    frame = stream.fields()
    assert frame.columns.tolist() == [
        *("section", "instance_id", "version_id", "vmsd", "path", "type", "offset", "size", "value"),
    ]
    assert frame["offset"].is_monotonic_increasing
    assert frame.dtypes.astype(str).to_dict() == {
        "section": "category",
        "instance_id": "uint32",
        "version_id": "uint32",
        "vmsd": "category",
        "path": "str",
        "type": "category",
        "offset": "int64",
        "size": "int64",
        "value": "vmstate",
    }
    row = frame[frame["path"] == "d[0]"].iloc[0]
    assert (row["section"], row["instance_id"], row["version_id"], row["vmsd"]) == (
        "toy",
        0x8000_0000,
        3,
        "toy/extra/more",
    )
    data = stream.source.view
    assert data[row["offset"] : row["offset"] + row["size"]] == be(3, 4)
    assert stream.fields("toy", instance=1)["path"].tolist()[0] == "a"
    assert set(stream.fields("toy")["instance_id"]) == {1, 0x8000_0000}
    assert len(stream.fields("ram")) == 0
    with pytest.raises(KeyError):
        stream.fields("nothing")


@pytest.mark.parametrize("footers", [True, False], ids=["footers", "no footers"])
@pytest.mark.parametrize("machine", ["toy-1.0", None], ids=["configuration", "no configuration"])
@pytest.mark.parametrize("vmdesc", [True, False], ids=["vmdesc", "no vmdesc"])
def test_coverage_tiles_and_building_gives_the_same_bytes(footers: bool, machine: str | None, vmdesc: bool) -> None:
    data = toy(footers=footers, machine=machine).finish(vmdesc)
    with vt.open(data) as stream:
        for fields in (True, False):
            frame = stream.coverage(fields=fields)
            assert frame["offset"].tolist() == [0, *frame["size"].cumsum()[:-1]]
            assert frame["size"].sum() == len(data)
        assert stream.build() == data
        out = io.BytesIO()
        stream.write(out)
        assert out.getvalue() == data


def test_what_each_byte_is(stream: vt.Stream) -> None:
    frame = stream.coverage()
    data = stream.source.view

    def bytes_of(what: str) -> list[bytes]:
        rows = frame[frame["what"] == what]
        return [bytes(data[o : o + n]) for o, n in zip(rows["offset"], rows["size"], strict=True)]

    assert bytes_of("file header") == [b"QEVM" + be(3, 4)]
    assert bytes_of("configuration") == [b"\x07" + be(7, 4) + b"toy-1.0"]
    assert bytes_of("end of file mark") == [b"\0"]
    assert bytes_of("section footer") == [b"\x7e" + be(n, 4) for n in (0, 0, 0, 1, 2, 3, 4)]
    assert bytes_of("subsection header")[0] == b"\x05\x09toy/extra" + be(1, 4)
    assert bytes_of("vmdesc")[0][5:] == toy().vmdesc()
    row = frame[(frame["section"] == "timer/0") & (frame["detail"] == "ticks")].iloc[0]
    assert bytes(data[row["offset"] : row["offset"] + row["size"]]) == be(1 << 63, 8) + be(7, 8)


def test_guest_memory(stream: vt.Stream) -> None:
    assert stream.ram.read("toy.ram", 0, 12288) == b"\xaa" * 4096 + bytes(8192)
    assert stream.ram.blocks["used_length"].tolist() == [12288, 4096]


def test_a_description_is_borrowed_from_a_stream_or_a_file(tmp_path: Path, stream: vt.Stream) -> None:
    (tmp_path / "whole.mig").write_bytes(toy().finish())
    bare = toy().finish(vmdesc=False)
    for description in (stream, stream.vmdesc, tmp_path / "whole.mig", str(tmp_path / "whole.mig")):
        with vt.open(bare, description=description) as opened:
            assert opened.vmdesc is None
            assert opened.value("toy", "points[2].x") == -2
            assert opened.section("toy").how == "borrowed"


def test_a_borrowed_description_that_does_not_fit_is_not_used() -> None:
    mine, theirs = Writer(machine="toy-1.0"), Writer(machine="toy-1.0")
    mine.full("nobody-knows", Vmsd("n", [u32("a", 1)]))
    theirs.full("nobody-knows", Vmsd("n", [u64("a", 1)]))
    with vt.open(theirs.finish()) as other, vt.open(mine.finish(vmdesc=False), description=other) as opened:
        assert opened.section("nobody-knows").how == "opaque"
        assert opened.fields()["value"].tolist() == [be(1, 4)]


def test_its_own_description_goes_before_a_borrowed_one() -> None:
    mine, theirs = Writer(machine="toy-1.0"), Writer(machine="toy-1.0")
    mine.full("toy", Vmsd("toy", [u32("mine", 7)]))
    theirs.full("toy", Vmsd("toy", [u32("theirs", 1)]))
    with vt.open(theirs.finish()) as other, vt.open(mine.finish(), description=other) as opened:
        assert opened.value("toy", "mine") == 7


def test_sections_in_parts_that_interleave() -> None:
    stream = Writer(machine="toy-1.0")
    first, second = stream.begin(1, "one", 0, 1), -1
    stream.data += b"aa"
    stream.footer(first)
    second = stream.begin(1, "two", 0, 1)
    stream.data += b"bbb"
    stream.footer(second)
    for section_id, payload in ((first, b"c"), (second, b"dd")):
        stream.data += b"\x02" + be(section_id, 4) + payload
        stream.footer(section_id)
    for section_id, payload in ((first, b""), (second, b"e")):
        stream.data += b"\x03" + be(section_id, 4) + payload
        stream.footer(section_id)
    data = stream.finish()
    with vt.open(data) as opened:
        assert [(s.idstr, s.part, s.payload_size) for s in opened.sections] == [
            ("one", "start", 2),
            ("two", "start", 3),
            ("one", "part", 1),
            ("two", "part", 2),
            ("one", "end", 0),
            ("two", "end", 1),
        ]
        assert opened.build() == data


def test_what_stands_before_the_stream(tmp_path: Path) -> None:
    data = bytes(4096) + toy().finish()  # as `migrate file:PATH,offset=4096` leaves it
    with vt.open(data) as stream:
        frame = stream.coverage()
        assert frame.loc[0, ["offset", "size", "what"]].tolist() == [0, 4096, "before the stream"]
        assert stream.section("byhand").offset > 4096
        assert stream.value("byhand", "data") == b"\1\2\3"
        assert stream.build() == data


def test_long_and_odd_names() -> None:
    stream = Writer(machine="toy-1.0")
    names = ["x" * 255, "\xe9\xff", "a/b@71000000/spapr", "0000:00:03.0/virtio-net"]
    for name in names:
        stream.full(name, Vmsd("v", [u8("a", 1)]), described=False)
    with vt.open(stream.finish(vmdesc=False)) as opened:
        assert [s.idstr for s in opened.sections] == [names[0], "\\xe9\\xff", *names[2:]]
        assert opened.build() == stream.data


def test_it_closes(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(toy().finish())
    with vt.open(tmp_path / "a.mig") as stream:
        buffers = stream.value("byhand", "data"), stream.ram.read("toy.ram", 0, 4)
    (tmp_path / "a.mig").unlink()
    assert buffers == (b"\1\2\3", b"\xaa" * 4)
    stream.close()  # twice is once


def test_no_ram_at_all() -> None:
    stream = Writer(machine="toy-1.0")  # xen-save-devices-state writes such
    stream.full("toy", Vmsd("toy", [buffer("a", b"xyz")]))
    with vt.open(stream.finish()) as opened:
        assert len(opened.ram.blocks) == 0
        assert opened.page_size == 4096


def test_a_closed_stream_says_so() -> None:
    with vt.open(toy().finish()) as stream:
        sections, block = stream.sections, stream.ram.block_list[0].name
    assert stream.sections == sections and "toy-1.0" in repr(stream)
    with vt.open(toy().finish()) as unread:
        pass
    for ask in (
        stream.fields,
        stream.build,
        lambda: stream.value("timer", "ticks[0]"),
        lambda: stream.ram.read(block, 0, 1),
        lambda: vt.check(stream, vt.Destination("2.7.0")),
        lambda: unread.sections,
    ):
        with pytest.raises(StreamError, match="closed"):
            ask()


# -- sections that repeat: PARTs of the RAM without a page, as QEMU 2.3 sends them by the hundred thousand ------------


def waiting(count: int, *, footers: bool, last: bytes = b"") -> tuple[bytes, int, int]:
    """A stream with `count` such PARTs in a row, then `last`; where the first one is, and the size of each."""
    writer = toy(footers=footers)
    at = writer.data.index(b"\x03" + be(0, 4) + be(0x10, 8))  # the END of ram
    part = b"\x02" + be(0, 4) + be(0x10, 8) + (b"\x7e" + be(0, 4) if footers else b"")
    writer.data[at:at] = part * count + last
    return writer.finish(), at, len(part)


@pytest.mark.parametrize("footers", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 66, 2000])
def test_repeated_sections(count: int, footers: bool, tmp_path: Path) -> None:
    data, first, size = waiting(count, footers=footers)
    with vt.open(data) as stream:
        empty = stream.sections[2 : 2 + count]
        assert [s.offset for s in empty] == [first + i * size for i in range(count)]
        assert {(s.idstr, s.section_id, s.part, s.payload_size, s.size, s.how) for s in empty} == {
            ("ram", 0, "part", 8, size, "ram")
        }
        assert [s.footer.offset if s.footer else s.payload_end for s in empty] == [s.offset + 13 for s in empty]
        assert [s.part for s in stream.sections[: 3 + count]] == ["start", "part", *["part"] * count, "end"]
        assert stream.build() == data
        cover = stream.coverage()
        assert (cover["offset"].iloc[1:].array == (cover["offset"] + cover["size"]).iloc[:-1].array).all()
        alike = cover[cover["what"] == "sections alike"]
        assert alike["size"].sum() == (count - 1) * size and len(alike) == (count > 1)
        assert (cover["what"] == "ram end of section").sum() == 3 + min(count, 1)
        assert stream.ram.pages["zero"].tolist() == [2, 1]
        want = [(s.offset, s.size, s.payload_size, s.part, s.footer is not None) for s in stream.sections]
    (tmp_path / "a.mig").write_bytes(data)
    frame = vt.load([tmp_path / "a.mig"]).sections
    assert list(frame[["offset", "size", "payload_size", "part", "footer"]].itertuples(index=False, name=None)) == want


def test_the_last_of_repeated_sections_differs() -> None:
    part = b"\x02" + be(0, 4) + be(0x10, 8)
    data, first, size = waiting(3, footers=False, last=part + b"\x7e" + be(0, 4))
    with vt.open(data, partial=True) as stream:  # what follows has no footer
        assert [(s.offset, s.footer is not None) for s in stream.sections[2:]] == [
            *((first + i * size, False) for i in range(3)),
            (first + 3 * size, True),
        ]
        assert stream.error is not None
    data, first, size = waiting(100, footers=True, last=part + b"\x7e" + be(1, 4))
    with pytest.raises(StreamError, match="a footer of section id 1") as caught, vt.open(data) as stream:
        _ = stream.sections
    assert caught.value.offset == first + 100 * size + 13
    data, first, size = waiting(100, footers=True)
    with vt.open(data[: first + 50 * size + 9], partial=True) as stream:
        assert (len(stream.sections), stream.error is not None) == (52, True)
        assert stream.coverage()["offset"].iloc[-1] == first + 50 * size
