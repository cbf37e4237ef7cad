from __future__ import annotations

import struct
import time
from pathlib import Path

import pandas as pd
import pytest
from handmade import device, field, section, stream, subsection
from writer import Writer, be, pstring

import vmstate_tools as vt
from vmstate_tools.data import data_path

U32 = [field("x", "uint32", 4)]


def diff(a: bytes, b: bytes, **more) -> pd.DataFrame:
    with vt.open(a) as one, vt.open(b) as two:
        return vt.diff(one, two, **more)


def rows(frame: pd.DataFrame) -> list[tuple]:
    return [(r.section, r.vmsd, r.path, r.kind, r.a, r.b) for r in frame.itertuples()]


def one(payload: bytes, fields: list, **more) -> bytes:
    return stream([section("dev", payload, version=more.get("version", 1))], [device("dev", fields, **more)])


def test_a_stream_does_not_differ_from_itself() -> None:
    made = one(bytes(4), U32)
    assert diff(made, made).empty


def test_values_versions_types() -> None:
    found = rows(diff(one(b"\0\0\0\1", U32), one(b"\xff\xff\xff\xff", [field("x", "int32", 4)], version=2)))
    assert found == [
        ("dev", "", "", "version", 1, 2),
        ("dev", "dev", "", "version", 1, 2),
        ("dev", "dev", "x", "type", "uint32", "int32"),
        ("dev", "dev", "x", "value", 1, -1),
    ]


def test_unsigned_words_stay_exact() -> None:
    word = [field("x", "uint64", 8)]
    found = diff(one(struct.pack(">Q", 2**64 - 1), word), one(struct.pack(">Q", 2**53 + 1), word))
    assert rows(found) == [("dev", "dev", "x", "value", 2**64 - 1, 2**53 + 1)]


def test_only_the_elements_of_an_array_that_differ() -> None:
    table = [field("t", "uint16", 2, array_len=1000)]
    a, b = bytearray(2000), bytearray(2000)
    b[2 * 700 : 2 * 700 + 2] = b"\x12\x34"
    assert rows(diff(one(bytes(a), table), one(bytes(b), table))) == [("dev", "dev", "t[700]", "value", 0, 0x1234)]


def test_arrays_of_different_lengths() -> None:
    a = one(bytes([1, 2, 3]), [field("t", "uint8", 1, array_len=3)])
    b = one(bytes([1, 9]), [field("t", "uint8", 1, array_len=2)])
    assert rows(diff(a, b)) == [
        ("dev", "dev", "t", "size", "3 × 1 bytes", "2 × 1 bytes"),
        ("dev", "dev", "t[1]", "value", 2, 9),
    ]


def test_a_field_under_another_name() -> None:
    x, z = field("x", "uint8", 1), field("z", "uint8", 1)
    a = one(b"\1\2\3", [x, field("old", "uint8", 1), z])
    b = one(b"\1\5\3", [x, field("new", "uint8", 1), z])
    assert rows(diff(a, b)) == [("dev", "dev", "old → new", "name", 2, 5)]


def test_fields_that_came_and_went() -> None:
    x = field("x", "uint8", 1)
    a = one(b"\1\2\3", [x, field("gone", "uint16", 2)])
    b = one(b"\1\2\3\4\5", [x, field("new", "uint32", 4)])
    assert rows(diff(a, b)) == [
        ("dev", "dev", "gone", "only in a", 0x203, None),
        ("dev", "dev", "new", "only in b", None, 0x2030405),
    ]


def test_a_subsection_only_one_side_has_is_one_row() -> None:
    sub = {"vmsd_name": "dev/more", "version": 3, "fields": [field("x", "uint8", 1), field("y", "uint8", 1)]}
    with_it = one(bytes(4) + subsection("dev/more", b"\1\2", 3), U32, subsections=[sub])
    without = one(bytes(4), U32)
    assert rows(diff(with_it, without)) == [("dev", "dev/more", "", "subsection only in a", None, None)]
    assert rows(diff(without, with_it)) == [("dev", "dev/more", "", "subsection only in b", None, None)]


def test_sections_and_machine() -> None:
    a = stream([section("dev", b"")], [device("dev", [])], machine="pc-1")
    b = stream([section("dev", b"", instance=1)], [device("dev", [], instance=1)], machine="pc-2")
    assert rows(diff(a, b)) == [
        ("configuration", "configuration", "name", "value", "pc-1", "pc-2"),
        ("dev", "", "", "only in a", "0 bytes", None),
        ("dev", "", "", "only in b", None, "0 bytes"),
    ]


def test_a_section_that_only_one_side_describes() -> None:
    sections = [section("first", b"", number=1), section("dev", bytes(4), number=2)]
    first = device("first", [])
    assert rows(diff(stream(sections, [first]), stream(sections, [first, device("dev", U32)]))) == [
        ("dev", "", "", "described in b only", "4 bytes", "4 bytes")
    ]


