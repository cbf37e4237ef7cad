from __future__ import annotations

import pytest
from writer import Vmsd, Writer, be, buffer, pstring, toy

import vmstate_tools as vt
from vmstate_tools.stream.section_end import end_of_opaque, is_header


def header(idstr: str = "toy", section_id: int = 2, version: int = 1) -> bytes:
    return b"\x04" + be(section_id, 4) + pstring(idstr) + be(0, 4) + be(version, 4)


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (header(), True),
        (header("0000:00:01.0/cirrus_vga"), True),
        (header(section_id=1 << 20), False),
        (header(version=1 << 20), False),
        (header("t\x01y"), False),
        (header("t\xe9y"), False),
        (header()[:-1], False),
        (header()[:6], False),
        (header()[:3], False),
    ],
)
def test_what_could_be_a_header(data: bytes, answer: bool) -> None:
    assert is_header(memoryview(b"?" + data), 1) is answer


def test_the_footer_tells() -> None:
    payload = b"\x7e" + be(2, 4) + b"\x55" + header()  # a footer that nothing follows, and what looks like a header
    data = payload + b"\x7e" + be(2, 4) + b"\x04"
    assert end_of_opaque(memoryview(data), 0, 2, footers=True, seen=[]) == (len(payload), "footer")


def test_a_footer_of_another_section_does_not() -> None:
    data = b"ab\x7e" + be(3, 4) + b"cd\x7e" + be(2, 4) + b"\0"
    assert end_of_opaque(memoryview(data), 0, 2, footers=True, seen=[]) == (9, "footer")


def test_the_next_header_tells_where_there_are_no_footers() -> None:
    data = b"payload" + header(section_id=3) + b"more"
    assert end_of_opaque(memoryview(data), 0, 2, footers=False, seen=[2]) == (7, "next header")
    # A section that was started before does not start again.
    assert end_of_opaque(memoryview(data), 0, 2, footers=False, seen=[2, 3])[1] == "end of file mark"


def test_the_end_tells_the_last() -> None:
    data = b"payload\0"
    assert end_of_opaque(memoryview(data), 0, 2, footers=False, seen=[2]) == (7, "end of file mark")


@pytest.mark.parametrize("footers", [True, False], ids=["footers", "no footers"])
def test_undescribed_sections_are_shown_whole(footers: bool) -> None:
    stream = Writer(machine="toy-1.0", footers=footers)
    payloads = {"one": b"\x01first", "two": b"second\x04", "three": b"third"}
    for name, payload in payloads.items():
        stream.full(name, Vmsd(name, [buffer("data", payload)]))
    data = stream.finish(vmdesc=False)
    with vt.open(data) as opened:
        assert [(s.idstr, s.how) for s in opened.sections] == [(name, "opaque") for name in payloads]
        assert opened.fields()["value"].tolist() == list(payloads.values())
        assert set(opened.fields()["type"]) == {"opaque"}
        frame = opened.coverage()
        assert frame.loc[frame["what"] == "opaque", "size"].tolist() == [len(p) for p in payloads.values()]
        assert frame["size"].sum() == len(data)
        assert opened.build() == data


def test_a_borrowed_description_replaces_the_guess() -> None:
    with vt.open(toy().finish()) as described, vt.open(toy().finish(vmdesc=False), description=described) as bare:
        assert {s.how for s in bare.sections} == {"ram", "borrowed"}
        assert bare.fields().equals(described.fields())
