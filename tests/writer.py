"""Writes QEMU migration streams for tests, byte by byte, from nothing but the format's rules.

It shares no code with the package: what it writes is the other opinion.

    stream = Writer(machine="toy-1.0")
    stream.ram({"toy.ram": b"\\xaa" * 4096 + bytes(4096)})
    stream.full("toy", Vmsd("toy", [u32("a", 1), buffer("b", b"xyz")], [Vmsd("toy/sub", [u8("c", 2)])]))
    data = stream.finish()
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


def be(value: int, size: int) -> bytes:
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")


def pstring(text: str) -> bytes:
    raw = text.encode("latin-1")
    return be(len(raw), 1) + raw


@dataclass
class Field:
    """One entry of a vmdesc's `fields`, and its bytes."""

    name: str
    type: str
    data: bytes
    size: int  # of one element
    extra: dict[str, Any] = field(default_factory=dict)  # array_len, index, struct

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type, "size": self.size, **self.extra}


@dataclass
class Vmsd:
    name: str
    fields: Sequence[Field] = ()
    subsections: Sequence[Vmsd] = ()
    version: int = 1

    def data(self) -> bytes:
        own = b"".join(f.data for f in self.fields)
        return own + b"".join(b"\x05" + pstring(s.name) + be(s.version, 4) + s.data() for s in self.subsections)

    def json(self) -> dict[str, Any]:
        entry = {"vmsd_name": self.name, "version": self.version, "fields": [f.json() for f in self.fields]}
        return entry | ({"subsections": [s.json() for s in self.subsections]} if self.subsections else {})


def number(name: str, type_: str, size: int, *values: int, **extra: Any) -> Field:
    """One number, or an array of several described once."""
    if len(values) != 1:
        extra["array_len"] = len(values)
    return Field(name, type_, b"".join(be(v, size) for v in values), size, extra)


def u8(name: str, *values: int, **extra: Any) -> Field:
    return number(name, "uint8", 1, *values, **extra)


def u32(name: str, *values: int, **extra: Any) -> Field:
    return number(name, "uint32", 4, *values, **extra)


def u64(name: str, *values: int, **extra: Any) -> Field:
    return number(name, "uint64", 8, *values, **extra)


def buffer(name: str, data: bytes, type_: str = "buffer") -> Field:
    return Field(name, type_, data, len(data))


def struct(name: str, *elements: Vmsd, type_: str = "struct") -> Field:
    """A struct, or an array of like structs described once."""
    extra: dict[str, Any] = {"struct": elements[0].json()}
    if len(elements) > 1:
        extra["array_len"] = len(elements)
    return Field(name, type_, b"".join(e.data() for e in elements), len(elements[0].data()), extra)


