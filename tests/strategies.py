"""Valid streams with something of every format in them, and mutations of streams: for hypothesis and for fuzzing.

`build` and `mutate` are plain functions of a `random.Random`, so that a fuzzer makes a hundred thousand quickly;
the strategies hand them hypothesis's Random, whose choices it records and shrinks.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ram_streams
import writer
from hypothesis import strategies as st
from writer import Field, Vmsd, be, pstring

from vmstate_tools.source import zstd

DATA = Path(__file__).parent / "data"
_STREAMS = DATA.parent.parent / "data" / "streams"

Random = random.Random

HOSTILE_NAME = "<script>alert(1)</script>\x1b[31m$x^2$\u202e"
_NAMES = ["toy", "cpu", "timer", "a/b", "x" * 200, "i8259"]
# Names for which there are built-in layouts and hand-written formats: what they meet here is noise, mostly.
_KNOWN = [
    *("cpu", "cpu_common", "timer", "i8254", "apic", "spapr", "spapr_iommu", "serial", "slirp", "piix4_pm", "vfio"),
    *("0000:00:00.0/virtio-net", "pci@800000020000000:01.0/virtio-blk", "todclock", "0000:00:02.0/ohci"),
]


# -- valid streams --------------------------------------------------------------------------------------------------


def build(rng: Random) -> bytes:
    """A valid stream."""
    capabilities = rng.choice([(), (), (), ("mapped-ram",), ("x-ignore-shared",)])
    machine = rng.choice([None, "pseries-2.6", "toy-1.0", HOSTILE_NAME.encode("ascii", "ignore").decode()])
    stream = writer.Writer(
        machine=machine,
        page_size=rng.choice([1024, 1024, 4096]),
        footers=rng.random() < 0.7,
        page_bits=rng.choice([None, 10, 12]) if machine else None,
        capabilities=capabilities if machine else (),
        uuid=rng.randbytes(16) if rng.random() < 0.2 else None,
    )
    if stream.page_bits is not None:
        stream.page_size = 1 << stream.page_bits
    for command, data in rng.sample([(1, b""), (2, be(1, 4)), (10, pstring("ram0")), (99, b"xy")], rng.randrange(3)):
        stream.command(command, data)
    if rng.random() < 0.7:
        _ram(stream, rng)
    mark = len(stream.data)
    for _ in range(rng.randrange(5)):
        rng.choice([_device, _device, _old_style, _handwritten, _undescribed])(stream, rng)
    if rng.random() < 0.1:  # as a switch to postcopy sends them
        package = bytes(stream.data[mark:])
        del stream.data[mark:]
        stream.command(7, be(len(package), 4))
        stream.data += package
    return stream.finish(vmdesc=rng.random() < 0.8)


def _ram(stream: writer.Writer, rng: Random) -> None:
    section_id = stream.begin(1, "ram", 0, 4)
    ram = ram_streams.Writer(page_size=stream.page_size)
    names = [b"pc.ram", b"/rom@etc/acpi", b"../../etc/x"][: rng.randrange(1, 4)]
    size = rng.choice([2, 8, 40]) * stream.page_size
    if "mapped-ram" in stream.capabilities:
        stream.data += _mapped(len(stream.data), names, size, stream.page_size, rng)
        stream.footer(section_id)
        stream.data += b"\x03" + be(section_id, 4) + ram_streams.be64(ram_streams.EOS)
        stream.footer(section_id)
        return
    if "x-ignore-shared" in stream.capabilities:
        ram.out += ram_streams.mem_size(*((name, size) for name in names), extra=be(1 << 40, 8))
        ram.memory = {name: bytearray(size) for name in names}
    else:
        ram.blocks(*((name, size) for name in names))
    ram.eos()
    stream.data += ram.out
    stream.footer(section_id)
    for kind in (2, 3):
        ram.out.clear()
        for _ in range(rng.randrange(12)):
            name, page = rng.choice(names), rng.randrange(size // stream.page_size) * stream.page_size
            content = rng.choice([bytes([rng.randrange(256)]), b"abcd"]) * stream.page_size
            match rng.randrange(5):
                case 0 | 1:
                    ram.zero(name, page, rng.choice([0, 0, 0, 7]))
                case 2:
                    ram.page(name, page, content[: stream.page_size])
                case 3:
                    ram.compressed(name, page, content[: stream.page_size])
                case 4:
                    ram.patched(name, page, rng.randrange(stream.page_size - 8), b"\xee" * 8)
        ram.eos()
        stream.data += be(kind, 1) + be(section_id, 4) + ram.out
        stream.footer(section_id)


def _mapped(start: int, names: list[bytes], size: int, page_size: int, rng: Random) -> bytes:
    """A block list with mapped-ram headers, bitmaps and pages; closer together than QEMU's 1 MiB."""
    out = ram_streams.be64(size * len(names) | ram_streams.MEM_SIZE)
    for name in names:
        out += ram_streams.named(name) + be(size, 8)
        bitmap = start + len(out) + 28
        words = -(-(size // page_size) // 64) * 8
        pages = -(-(bitmap + words) // page_size) * page_size
        out += struct.pack(">IQQQ", 1, page_size, bitmap, pages)
        present = rng.getrandbits(size // page_size)
        out += present.to_bytes(words, "little") + bytes(pages - bitmap - words)
        out += b"".join(bytes([1 + i & 0xFF if present >> i & 1 else 0]) * page_size for i in range(size // page_size))
    return out + ram_streams.be64(ram_streams.EOS)


def _vmsd(rng: Random, name: str, depth: int = 0) -> Vmsd:
    fields = [_field(rng, f"f{i}", depth) for i in range(rng.randrange(4))]
    subsections = [_vmsd(rng, f"{name}/s{i}", depth + 1) for i in range(rng.randrange(3))] if depth < 3 else []
    return Vmsd(name, fields, subsections, version=rng.randrange(5))


def _field(rng: Random, name: str, depth: int) -> Field:
    match rng.randrange(8):
        case 0:
            return writer.u8(name, *rng.randbytes(rng.choice([1, 3, 100])))
        case 1:
            return writer.u32(name, *(rng.getrandbits(32) for _ in range(rng.choice([1, 2, 32]))))
        case 2:
            return writer.u64(name, rng.getrandbits(64))
        case 3:
            type_ = rng.choice(["int32", "int64", "timer", "int32 equal"])
            return writer.number(name, type_, 4 if "32" in type_ else 8, rng.getrandbits(32))
        case 4:
            return writer.buffer(name, rng.randbytes(rng.randrange(40)), rng.choice(["buffer", "unused_buffer", "tmp"]))
        case 5:
            return writer.number(name, "bool", 1, rng.randrange(3), index=rng.randrange(4))
        case 6:
            return Field(name, "slbe", rng.randbytes(32), 16, {"array_len": 2})
        case _ if depth < 4:
            element = _vmsd(rng, name, depth + 1)
            return writer.struct(name, *[element] * rng.choice([1, 1, 3]))
    return writer.u8(name, 0)


def _device(stream: writer.Writer, rng: Random) -> None:
    # Without footers a section is found by what a header's name looks like.
    name = rng.choice([*_NAMES, "<script>alert(1)</script>\x1b[31m$x^2$"] if stream.footers else _NAMES)
    stream.full(name, _vmsd(rng, name), stream.next_id)


def _old_style(stream: writer.Writer, rng: Random) -> None:
    stream.old_style(rng.choice(["byhand", "virtio", "x"]), rng.randbytes(rng.randrange(60)), stream.next_id)


def _undescribed(stream: writer.Writer, rng: Random) -> None:
    payload = rng.choice([rng.randbytes(rng.randrange(300)), bytes(rng.randrange(3000)), b"\x05\x03cpu" * 20])
    stream.full(rng.choice(_KNOWN), Vmsd("", [writer.buffer("", payload)]), stream.next_id, described=False)


def _handwritten(stream: writer.Writer, rng: Random) -> None:
    idstr, parts = rng.choice(_handwritten_samples())
    section_id = stream.begin(1, idstr, 0, 1)
    for kind, payload in parts:
        if kind != 1:
            stream.data += be(kind, 1) + be(section_id, 4)
        stream.data += payload
        stream.footer(section_id)


@functools.cache
def _handwritten_samples() -> list[tuple[str, list[tuple[int, bytes]]]]:
    """Payloads of the formats that are code in QEMU: most of them written by QEMU."""

    def of(name: str) -> bytes:
        return ram_streams.unzst(DATA / "handwritten" / f"{name}.zst")

    htab = of("htab.part")
    keys = be(2, 8) + be(5, 8) + b"\x10\x20\x30\x40\x50" + be(1, 8)
    vfio = b"".join(be(0xFFFFFFFFEF100000 | tag, 8) for tag in (3, 1))
    return [
        ("spapr/htab", [(1, be(18, 4)), (2, htab), (3, htab)]),
        ("spapr/htab", [(1, b"\xff" * 4), (3, b"\xff" * 4)]),
        ("dirty-bitmap", [(1, of("dirty-bitmap.start")), (3, of("dirty-bitmap.end"))]),
        ("s390-skeys", [(1, be(1, 8)), (3, keys)]),
        ("s390-storage_attributes", [(1, be(1, 8)), (3, be(0x2002, 8) + be(3, 8) + b"abc" + be(1, 8))]),
        ("0000:00:04.0/vfio", [(1, vfio), (3, be(0xFFFFFFFFEF100001, 8))]),
    ]


@functools.cache
def samples(most: int = 1 << 20) -> tuple[bytes, ...]:
    """Streams of real QEMUs of at most so many bytes, their guest memory (zero pages, mostly) taken out."""
    out = []
    for path in [*sorted(_STREAMS.rglob("*.mig.zst")), *sorted((DATA / "virtio").glob("*.zst"))]:
        with path.open("rb") as file:
            data = zstd.reader(file).read(4 * most)
        if len(data) < 4 * most and len(data := without_ram(data)) <= most:
            out.append(data)
    return tuple(out)


def without_ram(data: bytes) -> bytes:
    """A stream without its page records: the framing and all device sections stay as they were."""
    try:
        _, payloads = ram_streams.find(data)
    except (AssertionError, IndexError, ValueError, KeyError):
        return data
    for start, end in reversed(payloads[1:]):
        data = data[:start] + ram_streams.be64(ram_streams.EOS) + data[end:]
    return data


@functools.cache
def _connections(name: str) -> tuple[bytes, ...]:
    return tuple(ram_streams.unzst(path) for path in sorted((DATA / "postcopy").glob(f"{name}.ch*.zst")))


def connections(rng: Random) -> list[bytes]:
    """A migration by postcopy, connection by connection, one of them mutated."""
    parts = list(_connections(rng.choice(["switched", "preempt", "resumed"])))
    which = rng.randrange(len(parts))
    parts[which] = mutate(rng, parts[which])
    return parts


# -- mutations ------------------------------------------------------------------------------------------------------


INTERESTING = [0, 1, 2, 4, 5, 6, 7, 8, 0x7E, 0x7F, 0x80, 0xFF, 0x1000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
_HUGE = [*INTERESTING, 1 << 31, 1 << 32, 1 << 48, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -1]


def mutate(rng: Random, data: bytes, times: int = 3) -> bytes:
    """The stream with one to `times` things changed."""
    for _ in range(rng.randrange(1, times + 1)):
        data = rng.choice(_MUTATIONS)(rng, data)
    return data


def _place(rng: Random, data: bytes) -> int:
    """A place in the data; often near its start, where the framing is dense, or where a record seems to begin."""
    match rng.randrange(4):
        case 0:
            return rng.randrange(min(len(data), 300) + 1)
        case 1:
            at = data.find(
                rng.choice([b"\x7e\0\0", b"\x04\0\0\0", b"\x05", b"\x06\0\0", b'{"']), rng.randrange(len(data) + 1)
            )
            return max(at, 0) + rng.randrange(20)
    return rng.randrange(len(data) + 1)


def flip(rng: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 8])):
        if out:
            out[min(_place(rng, data), len(out) - 1)] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    new = rng.randbytes(rng.choice([1, 2, 8]))
    return data[:at] + new + data[at + len(new) :]


def length_field(rng: Random, data: bytes) -> bytes:
    """A big-endian number of 1 to 8 bytes, of those that lengths and counts go wrong with."""
    size, at = rng.choice([1, 2, 4, 4, 8]), _place(rng, data)
    return data[:at] + be(rng.choice(_HUGE), size) + data[at + size :]


def cut(rng: Random, data: bytes) -> bytes:
    return data[: _place(rng, data)]


def drop(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice([1, 4, 5, rng.randrange(200)]) :]


def duplicate(rng: Random, data: bytes) -> bytes:
    at, size = _place(rng, data), rng.choice([1, 9, 40, rng.randrange(4000)])
    return data[:at] + data[at : at + size] * rng.choice([2, 2, 50]) + data[at + size :]


def splice(rng: Random, data: bytes) -> bytes:
    """A piece of the stream over, or between, another."""
    here, there, size = _place(rng, data), _place(rng, data), rng.randrange(400)
    return data[:here] + data[there : there + size] + data[here + rng.choice([0, size]) :]


def edit_vmdesc(rng: Random, data: bytes) -> bytes:
    """A change inside the vmdesc's JSON, with a length that fits it again, mostly."""
    start = data.rfind(b"\x06", 0, data.rfind(b'"devices"'))
    try:
        document = json.loads(data[start + 5 :])
    except ValueError:
        return flip(rng, data)
    if not isinstance(document, (dict, list)):
        return flip(rng, data)
    for _ in range(rng.choice([1, 1, 3])):
        _edit(rng, document)
    text = json.dumps(document).encode()
    length = len(text) if rng.random() < 0.95 else rng.choice(INTERESTING)
    return data[:start] + b"\x06" + be(length, 4) + text


def _edit(rng: Random, document: Any) -> None:
    """Change one object of a JSON document, reached by a walk of chance."""
    at = document
    for _ in range(rng.randrange(1, 8)):
        inner = [v for v in (at.values() if isinstance(at, dict) else at) if v and isinstance(v, (dict, list))]
        if not inner:
            break
        at = rng.choice(inner)
    if isinstance(at, list):
        match rng.randrange(4):
            case 0:
                at.insert(rng.randrange(len(at) + 1), json.loads(json.dumps(rng.choice(at))))
            case 1:
                at.pop(rng.randrange(len(at)))
            case 2:
                at[rng.randrange(len(at))] = _value(rng)
            case 3:
                rng.shuffle(at)
        return
    key = rng.choice([*at, "array_len", "size", "index", "struct", "subsections", "fields", "type", "vmsd_name"])
    match rng.randrange(5):
        case 0:
            at.pop(key, None)
        case 1 | 2:
            at[key] = rng.choice(_HUGE) if isinstance(at.get(key, 0), int) else _value(rng)
        case 3:
            if isinstance(at.get(key, 0), int):
                at[key] = at.get(key, 0) + rng.choice([-1, 1, 100])
        case 4:
            at[key] = json.loads(json.dumps(at))


_VALUES: list[Any] = [
    *(None, True, 1.5, "", "x", HOSTILE_NAME, [], {}, [{}], {"vmsd_name": "x", "version": 1, "fields": []}, "x" * 300),
    *("struct", "uint8", "tmp", "nullptr", "bool", "slbe", "buffer"),
]


def _value(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(_VALUES))  # a copy: what is inserted may be edited next


_MUTATIONS: list[Callable[[Random, bytes], bytes]] = [
    *(flip, overwrite, length_field, length_field, cut, drop, duplicate, splice, edit_vmdesc, edit_vmdesc, edit_vmdesc),
]


# -- hypothesis -----------------------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Valid streams."""
    return build(draw(st.randoms(use_true_random=False)))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Streams with something wrong."""
    rng = draw(st.randoms(use_true_random=False))
    return mutate(rng, build(rng))
