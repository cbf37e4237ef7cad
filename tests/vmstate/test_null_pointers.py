"""Arrays of pointers with NULLs, by vmdescs of before 10.0, which describe all elements like the first."""

from __future__ import annotations

from typing import Any

import pytest
from writer import Field, Vmsd, Writer, be, pstring, u8, u32

import vmstate_tools as vt
from vmstate_tools.errors import StreamError

ELEMENT = Vmsd("element", [u32("x", 0), u8("y", 0)])


def holed(pattern: str, claimed: Field, name: str = "toy") -> bytes:
    """A stream of one section: a word, then an element for each 'x' of the pattern and a NULL for each '0'."""
    stream = Writer(machine="toy-1.0")
    section_id = stream.begin(4, name, 0, 1)
    stream.data += be(0xCAFE, 4)
    for i, what in enumerate(pattern):
        stream.data += b"0" if what == "0" else be(0x100 + i, 4) + be(i, 1)
    stream.data += be(0xF00D, 4)
    stream.footer(section_id)
    fields = [u32("before", 0).json(), claimed.json(), u32("after", 0).json()]
    stream.devices.append({"name": name, "instance_id": 0, "vmsd_name": name, "version": 1, "fields": fields})
    return stream.finish()


def array(count: int, **more: Any) -> Field:
    return Field("all", "struct", b"", 5, {"array_len": count, "struct": ELEMENT.json(), **more})


@pytest.mark.parametrize("pattern", ["x0x", "xx0", "x00000", "0x0x", "xxx"])
def test_the_bytes_tell_where_the_holes_are(pattern: str) -> None:
    data = holed(pattern, array(len(pattern)))
    with vt.open(data) as stream:
        assert (stream.value("toy", "before"), stream.value("toy", "after")) == (0xCAFE, 0xF00D)
        values = stream.fields().set_index("path")["value"].to_dict()
        for i, what in enumerate(pattern):
            if what == "0":
                assert values[f"all[{i}]"] == ord("0")
            else:
                assert (values[f"all[{i}].x"], values[f"all[{i}].y"]) == (0x100 + i, i)
        assert stream.coverage()["size"].sum() == len(data)
        assert stream.build() == data


def test_what_no_hole_explains_is_refused() -> None:
    with (
        pytest.raises(StreamError, match="described, then no end of a section") as caught,
        vt.open(holed("xxx", array(2))) as stream,
    ):
        _ = stream.sections
    assert caught.value.section == "toy/0"


def test_streams_with_the_same_holes_share_what_is_derived(tmp_path: Any) -> None:
    for i, pattern in enumerate(["x0x", "xx0", "x0x", "xx0"]):
        (tmp_path / f"{i}.mig").write_bytes(holed(pattern, array(3)))
    frames = []
    for i in range(4):
        with vt.open(tmp_path / f"{i}.mig") as stream:
            frames.append(stream.fields())
    assert frames[0].equals(frames[2])
    assert frames[1].equals(frames[3])
    assert frames[0]["path"].tolist() != frames[1]["path"].tolist()
    # Loaded together as well, each keeps its own.
    fields = vt.load(tmp_path).fields
    for i in range(4):
        own = fields.iloc[i * 7 : (i + 1) * 7]
        assert own["path"].astype(str).tolist() == frames[i]["path"].tolist()
        assert own["value"].tolist() == frames[i]["value"].tolist()


def test_an_element_known_only_from_qemu() -> None:
    # hw/s390x/css.c: where the first channel subsystem image is NULL, the vmdesc shows no field of it.
    stream = Writer(machine="s390-ccw-virtio-2.11")
    section_id = stream.begin(4, "s390_css", 0, 1)
    image = bytes(range(256)) * 3
    stream.data += b"0" * 254 + image + b"0" + b"\1"
    stream.footer(section_id)
    empty = {"vmsd_name": "s390_css_img", "version": 1, "fields": []}
    fields = [
        {"name": "css", "type": "struct", "size": 1, "array_len": 256, "struct": empty},
        {"name": "default_cssid", "type": "uint8", "size": 1},
    ]
    entry = {"name": "s390_css", "instance_id": 0, "vmsd_name": "s390_css", "version": 1, "fields": fields}
    with vt.open(stream.finish({"page_size": 4096, "devices": [entry]})) as opened:
        assert opened.value("s390_css", "css[254].chpids[1].type") == image[4]
        assert opened.value("s390_css", "css[255]") == ord("0")
        assert opened.value("s390_css", "default_cssid") == 1
        assert opened.build() == bytes(opened.source.view)


def test_a_marker_byte_is_a_number() -> None:
    field = Field("ptr", "ptr-marker", b"1", 1)
    stream = Writer(machine="toy-1.0")
    stream.full("toy", Vmsd("toy", [field, u8("a", 3)]))
    assert pstring("toy") in stream.data
    with vt.open(stream.finish()) as opened:
        assert opened.value("toy", "ptr") == ord("1")
