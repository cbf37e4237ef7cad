from __future__ import annotations

import pytest
from writer import Vmsd, Writer, be, pstring, toy, u32

import vmstate_tools as vt
from vmstate_tools.errors import StreamError
from vmstate_tools.format import framing as wire

UUID = bytes(range(16))
CASES = {
    "file header": (wire.FILE_HEADER, b"QEVM" + be(3, 4), {"magic": b"QEVM", "version": 3}),
    "start": (
        wire.SECTION_HEADER,
        b"\x01" + be(2, 4) + pstring("ram") + be(0, 4) + be(4, 4),
        {"type": 1, "section_id": 2, "idstr": b"ram", "instance_id": 0, "version_id": 4},
    ),
    "full with the longest name": (
        wire.SECTION_HEADER,
        b"\x04" + be(0xFFFF_FFFF, 4) + pstring("\xe9" * 255) + be(0x8000_0000, 4) + be(1, 4),
        {"type": 4, "section_id": 0xFFFF_FFFF, "idstr": b"\xe9" * 255, "instance_id": 0x8000_0000, "version_id": 1},
    ),
    "part": (wire.SECTION_CONTINUED, b"\x02" + be(2, 4), {"type": 2, "section_id": 2}),
    "footer": (wire.SECTION_FOOTER, b"\x7e" + be(2, 4), {"type": 0x7E, "section_id": 2}),
    "command": (
        wire.COMMAND,
        b"\x08" + be(2, 2) + be(4, 2) + be(1, 4),
        {"type": 8, "command": 2, "data": be(1, 4)},
    ),
    "longest command": (
        wire.COMMAND,
        b"\x08" + be(7, 2) + be(0xFFFF, 2) + b"x" * 0xFFFF,
        {"type": 8, "command": 7, "data": b"x" * 0xFFFF},
    ),
    "vmdesc": (wire.VMDESCRIPTION, b"\x06" + be(2, 4) + b"{}", {"type": 6, "json": b"{}"}),
    "end of file mark": (wire.EOF, b"\x00", {"type": 0}),
    "subsection": (
        wire.SUBSECTION_HEADER,
        b"\x05" + pstring("cpu/fpu") + be(1, 4),
        {"type": 5, "name": b"cpu/fpu", "version_id": 1},
    ),
    "configuration": (wire.CONFIGURATION, b"\x07" + be(2, 4) + b"pc", {"type": 7, "name": b"pc"}),
    "page bits": (
        wire.CONFIGURATION_SUBSECTIONS[b"configuration/target-page-bits"],
        b"\x05" + pstring("configuration/target-page-bits") + be(1, 4) + be(12, 4),
        {"type": 5, "name": b"configuration/target-page-bits", "version_id": 1, "page_bits": 12},
    ),
    "capabilities": (
        wire.CONFIGURATION_SUBSECTIONS[b"configuration/capabilities"],
        b"\x05" + pstring("configuration/capabilities") + be(1, 4) + be(2, 4) + pstring("a") + pstring("bc"),
        {"type": 5, "name": b"configuration/capabilities", "version_id": 1, "capabilities": [b"a", b"bc"]},
    ),
    "uuid": (
        wire.CONFIGURATION_SUBSECTIONS[b"configuration/uuid"],
        b"\x05" + pstring("configuration/uuid") + be(1, 4) + UUID,
        {"type": 5, "name": b"configuration/uuid", "version_id": 1, "uuid": UUID},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_records_parse_and_build(case: str) -> None:
    fmt, data, value = CASES[case]
    record = wire.parse(fmt, memoryview(b"??" + data + b"behind it"), 2, case)
    assert {k: v for k, v in record.value.items() if not k.startswith("_")} == value
    assert (record.offset, record.size, record.end) == (2, len(data), 2 + len(data))
    assert fmt.build(value) == record.build() == data


@pytest.mark.parametrize("case", CASES)
def test_a_record_cut_short_says_where_and_what_was_expected(case: str) -> None:
    fmt, data, _ = CASES[case]
    for size in {0, 1, len(data) // 2, len(data) - 1} - {len(data)}:
        with pytest.raises(StreamError) as caught:
            wire.parse(fmt, memoryview(b"??" + data[:size]), 2, case)
        assert (caught.value.offset, caught.value.expected) == (2, case)


def test_another_record_than_expected() -> None:
    with pytest.raises(StreamError, match="found 0x7f") as caught:
        wire.parse(wire.SECTION_FOOTER, memoryview(b"\x7f" + be(2, 4)), 0, "a footer")
    assert caught.value.expected == "a footer"


def test_a_length_is_not_believed_before_the_bytes_are_seen() -> None:
    for fmt, start in ((wire.CONFIGURATION, b"\x07"), (wire.VMDESCRIPTION, b"\x06")):
        with pytest.raises(StreamError):
            wire.parse(fmt, memoryview(start + be(0xFFFF_FFFF, 4) + b"short"), 0, "a record")
    with pytest.raises(StreamError, match="a length that cannot be"):
        wire.parse(wire.CONFIGURATION, memoryview(b"\x07" + be(1 << 20, 4) + bytes(1 << 21)), 0, "a configuration")


def test_the_configuration_of_a_stream() -> None:
    stream = toy(machine="pc-q35-11.1", page_bits=12, capabilities=["x-ignore-shared", "mapped-ram"], uuid=UUID)
    with vt.open(stream.finish(vmdesc=False)[:200], partial=True) as opened:
        assert opened.configuration == {
            "name": "pc-q35-11.1",
            "page_bits": 12,
            "capabilities": ["x-ignore-shared", "mapped-ram"],
            "uuid": UUID,
        }
        assert (opened.machine, opened.page_size) == ("pc-q35-11.1", 4096)


def test_commands_stand_between_sections() -> None:
    stream = Writer(machine="toy-1.0")
    stream.command(1)
    stream.command(2, be(1, 4))
    stream.full("toy", Vmsd("toy", [u32("a", 1)]))
    stream.command(99, b"of a later release")
    data = stream.finish()
    with vt.open(data) as opened:
        assert [(c.value.command, bytes(c.value.data)) for c in opened.commands] == [
            (1, b""),
            (2, be(1, 4)),
            (99, b"of a later release"),
        ]
        frame = opened.coverage()
        assert frame.loc[frame["what"] == "command", "detail"].tolist() == ["OPEN_RETURN_PATH", "PING", "command 99"]
        assert opened.build() == data


def test_names_that_are_no_utf8_show_as_escapes() -> None:
    assert wire.name(b"pci\xff") == "pci\\xff"