@dataclass
class Writer:
    """A stream under construction: `data` are its bytes so far, `devices` its vmdesc so far."""

    machine: str | None = None  # None: no configuration section, as before 2.4
    page_size: int = 4096
    footers: bool = True
    version: int = 3
    page_bits: int | None = None
    capabilities: Sequence[str] = ()
    uuid: bytes | None = None
    data: bytearray = field(default_factory=bytearray)
    devices: list[dict[str, Any]] = field(default_factory=list)
    next_id: int = 0

    def __post_init__(self) -> None:
        self.data += b"QEVM" + be(self.version, 4)
        if self.machine is None:
            return
        self.data += b"\x07" + be(len(self.machine), 4) + self.machine.encode()
        if self.page_bits is not None:
            self.data += b"\x05" + pstring("configuration/target-page-bits") + be(1, 4) + be(self.page_bits, 4)
        if self.capabilities:
            names = b"".join(map(pstring, self.capabilities))
            self.data += b"\x05" + pstring("configuration/capabilities") + be(1, 4) + be(len(self.capabilities), 4)
            self.data += names
        if self.uuid is not None:
            self.data += b"\x05" + pstring("configuration/uuid") + be(1, 4) + self.uuid

    def begin(self, kind: int, idstr: str, instance: int, version: int) -> int:
        """A START (1) or FULL (4) header; returns its section id."""
        section_id = self.next_id
        self.next_id += 1
        self.data += bytes([kind]) + be(section_id, 4) + pstring(idstr) + be(instance, 4) + be(version, 4)
        return section_id

    def footer(self, section_id: int) -> None:
        if self.footers:
            self.data += b"\x7e" + be(section_id, 4)

    def full(self, idstr: str, vmsd: Vmsd, instance: int = 0, *, described: bool = True) -> None:
        section_id = self.begin(4, idstr, instance, vmsd.version)
        self.data += vmsd.data()
        self.footer(section_id)
        if described:
            self.devices.append({"name": idstr, "instance_id": instance, **vmsd.json()})

    def old_style(self, idstr: str, data: bytes, instance: int = 0, version: int = 1) -> None:
        """A section registered by hand: its vmdesc entry is one buffer."""
        self.full(idstr, Vmsd("", [buffer("data", data)], version=version), instance, described=False)
        entry = {"name": "data", "size": len(data), "type": "buffer"}
        self.devices.append({"name": idstr, "instance_id": instance, "size": len(data), "fields": [entry]})

    def ram(self, blocks: dict[str, bytes]) -> None:
        """The ram section in its three parts; zero pages go out as such."""
        section_id = self.begin(1, "ram", 0, 4)
        self.data += be(sum(map(len, blocks.values())) | 0x04, 8)
        for name, content in blocks.items():
            self.data += pstring(name) + be(len(content), 8)
        self.data += be(0x10, 8)
        self.footer(section_id)
        self.data += b"\x02" + be(section_id, 4)
        for name, content in blocks.items():
            named = 0
            for at in range(0, len(content), self.page_size):
                page = content[at : at + self.page_size]
                kind = 0x08 if any(page) else 0x02
                self.data += be(at | kind | named, 8) + (b"" if named else pstring(name))
                self.data += page if any(page) else b"\0"
                named = 0x20  # CONTINUE: of the same block
        self.data += be(0x10, 8)
        self.footer(section_id)
        self.data += b"\x03" + be(section_id, 4) + be(0x10, 8)
        self.footer(section_id)

    def command(self, number_: int, data: bytes = b"") -> None:
        self.data += b"\x08" + be(number_, 2) + be(len(data), 2) + data

    def vmdesc(self) -> bytes:
        return json.dumps({"page_size": self.page_size, "devices": self.devices}).encode()

    def finish(self, vmdesc: bytes | dict[str, Any] | bool = True) -> bytes:
        """End the stream; `vmdesc` puts another text there, or none (False)."""
        self.data += b"\0"
        if vmdesc is not False:
            text = (
                self.vmdesc()
                if vmdesc is True
                else vmdesc
                if isinstance(vmdesc, bytes)
                else json.dumps(vmdesc).encode()
            )
            self.data += b"\x06" + be(len(text), 4) + text
        return bytes(self.data)


def toy(**options: Any) -> Writer:
    """A small stream with a section of every kind."""
    stream = Writer(**{"machine": "toy-1.0", **options})
    stream.ram({"toy.ram": b"\xaa" * 4096 + bytes(8192), "toy.rom": bytes(4096)})
    stream.full(
        "timer", Vmsd("timer", [u64("ticks", 1 << 63, 7), buffer("unused", bytes(8), "unused_buffer")], version=2)
    )
    point = [Vmsd("point", [number("x", "int32", 4, -i), number("on", "bool", 1, i % 2)]) for i in range(3)]
    extra = Vmsd("toy/extra", [u8("c", 2)], [Vmsd("toy/extra/more", [u32("d", 3, 4)])])
    stream.full("toy", Vmsd("toy", [u32("a", 0xFFFF_FFFF), struct("points", *point)], [extra], version=3), 0x8000_0000)
    stream.old_style("byhand", b"\x01\x02\x03")
    stream.full("toy", Vmsd("toy", [u32("a", 5), struct("points", *point)], version=3), 1)
    return stream
