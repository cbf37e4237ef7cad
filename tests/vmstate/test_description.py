from __future__ import annotations

import json
from typing import Any

import pytest
from writer import Vmsd, Writer, buffer, struct, toy, u8, u32

import vmstate_tools as vt
from vmstate_tools.errors import StreamError
from vmstate_tools.vmstate.description import FieldDescription, find_vmdesc, read_vmdesc


def one(*fields: dict[str, Any], **more: Any) -> Any:
    """The one device of a vmdesc with these fields."""
    device = {"name": "toy", "instance_id": 0, "vmsd_name": "toy", "version": 1, "fields": list(fields), **more}
    (found,) = read_vmdesc(json.dumps({"page_size": 4096, "devices": [device]}).encode()).devices
    return found


def entry(name: str, size: int = 1, type_: str = "uint8", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "size": size, **more}


def test_both_ways_qemu_has_printed_it() -> None:
    pretty = b'{ "page_size" : 4096, "devices" : [ { "name" : "timer", "instance_id" : 0, "vmsd_name" : "timer", '
    pretty += b'"version" : 2, "fields" : [ { "name" : "ticks", "type" : "int64", "size" : 8 } ] } ] }'
    compact = pretty.replace(b" : ", b": ").replace(b"[ ", b"[").replace(b" ]", b"]").replace(b" }", b"}")
    for text in (pretty, compact):
        description = read_vmdesc(text)
        (device,) = description.devices
        assert (description.page_size, description.size) == (4096, len(text))
        assert (device.idstr, device.instance_id, device.origin, device.opaque) == ("timer", 0, "vmdesc", False)
        assert (device.vmsd.name, device.vmsd.version_id) == ("timer", 2)
        assert device.vmsd.fields == (FieldDescription("ticks", "int64", 8),)


def test_the_same_text_is_read_once() -> None:
    text = toy().vmdesc()
    assert read_vmdesc(text) is read_vmdesc(bytes(bytearray(text)))


def test_instance_ids_are_unsigned_however_they_were_printed() -> None:
    assert one(instance_id=-2147483648).instance_id == 0x8000_0000  # up to 5.2
    assert one(instance_id=0x8000_0000).instance_id == 0x8000_0000


def test_a_device_registered_by_hand_is_one_buffer() -> None:
    text = b'{"devices": [{"name": "slirp", "instance_id": 0, "size": 3, "fields": [%s]}]}'
    (device,) = read_vmdesc(text % json.dumps(entry("data", 3, "buffer")).encode()).devices
    assert device.opaque
    assert (device.vmsd.name, device.vmsd.size) == ("slirp", 3)


def test_arrays() -> None:
    compressed, *elements = one(
        entry("a", 4, "uint32", array_len=1024), entry("b", index=0), entry("b", index=1)
    ).vmsd.fields
    assert (compressed.count, compressed.index, compressed.label) == (1024, None, "a")
    assert [(f.count, f.index, f.label) for f in elements] == [(None, 0, "b[0]"), (None, 1, "b[1]")]


def test_an_array_of_pointers_in_pieces_is_one_array() -> None:
    # Since 10.0 (commit 35049eb0d2) runs of NULLs and of elements have an entry each, of the same name.
    inner = {"vmsd_name": "x", "version": 1, "fields": [entry("y", 2, "uint16")]}
    device = one(
        entry("css", 1, "nullptr", array_len=2),
        entry("css", 2, "struct", struct=inner),
        entry("css", 1, "nullptr", array_len=3),
        entry("after"),
    )
    assert [(f.label, f.type, f.size) for f in device.vmsd.fields] == [
        ("css[0]", "nullptr", 1),
        ("css[1]", "nullptr", 1),
        ("css[2]", "struct", 2),
        ("css[3]", "nullptr", 1),
        ("css[4]", "nullptr", 1),
        ("css[5]", "nullptr", 1),
        ("after", "uint8", 1),
    ]


def test_structs_nest_in_the_field_or_in_its_struct() -> None:
    inner = {"vmsd_name": "x", "version": 3, "fields": [entry("y")]}
    plain, with_tmp = one(entry("s", 1, "struct", struct=inner), entry("t", 1, "tmp", **inner)).vmsd.fields
    assert plain.struct == with_tmp.struct
    assert plain.struct is not None
    assert (plain.struct.name, plain.struct.version_id) == ("x", 3)


def test_checked_fields_are_known_by_their_type() -> None:
    assert [f.equal for f in one(entry("a", 8, "int64 equal"), entry("b", 8, "uint64")).vmsd.fields] == [True, False]


def test_sections_that_repeat_keep_their_order() -> None:
    stream = Writer()
    for value in (1, 2):
        stream.full("pci", Vmsd("pci", [u8("a", value), buffer("b", bytes(value))]))
    by_section = read_vmdesc(stream.vmdesc()).by_section()
    assert [d.vmsd.size for d in by_section["pci", 0]] == [2, 3]
    with vt.open(stream.finish()) as opened:
        assert [s.payload_size for s in opened.sections] == [2, 3]
        assert opened.fields()["value"].tolist() == [1, b"\0", 2, b"\0\0"]


def test_sizes_add_up() -> None:
    vmsd = Vmsd("toy", [u32("a", 1, 2), struct("s", *[Vmsd("x", [u8("b", 1)])] * 3)], [Vmsd("toy/more", [u8("c", 1)])])
    assert one(**vmsd.json()).vmsd.size == len(vmsd.data()) == 8 + 3 + (2 + 8 + 4) + 1


def test_where_the_vmdesc_stands() -> None:
    data = toy().finish()
    place = find_vmdesc(memoryview(data))
    assert place is not None
    offset, size = place
    assert data[offset] == 6
    assert json.loads(data[offset + 5 :]) == json.loads(toy().vmdesc())
    assert offset + size == len(data)
    # It need not be last, and what only looks like one is none.
    assert find_vmdesc(memoryview(data + bytes(4096))) == place
    assert find_vmdesc(memoryview(data[:-1])) is None


@pytest.mark.parametrize("end", [b"\x06}", b"\x06{}", b"\x06\x00\x00\x00\x00}", b"\x06\xff\xff\xff\xff{}"])
def test_a_record_too_short_for_its_length_is_no_vmdesc(end: bytes) -> None:
    assert find_vmdesc(memoryview(b"QEVM\x00\x00\x00\x03" + end)) is None
    assert find_vmdesc(memoryview(toy().finish(vmdesc=False))) is None
    assert find_vmdesc(memoryview(b"")) is None
    stream = Writer()
    stream.full("toy", Vmsd("toy", [buffer("a", b"\x06\x00\x00\x00\x02{}\x06\x00\x00\x00\x03{}}")]))
    data = stream.finish()
    assert find_vmdesc(memoryview(data)) == (len(data) - len(stream.vmdesc()) - 5, len(stream.vmdesc()) + 5)


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"[]",
        b'{"devices": [{}]}',
        b'{"page_size": 3, "devices": []}',
        b'{"page_size": NaN, "devices": []}',  # RFC 8259 has no NaN and no infinities
        b'{"devices": [], "more": [-Infinity]}',
        b'{"devices": [{"name": "x", "instance_id": ' + b"9" * 5000 + b', "fields": []}]}',
        b'{"devices": ' + b"[" * 100_000,
        '{"devices": []}'.encode("utf-16"),
    ],
)
def test_what_is_no_vmdesc_is_refused(text: bytes) -> None:
    with pytest.raises(StreamError):
        read_vmdesc(text)
