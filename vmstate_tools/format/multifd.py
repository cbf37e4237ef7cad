"""multifd: the connections that carry pages beside the main stream.

A channel is one greeting and then packets of one fixed size, each followed by its pages (migration/multifd.c:
`multifd_send_initial_packet`, `multifd_send_fill_packet`; wire form since 3.1, usable since 4.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import construct as c

from vmstate_tools.source.parsing import Format

if TYPE_CHECKING:
    pass

MAGIC = 0x11223344
SYNC = 0x01
METHOD = 0x3E
NOCOMP, ZLIB, ZSTD, QPL, UADK, QATZIP = (n << 1 for n in (0, 1, 2, 4, 8, 16))
DEVICE_STATE = 0x40  # since 10.0

METHODS = {NOCOMP: "plain", ZLIB: "zlib", ZSTD: "zstd", QPL: "qpl", UADK: "uadk", QATZIP: "qatzip"}
PACKET_SIZE = 512 * 1024  # MULTIFD_PACKET_SIZE: a packet has room for so many bytes of pages

GREETING = Format(
    "multifd greeting",
    "magic" / c.Int32ub,
    "version" / c.Int32ub,
    "uuid" / c.Bytes(16),
    "id" / c.Int8ub,
    "reserved" / c.Bytes(39),
)
"""`MultiFDInit_t`: what a channel begins with."""

_LEAD = ("magic" / c.Int32ub, "version" / c.Int32ub, "flags" / c.Int32ub)

PACKET = Format(
    "multifd packet",
    *_LEAD,
    "pages_alloc" / c.Int32ub,
    "normal_pages" / c.Int32ub,
    "next_packet_size" / c.Int32ub,  # an empty packet before 9.0 repeats an old value and has no data
    "packet_num" / c.Int64ub,
    "zero_pages" / c.Int32ub,  # since 9.0
    "reserved" / c.Bytes(28),
    "ramblock" / c.Bytes(256),
)
"""`MultiFDPacket_t` up to `offset[]`."""

DEVICE_PACKET = Format(
    "multifd packet of device state",
    *_LEAD,
    "idstr" / c.Bytes(256),
    "instance_id" / c.Int32ub,
    "next_packet_size" / c.Int32ub,
)
"""`MultiFDPacketDeviceState_t`, since 10.0."""

HEADER = Format("multifd packet", *_LEAD, compiled=True)  # what both begin with
BEGIN = c.Int32ub[2].build([MAGIC, 1])


@dataclass
class Packet:
    """A Packet has its place in the channel and what it says; `header`: the fields of `PACKET` or `DEVICE_PACKET`."""

    offset: int
    size: int  # of the packet itself
    data_size: int
    header: Any
    sync: int  # SYNC packets in this channel before it
    normal: int = 0
    zero: int = 0

    @property
    def flags(self) -> int:
        """Returns what the packet is, and how its pages are compressed."""
        return int(self.header.flags)

    @property
    def method(self) -> int:
        """Returns how its pages are compressed: a key of `METHODS`."""
        return self.flags & METHOD

    @property
    def is_device(self) -> bool:
        """Tells whether it carries the state of a device, and no pages."""
        return bool(self.flags & DEVICE_STATE)

    @property
    def ramblock(self) -> bytes:
        """Returns the name of its pages' RAMBlock, with zeros behind it."""
        return b"" if self.is_device else bytes(self.header.ramblock)

    @property
    def data(self) -> int:
        """Returns where its data begins in the channel."""
        return self.offset + self.size
