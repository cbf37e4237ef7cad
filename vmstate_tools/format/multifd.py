"""multifd: the connections that carry pages beside the main stream.

A channel is one greeting and then packets of one fixed size, each followed by its pages (migration/multifd.c:
`multifd_send_initial_packet`, `multifd_send_fill_packet`; wire form since 3.1, usable since 4.0).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import construct as c
import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.source import zstd
from vmstate_tools.source.parsing import Format, shown_name

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = 0x11223344
SYNC = 0x01
METHOD = 0x3E
NOCOMP, ZLIB, ZSTD, QPL, UADK, QATZIP = (n << 1 for n in (0, 1, 2, 4, 8, 16))
DEVICE_STATE = 0x40  # since 10.0

_METHODS = {NOCOMP: "plain", ZLIB: "zlib", ZSTD: "zstd", QPL: "qpl", UADK: "uadk", QATZIP: "qatzip"}
_PACKET_SIZE = 512 * 1024  # MULTIFD_PACKET_SIZE: a packet has room for so many bytes of pages

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

_HEADER = Format("multifd packet", *_LEAD, compiled=True)  # what both begin with
_BEGIN = c.Int32ub[2].build([MAGIC, 1])


@dataclass
class Packet:
    """One packet: its place in the channel and what it says. `header`: the fields of `PACKET` or `DEVICE_PACKET`."""

    offset: int
    size: int  # of the packet itself
    data_size: int
    header: Any
    sync: int  # SYNC packets in this channel before it
    normal: int = 0
    zero: int = 0

    @property
    def flags(self) -> int:
        return int(self.header.flags)

    @property
    def is_device(self) -> bool:
        return bool(self.flags & DEVICE_STATE)

    @property
    def ramblock(self) -> bytes:
        return b"" if self.is_device else bytes(self.header.ramblock)

    @property
    def data(self) -> int:
        return self.offset + self.size


def is_channel(view: memoryview) -> bool:
    """Whether these bytes begin as a multifd channel does."""
    return bytes(view[:8]) == _BEGIN


class Channel:
    """One multifd connection, from its first byte.

    `page_size` is the target's, in bytes; without it the size under which the packets make sense is taken.
    """

    def __init__(self, view: memoryview, *, page_size: int | None = None) -> None:
        if not is_channel(view):
            raise StreamError("not a multifd channel", offset=0, expected="11223344 00000001")
        if len(view) < GREETING.size:
            raise StreamError("the channel ends in its first packet", offset=len(view), expected="64 bytes")
        self.view = view
        self.name = ""  # of the file, for errors
        self.greeting, _ = GREETING.read(view, 0, "a multifd greeting")
        self.id = int(self.greeting.id)
        self.packets: list[Packet] = []
        self.page_size = page_size or self._infer_page_size()
        self._reader: _Reader | None = None
        at, syncs = GREETING.size, 0
        while at < len(view):
            packet = self._packet(at, syncs)
            self.packets.append(packet)
            syncs += packet.flags & SYNC
            at = packet.data + packet.data_size
        # Where a packet's pages begin in all the channel's pages, in bytes.
        sizes = [p.normal * self.page_size for p in self.packets]
        self.starts = np.concatenate(([0], np.cumsum(np.array(sizes, np.int64)))).astype(np.int64)

    def _infer_page_size(self) -> int:
        for size in (4096, 1024, 65536, 16384, 8192, 32768, 2048):
            at = GREETING.size + PACKET.size + _PACKET_SIZE // size * 8
            if at == len(self.view) or is_channel(self.view[at : at + 8]):
                return size
        return 4096

    def _packet(self, at: int, syncs: int) -> Packet:
        left = len(self.view) - at
        if left < DEVICE_PACKET.size:
            raise StreamError("the channel ends in a packet", offset=len(self.view), expected="a whole packet")
        header, _ = _HEADER.read(self.view, at, "a multifd packet")
        if header.magic != MAGIC or header.version != 1:
            raise StreamError(
                f"packet magic {header.magic:x}, version {header.version}", offset=at, expected="11223344, version 1"
            )
        if header.flags & DEVICE_STATE:
            header, _ = DEVICE_PACKET.read(self.view, at, "a multifd packet of device state")
            packet = Packet(at, DEVICE_PACKET.size, header.next_packet_size, header, syncs)
        else:
            room = _PACKET_SIZE // self.page_size
            size = PACKET.size + room * 8
            if left < size:
                raise StreamError("the channel ends in a packet", offset=len(self.view), expected=f"{size} bytes")
            header, _ = PACKET.read(self.view, at, "a multifd packet")
            normal, zero, follow = header.normal_pages, header.zero_pages, header.next_packet_size
            method = header.flags & METHOD
            if header.pages_alloc > room or normal > room or zero > room - normal or method not in _METHODS:
                raise StreamError(
                    f"a packet of {normal} full and {zero} zero pages, {header.pages_alloc} allocated, "
                    f"flags 0x{header.flags:x}",
                    offset=at,
                    expected=f"at most {room} pages, one compression method",
                )
            if normal and method == NOCOMP and follow != normal * self.page_size:
                raise StreamError(
                    f"{normal} pages in {follow} bytes",
                    offset=at,
                    expected=f"{normal * self.page_size} bytes",
                )
            packet = Packet(at, size, follow if normal else 0, header, syncs, normal, zero)
        if packet.data_size > left - packet.size:
            raise StreamError(
                f"{packet.data_size} bytes of data",
                offset=at,
                expected=f"at most {left - packet.size}, what is left",
            )
        return packet

    def offsets(self, packet: Packet) -> np.ndarray:
        """Offsets in the RAMBlock of a packet's pages, the full ones first (uint64)."""
        n = packet.normal + packet.zero
        at = packet.offset + PACKET.size
        return np.frombuffer(self.view[at : at + 8 * n], ">u8").astype(np.uint64)

    def records(self) -> list[tuple[int, int, str, str]]:
        """What the channel consists of: (offset, size, what, detail), no gap, no overlap."""
        out = [(0, GREETING.size, "multifd greeting", f"channel {self.id}")]
        for p in self.packets:
            name = p.header.idstr if p.is_device else p.ramblock
            text = shown_name(name.split(b"\0")[0])
            what = "device state" if p.is_device else "sync" if p.flags & SYNC and not p.normal + p.zero else "packet"
            detail = text if p.is_device else f"{p.normal} full, {p.zero} zero x {text}" if p.normal + p.zero else ""
            out.append((p.offset, p.size, f"multifd {what}", detail))
            if p.data_size:
                kind = "device state" if p.is_device else f"{_METHODS[p.flags & METHOD]} pages"
                out.append((p.data, p.data_size, f"multifd {kind}", text))
        return out

    def build(self) -> Iterator[bytes | memoryview]:
        """The channel's bytes again: headers from what was read; room that is not used, and data, from the channel."""
        yield GREETING.build(self.greeting)
        for p in self.packets:
            if p.is_device:
                yield DEVICE_PACKET.build(p.header)
            else:
                offsets = self.offsets(p).astype(">u8").tobytes()
                yield PACKET.build(p.header) + offsets
                yield self.view[p.offset + PACKET.size + len(offsets) : p.data]
            yield self.view[p.data : p.data + p.data_size]

    def page(self, start: int) -> bytes | memoryview:
        """The page that begins at byte `start` of all the channel's full pages in order.

        Plain pages are where they are. zlib and zstd run through the whole channel: reading on is cheap,
        going back begins anew. Raises `StreamError` where the data cannot be expanded.
        """
        number = int(np.searchsorted(self.starts, start, "right")) - 1
        packet = self.packets[number]
        method = packet.flags & METHOD
        if method == NOCOMP:
            at = packet.data + start - int(self.starts[number])
            return self.view[at : at + self.page_size]
        if method not in (ZLIB, ZSTD):
            raise StreamError(
                f"pages compressed by {_METHODS[method]}",
                offset=packet.data,
                expected="plain, zlib or zstd pages",
            )
        if self._reader is None or start < self._reader.at:
            self._reader = _Reader(self, method)
        return self._reader.page(start)