def test_two_descriptions() -> None:
    a = one(bytes(4), U32)
    b = one(bytes(2), [field("x", "uint16", 2)], version=2)
    with vt.open(a) as left, vt.open(b) as right:
        found = vt.diff(left.vmdesc, right.vmdesc)
        device_only = vt.diff(left.vmdesc.devices[0], right.vmdesc.devices[0])
    assert (
        rows(found)
        == rows(device_only)
        == [
            ("dev", "dev", "", "version", 1, 2),
            ("dev", "dev", "x", "type", "uint32", "uint16"),
            ("dev", "dev", "x", "size", "4 bytes", "2 bytes"),
        ]
    )


def test_a_stream_and_a_description_are_not_compared() -> None:
    with vt.open(one(bytes(4), U32)) as made, pytest.raises(TypeError, match="two streams or two descriptions"):
        vt.diff(made, made.vmdesc)


def bundled(release: str, name: str) -> vt.Stream:
    return vt.open(data_path("streams", f"qemu-{release}", "pseries-2.6", f"{name}.mig.zst"))


def test_power8_from_2_6_to_2_7() -> None:
    """Commits 7778a575c7 and others gave POWER8 new flags between these releases; nothing else in the four words."""
    with bundled("2.6.0", "POWER8_v2.0") as a, bundled("2.7.0", "POWER8_v2.0") as b:
        found = vt.diff(a, b)
    words = found[found["path"].str.contains("insns_flags|msr_mask|nb_BATs")].set_index("path")
    assert words["flags"].to_dict() == {
        "env.insns_flags": "+PPC_64H, +PPC_CILDST",
        "env.insns_flags2": "+PPC2_PM_ISA206",
    }


def test_the_words_lost_their_equal_and_their_name_in_2_8() -> None:
    with bundled("2.7.0", "POWER7_v2.3") as a, bundled("2.8.0", "POWER7_v2.3") as b:
        found = vt.diff(a, b)
    cpu = found[(found["section"] == "cpu") & found["path"].str.contains("mig_")]
    assert [(r.path, r.kind, r.b) for r in cpu.itertuples() if r.kind == "type"] == [
        ("mig_msr_mask", "type", "uint64"),
        ("mig_insns_flags", "type", "uint64"),
        ("mig_insns_flags2", "type", "uint64"),
        ("mig_nb_BATs", "type", "uint32"),
    ]


def test_guest_memory_page_by_page() -> None:
    folder = data_path("streams", "qemu-2.6.0", "pseries-2.6")
    with vt.open(folder / "POWER7_v2.3.mig.zst") as a, vt.open(folder / "POWER8_v2.0.mig.zst") as b:
        found = vt.diff(a, b, ram=True)
        block = a.ram.blocks["block"][0]
        size = int(a.ram.blocks["used_length"][0])
        memories = [s.ram.read(block, 0, size) for s in (a, b)]
    unlike = sum(memories[0][i : i + 4096] != memories[1][i : i + 4096] for i in range(0, size, 4096))
    pages = found[found["kind"] == "pages"]
    assert unlike > 0
    assert pages[["section", "path", "pages"]].to_numpy().tolist() == [["ram", block, unlike]]


def test_memory_is_compared_where_it_was_sent_whatever_length_is_claimed(tmp_path: Path) -> None:
    """Two streams of a block of 2^50 bytes each, which differ in the pages that they send."""

    def sent(name: str, pages: dict[int, int]) -> Path:
        writer = Writer(machine="m-1.0")
        number = writer.begin(1, "ram", 0, 4)
        writer.data += be(1 << 50 | 0x04, 8) + pstring("huge") + be(1 << 50, 8) + be(0x10, 8)
        writer.footer(number)
        writer.data += b"\x03" + be(number, 4)
        for at, byte in pages.items():
            writer.data += be(at | 0x08, 8) + pstring("huge") + bytes([byte]) * 4096
        writer.data += be(0x10, 8)
        writer.footer(number)
        path = tmp_path / name
        path.write_bytes(writer.finish())
        return path

    one = sent("a.mig", {0: 1, 4096: 2, 1 << 40: 3})
    two = sent("b.mig", {0: 1, 4096: 5, 1 << 45: 4})
    start = time.process_time()
    with vt.open(one) as a, vt.open(two) as b:
        rows = vt.diff(a, b, ram=True)
        assert rows.loc[rows["kind"] == "pages", ["path", "pages"]].to_numpy().tolist() == [["huge", 3]]
        assert "pages" not in set(vt.diff(a, a, ram=True)["kind"])
    assert time.process_time() - start < 5


def test_runs_of_equal_sections_are_compared_once() -> None:
    """200,000 sections, 5 KB when compressed, beside as many; one less is seen."""

    def repeated(count: int) -> bytes:
        return stream([section("first", b"x"), section("dev", b"") * count], None)

    many = repeated(200_000)
    begin = time.process_time()
    with vt.open(many, partial=True) as a, vt.open(many, partial=True) as b:
        assert vt.diff(a, b).empty
    assert time.process_time() - begin < 1.5
    with vt.open(repeated(1000), partial=True) as a, vt.open(repeated(999), partial=True) as b:
        (row,) = vt.diff(a, b).to_dict("records")
    assert (row["section"], row["kind"]) == ("dev", "only in a")
