"""Input that is not what it must be: StreamError, saying file, offset, section and expectation; never anything else."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import captures as real
import pytest
from writer import Vmsd, Writer, be, toy, u8, u32

import vmstate_tools as vt
from vmstate_tools.errors import StreamError


def everything(data: bytes | Path, **options: Any) -> StreamError | None:
    """All of a stream that a user may ask for; the error of one opened with `partial=True`."""
    with vt.open(data, **options) as stream:
        frame = stream.coverage()
        assert frame["size"].sum() == len(stream.source.view)
        stream.fields()
        assert stream.build() == bytes(stream.source.view)
        str(stream), stream.machine, stream.page_size, stream.commands, stream.ram.blocks, stream.ram.pages
        return stream.error


def refused(data: bytes, **options: Any) -> StreamError:
    with pytest.raises(StreamError) as caught:
        everything(data, **options)
    assert caught.value.file
    assert str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"#!/bin/sh\necho 'no stream'\n",
        b"QEVM",
        b"QEV\0\0\0\0\3",
        b"QEVM\0\0\0\4\0",
        random.Random(1).randbytes(100_000),
        bytes(100_000),
        b"\xff" * 1000,
    ],
    ids=["empty", "newline", "text", "magic only", "other magic", "version 4", "random", "zeros", "ones"],
)
def test_no_stream_at_all(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "input.mig"
    file.write_bytes(data)
    for options in ({}, {"partial": True}):
        with pytest.raises(StreamError) as caught:
            everything(file, **options)
        assert caught.value.file == str(file)
        assert caught.value.offset in (0, 4)
        assert caught.value.expected


def test_the_obsolete_version_is_named() -> None:
    error = refused(b"QEVM\0\0\0\2" + bytes(100))
    assert error.offset == 4
    assert "version 2" in error.message


# -- cut short --------------------------------------------------------------------------------------------------------


def cut_everywhere(data: bytes, cuts: list[int]) -> None:
    """At each cut: an error at or before the cut; with `partial`, all sections that end before it, with all bytes."""
    with vt.open(data) as stream:
        ends = [(s.offset + s.size, s.label) for s in stream.sections]
        description = stream.vmdesc
    for cut in cuts:
        try:
            with vt.open(data[:cut]) as stream:
                # Nothing tells that it was cut: no footer, no description, and its last byte could be the end mark.
                assert (stream.sections[-1].how, data[cut - 1]) == ("opaque", 0), cut
                assert not any(s.footer for s in stream.sections)
        except StreamError as error:
            assert error.offset is not None and error.offset <= cut
            assert error.file
        if cut < 8:
            continue
        with vt.open(data[:cut], partial=True, description=description) as stream:
            whole = [label for at, label in ends if at <= cut]
            labels = [s.label for s in stream.sections]
            assert labels[: len(whole)] == whole, cut
            # The one that was cut shows as well where it is not known to be longer; its footer never does.
            assert not any(s.footer for s in stream.sections[len(whole) :])
            assert len(labels) <= len(whole) + 1
            if stream.error is None:
                assert (stream.sections[-1].how, data[cut - 1]) == ("opaque", 0), cut
            else:
                assert stream.error.offset is not None and stream.error.offset <= cut
            assert not any(s.how == "opaque" for s in stream.sections[: len(whole)]), cut
            assert b"".join(stream.chunks()) == data[:cut]


@pytest.mark.parametrize("footers", [True, False], ids=["footers", "no footers"])
def test_cut_at_every_byte(footers: bool) -> None:
    data = toy(footers=footers, page_size=1024, page_bits=10).finish()
    with vt.open(data) as stream:
        assert stream.vmdesc is not None
        end = len(data) - stream.vmdesc.size - 5  # cut here it is whole, and has no vmdesc
    cut_everywhere(data, [n for n in range(len(data)) if n != end])


@pytest.mark.parametrize(
    "file",
    [
        "qemu-2.5.0/g3beige/g4.mig.zst",
        "qemu-11.1/s390-ccw-virtio-9.0/qemu.mig.zst",
        "qemu-2.6.0/pseries-2.5/POWER7_v2.3+ran.mig.zst",
    ],
)
def test_real_streams_cut(file: str) -> None:
    with vt.open(real.capture(file)) as stream:
        data = bytes(stream.source.view)
        borders = {0, 8, *(at for s in stream.sections for at in (s.offset, s.payload_offset, s.payload_end))}
        vmdesc = len(data) - (stream.vmdesc.size if stream.vmdesc else 0) - 5
    near = {at + d for at in borders for d in (-1, 0, 1)}
    step = set(range(0, len(data), len(data) // 150))
    cut_everywhere(data, sorted(at for at in (near | step) - {vmdesc} if 0 <= at < len(data)))


def test_a_cut_section_ends_cleanly() -> None:
    data = toy().finish()
    with vt.open(data) as whole:
        second, description = whole.section("toy"), whole.vmdesc
    with vt.open(data[: second.payload_offset + 6], partial=True, description=description) as stream:
        assert [s.idstr for s in stream.sections] == ["ram", "ram", "ram", "timer"]
        assert stream.value("timer", "ticks[0]") == 1 << 63
        assert stream.ram.read("toy.ram", 0, 4096) == b"\xaa" * 4096
        assert stream.error is not None
        assert stream.error.section == "toy/2147483648"
        last = stream.coverage().iloc[-1]
        assert (last["what"], last["offset"]) == ("not read", second.offset)


def test_a_cut_stream_without_any_description_shows_what_its_footers_bound() -> None:
    data = toy().finish()
    with vt.open(data[:-100], partial=True) as stream:
        assert [s.idstr for s in stream.sections][3:] == ["timer", "toy", "byhand", "toy"]
        assert stream.section("byhand").how == "opaque"
        assert stream.section("byhand").bounded_by == "footer"
        assert stream.fields("byhand")["value"].tolist() == [b"\1\2\3"]


# -- records that contradict each other -------------------------------------------------------------------------------


def test_a_section_that_was_never_started() -> None:
    stream = toy()
    at = len(stream.data)
    stream.data += b"\x02" + be(77, 4) + b"anything"
    error = refused(stream.finish())
    assert (error.offset, error.message) == (at, "section id 77 was never started")
    assert error.expected is not None and "0" in error.expected


def test_the_footer_of_another_section() -> None:
    stream = Writer(machine="toy-1.0")
    stream.full("toy", Vmsd("toy", [u32("a", 1)]))
    stream.footers = False
    stream.full("more", Vmsd("more", [u32("a", 1)]))
    stream.data += b"\x7e" + be(0, 4)
    error = refused(stream.finish())
    assert error.section == "more/0"
    assert error.offset is not None and error.expected


def test_a_footer_that_is_missing() -> None:
    stream = Writer(machine="toy-1.0")
    stream.full("toy", Vmsd("toy", [u32("a", 1)]))
    stream.footers = False
    stream.full("more", Vmsd("more", [u32("a", 1)]))
    error = refused(stream.finish())
    assert error.section == "more/0"


def test_a_record_of_unknown_kind() -> None:
    stream = Writer(machine="toy-1.0")
    at = len(stream.data)
    stream.data += b"\x55"
    error = refused(stream.finish())
    assert (error.offset, error.message) == (at, "found 0x55")


def test_a_ram_section_in_one_piece() -> None:
    stream = Writer(machine="toy-1.0")
    at = len(stream.data)
    stream.full("ram", Vmsd("ram", [u32("a", 1)]))
    error = refused(stream.finish())
    assert (error.offset, error.section) == (at, "ram/0")


@pytest.mark.parametrize("bits", [0, 7, 31, 0xFFFF_FFFF])
def test_page_bits_that_cannot_be(bits: int) -> None:
    data = toy(page_bits=bits).finish(vmdesc=False)
    error = refused(data)
    assert (error.section, error.offset) == ("configuration", 20)
    with vt.open(data, partial=True) as stream:
        assert stream.machine == "toy-1.0"
        assert stream.sections == []


def test_a_configuration_subsection_nobody_knows() -> None:
    stream = Writer(machine="toy-1.0")
    stream.data += b"\x05" + bytes([15]) + b"configuration/x" + be(1, 4)
    assert "configuration/x" in refused(stream.finish()).message


def test_a_machine_name_longer_than_the_stream() -> None:
    error = refused(b"QEVM\0\0\0\3\x07" + be(0xFFFF_FFFF, 4) + b"pseries")
    assert error.offset == 8


def test_two_streams_in_one_file_and_what_follows_the_end() -> None:
    data = toy().finish()
    with vt.open(data + b"trailing") as stream:
        last = stream.coverage().iloc[-1]
        assert (last["what"], last["size"]) == ("behind the stream", 8)
        assert stream.value("byhand", "data") == b"\1\2\3"


# -- descriptions that contradict the stream --------------------------------------------------------------------------


def described(payload: bytes, fields: Any, subsections: Any = (), **more: Any) -> bytes:
    """A stream of one section whose vmdesc says this of it."""
    stream = Writer(machine="toy-1.0")
    section_id = stream.begin(4, "toy", 0, 1)
    stream.data += payload
    stream.footer(section_id)
    entry = {"name": "toy", "instance_id": 0, "vmsd_name": "toy", "version": 1, "fields": fields}
    return stream.finish({"page_size": 4096, "devices": [{**entry, "subsections": subsections, **more}]})


def entry(name: str, size: Any, type_: str = "uint8", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "size": size, **more}


def inner(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"vmsd_name": "inner", "version": 1, "fields": list(fields)}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"no JSON",
        b'{"devices": [}',
        b"[]",
        b"{}",
        b"null",
        b'{"devices": 7}',
        b'{"devices": [7]}',
        b"\xff{}",
    ],
    ids=repr,
)
def test_a_vmdesc_that_is_none(text: bytes) -> None:
    stream = toy()
    end = len(stream.data)
    error = refused(stream.finish(text))
    assert error.offset is not None and error.offset >= end
    assert error.expected
    assert everything(stream.data + b"\0\x06" + be(len(text), 4) + text, partial=True) is not None


@pytest.mark.parametrize(
    "device",
    [
        {},
        {"name": "toy"},
        {"name": 7, "instance_id": 0, "fields": []},
        {"name": "toy", "instance_id": "0", "fields": []},
        {"name": "toy", "instance_id": 1 << 40, "fields": []},
        {"name": "toy", "instance_id": 0, "fields": 7},
        {"name": "toy", "instance_id": 0, "fields": ["a"]},
        {"name": "toy", "instance_id": 0, "fields": [{}]},
        {"name": "toy", "instance_id": 0, "fields": [{"name": "a", "type": "uint8"}]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", -1)]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1.5)]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1 << 100)]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1, array_len=-1)]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1, index="x")]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1, "struct", struct=7)]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1)], "subsections": 7},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1)], "subsections": [7]},
        {"name": "toy", "instance_id": 0, "fields": [entry("a", 1)], "version": "1"},
    ],
    ids=json.dumps,
)
def test_a_vmdesc_of_another_shape(device: dict[str, Any]) -> None:
    stream = toy()
    end = len(stream.data)
    error = refused(stream.finish({"page_size": 4096, "devices": [device]}))
    assert error.offset == end + 6
    assert "devices with name, instance_id and fields" in str(error.expected)


@pytest.mark.parametrize("page_size", [0, -4096, 1000, "4096", 1 << 70])
def test_a_vmdesc_with_a_page_size_that_cannot_be(page_size: Any) -> None:
    refused(toy().finish({"page_size": page_size, "devices": []}))


@pytest.mark.parametrize(
    ("payload", "fields", "message"),
    [
        (b"1234", [entry("a", 5)], "5 bytes described, then no end of a section"),
        (b"1234", [entry("a", 3)], "3 bytes described, then no end of a section"),
        (b"1234", [entry("a", 1, array_len=1 << 31)], "its description claims 2147483648 bytes"),
        (b"1234", [entry("a", 1 << 40, array_len=1 << 40)], "its description claims"),
        (b"1234", [entry("a", 4, "struct", struct=inner(entry("b", 3)))], "struct a is said to have 4 bytes"),
        (b"1234", [entry("a", 2, "struct", array_len=2, struct=inner(entry("b", 4)))], "struct a[0] is said to have 2"),
        (b"1234", [entry("a", 4, "struct", struct=inner(entry("b", 1, array_len=1 << 40)))], "field a.b claims"),
    ],
    ids=["more", "less", "2^31 elements", "2^80 bytes", "struct of less", "array of more", "struct of much more"],
)
def test_a_description_that_does_not_fit(payload: bytes, fields: Any, message: str) -> None:
    data = described(payload, fields)
    error = refused(data)
    assert message in error.message
    assert error.section == "toy/0"
    assert error.offset is not None and error.offset >= 20
    assert error.expected
    everything(data, partial=True)


def test_a_subsection_that_is_not_there() -> None:
    sub = {"vmsd_name": "toy/sub", "version": 1, "fields": [entry("b", 1)]}
    header = b"\x05\x07toy/sub" + be(1, 4)
    everything(described(b"a" + header + b"b", [entry("a", 1)], [sub]))
    error = refused(described(b"a" + bytes(len(header)) + b"b", [entry("a", 1)], [sub]))
    assert error.expected == "subsection 'toy/sub' version 1"
    assert (error.section, error.offset) == ("toy/0", 37 + 1)
    other_version = b"\x05\x07toy/sub" + be(2, 4)
    assert "version 1" in str(refused(described(b"a" + other_version + b"b", [entry("a", 1)], [sub])).expected)


BOUNDED = {
    "nested structs": lambda: (
        b'{"devices": [{"name": "toy", "instance_id": 0, "fields": [%s'
        % (b'{"name": "a", "type": "struct", "size": 1, "struct": {"fields": [' * 1_000_000)
    ),
    "elements of one array in pieces": lambda: [entry("a", 0, array_len=65536)] * 10_000,
    "structs with fields of no size": lambda: [
        entry(
            "a", 1, "struct", array_len=10_000, struct=inner(entry("b", 1), *(entry(f"c{i}", 0) for i in range(2000)))
        )
    ],
    "a name that repeats": lambda: [entry("a" * 1_000_000, 1, "struct", array_len=10_000, struct=inner(entry("b", 1)))],
    "arrays that may have holes": lambda: [
        entry(f"a{i}", 1, "struct", array_len=5000, struct=inner(entry("b", 1))) for i in range(1000)
    ],
}


@pytest.mark.parametrize("what", BOUNDED)
def test_time_and_memory_stay_in_proportion(what: str) -> None:
    fields = BOUNDED[what]()
    data = toy().finish(fields) if isinstance(fields, bytes) else described(b"0" * 10_000, fields)
    tracemalloc.start()
    started = time.process_time()
    refused(data)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 15  # many times what it takes, with tracing on
    assert peak < 60 * len(data) + (128 << 20)


@pytest.mark.parametrize("depth", [2, 50, 64, 65, 300, 340, 500])
def test_structs_in_one_another(depth: int) -> None:
    field = json.dumps(entry("a", 1))
    for _ in range(depth - 1):
        field = f'{{"name": "in", "type": "struct", "size": 1, "struct": {{"vmsd_name": "x", "fields": [{field}]}}}}'
    stream = Writer(machine="toy-1.0")
    stream.full("toy", Vmsd("toy", [u8("a", 7)]), described=False)
    device = f'{{"name": "toy", "instance_id": 0, "vmsd_name": "toy", "version": 1, "fields": [{field}]}}'
    data = stream.finish(f'{{"page_size": 4096, "devices": [{device}]}}'.encode())
    if depth <= 64:
        with vt.open(data) as opened:
            assert opened.value("toy", "in." * (depth - 1) + "a") == 7
    else:
        refused(data)


def test_bytes_at_random() -> None:
    """Streams with some bytes changed: decoded, or refused with a StreamError."""
    rng = random.Random(20160902)
    wholes = [
        toy().finish(),
        toy(machine=None, footers=False).finish(),
        toy(page_bits=12, capabilities=["x-ignore-shared"], uuid=bytes(16)).finish(vmdesc=False),
    ]
    refusals = 0
    for _ in range(600):
        data = bytearray(rng.choice(wholes))
        for _ in range(rng.choice([1, 1, 2, 5])):
            at = rng.randrange(8, len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randrange(1, 20)]
                case 2:
                    data[at:at] = rng.randbytes(rng.randrange(1, 9))
                case 3:
                    data[at : at + 4] = rng.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)])
        try:
            everything(bytes(data))
        except StreamError as error:
            refusals += 1
            assert error.file and str(error)
            try:
                everything(bytes(data), partial=True)
            except StreamError as error:  # RAM that was asked for, and cannot be made sense of
                assert error.file or "page size" in error.message
    assert 100 < refusals < 600


def test_errors_print_what_a_terminal_can_show() -> None:
    stream = Writer(machine="toy-1.0")
    stream.full("toy\x1b[31m", Vmsd("toy", [u32("a", 1)]))
    stream.devices[0]["fields"][0]["size"] = 99
    text = str(refused(stream.finish()))
    assert text.isprintable()
    assert "x1b[31m/0" in text