class _Source:
    """The compressed bytes of a channel, packet after packet, as a file to read."""

    def __init__(self, channel: Channel, method: int) -> None:
        self._pieces = self._data(channel, method)
        self._left = memoryview(b"")

    @staticmethod
    def _data(channel: Channel, method: int) -> Iterator[memoryview]:
        for packet in channel.packets:
            if packet.normal:
                if packet.flags & METHOD != method:
                    raise StreamError("the channel changes its compression method", offset=packet.offset)
                yield channel.view[packet.data : packet.data + packet.data_size]

    def read(self, size: int = 1 << 16) -> bytes:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        out, self._left = bytes(self._left[:size]), self._left[size:]
        return out


class _Zlib:
    """A reader that never expands more than it is asked for, over a zlib stream that has no end."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._stream = zlib.decompressobj()
        self._left = b""

    def read(self, size: int) -> bytes:
        while not self._stream.eof:
            data = self._left or self._source.read()
            out = self._stream.decompress(data, size)
            self._left = self._stream.unconsumed_tail
            if out or not data:
                return out
        return b""


class _Zstd:
    """The same for a zstd frame that has no end."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._stream = zstd.ZstdDecompressor()

    def read(self, size: int) -> bytes:
        while not self._stream.eof:
            data = self._source.read() if self._stream.needs_input else b""
            ended = self._stream.needs_input and not data
            out = self._stream.decompress(data, size)
            if out or ended:
                return out
        return b""


class _Reader:
    """All full pages of one compressed channel, in order."""

    def __init__(self, channel: Channel, method: int) -> None:
        self._size = channel.page_size
        source = _Source(channel, method)
        self._stream = _Zlib(source) if method == ZLIB else _Zstd(source)
        self._last = b""
        self.at = 0
        """Start of the page read last."""

    def page(self, start: int) -> bytes:
        while self.at + len(self._last) <= start:
            self.at += len(self._last)
            self._last = self._next()
        return self._last

    def _next(self) -> bytes:
        out = b""
        try:
            while len(out) < self._size and (more := self._stream.read(self._size - len(out))):
                out += more
        except (zlib.error, zstd.ZstdError) as error:
            raise StreamError(f"multifd pages do not expand: {error}") from None
        if len(out) < self._size:
            raise StreamError("multifd pages expand to too little", expected=f"pages of {self._size} bytes")
        return out
