"""multifd: the connections that carry pages beside the main stream.

A channel is one greeting and then packets of one fixed size, each followed by its pages (migration/multifd.c:
`multifd_send_initial_packet`, `multifd_send_fill_packet`; wire form since 3.1, usable since 4.0).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = 0x11223344
SYNC = 0x01
METHOD = 0x3E
NOCOMP, ZLIB, ZSTD, QPL, UADK, QATZIP = (n << 1 for n in (0, 1, 2, 4, 8, 16))
DEVICE_STATE = 0x40  # since 10.0

_METHODS = {NOCOMP: "plain", ZLIB: "zlib", ZSTD: "zstd", QPL: "qpl", UADK: "uadk", QATZIP: "qatzip"}
_PACKET_SIZE = 512 * 1024  # MULTIFD_PACKET_SIZE: a packet has room for so many bytes of pages
_GREETING = 64
_HEADER = struct.Struct(">6IQI28x256s")  # MultiFDPacket_t up to offset[]
_DEVICE = struct.Struct(">3I256s2I")  # MultiFDPacketDeviceState_t


@dataclass
class Packet:
    """One packet: its place in the channel and what it says."""

    offset: int
    size: int  # of the packet itself
    data_size: int
    flags: int
    pages_alloc: int
    normal: int
    zero: int
    next_packet_size: int  # as written: an empty packet before 9.0 repeats an old value and has no data
    number: int
    ramblock: bytes
    sync: int  # SYNC packets in this channel before it
    device: tuple[bytes, int] | None = None  # idstr, instance_id

    @property
    def data(self) -> int:
        return self.offset + self.size


def is_channel(view: memoryview) -> bool:
    """Whether these bytes begin as a multifd channel does."""
    return len(view) >= 8 and bytes(view[:8]) == struct.pack(">2I", MAGIC, 1)


class Channel:
    """One multifd connection, from its first byte.

    `page_size` is the target's, in bytes; without it the size under which the packets make sense is taken.
    """

    def __init__(self, view: memoryview, *, page_size: int | None = None) -> None:
        if not is_channel(view):
            raise StreamError("not a multifd channel", offset=0, expected="11223344 00000001")
        if len(view) < _GREETING:
            raise StreamError("the channel ends in its first packet", offset=len(view), expected="64 bytes")
        self.view = view
        self.uuid = bytes(view[8:24])
        self.id = view[24]
        self.packets: list[Packet] = []
        self.page_size = page_size or self._infer_page_size()
        self._reader: _Reader | None = None
        at, syncs = _GREETING, 0
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
            at = _GREETING + _HEADER.size + _PACKET_SIZE // size * 8
            if at == len(self.view) or is_channel(self.view[at : at + 8]):
                return size
        return 4096

    def _packet(self, at: int, syncs: int) -> Packet:
        left = len(self.view) - at
        if left < _DEVICE.size:
            raise StreamError("the channel ends in a packet", offset=len(self.view), expected="a whole packet")
        magic, version, flags = struct.unpack_from(">3I", self.view, at)
        if magic != MAGIC or version != 1:
            raise StreamError(f"packet magic {magic:x}, version {version}", offset=at, expected="11223344, version 1")
        if flags & DEVICE_STATE:
            *_, idstr, instance, size = _DEVICE.unpack_from(self.view, at)
            packet = Packet(at, _DEVICE.size, size, flags, 0, 0, 0, size, 0, b"", syncs, (idstr, instance))
        else:
            room = _PACKET_SIZE // self.page_size
            size = _HEADER.size + room * 8
            if left < size:
                raise StreamError("the channel ends in a packet", offset=len(self.view), expected=f"{size} bytes")
            _, _, _, alloc, normal, follow, number, zero, name = _HEADER.unpack_from(self.view, at)
            if alloc > room or normal > room or zero > room - normal or flags & METHOD not in _METHODS:
                raise StreamError(
                    f"a packet of {normal} full and {zero} zero pages, {alloc} allocated, flags 0x{flags:x}",
                    offset=at,
                    expected=f"at most {room} pages, one compression method",
                )
            if normal and flags & METHOD == NOCOMP and follow != normal * self.page_size:
                raise StreamError(
                    f"{normal} pages in {follow} bytes",
                    offset=at,
                    expected=f"{normal * self.page_size} bytes",
                )
            data = follow if normal else 0
            packet = Packet(at, size, data, flags, alloc, normal, zero, follow, number, name, syncs)
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
        return np.frombuffer(self.view, ">u8", n, packet.offset + _HEADER.size).astype(np.uint64)

    def records(self) -> list[tuple[int, int, str, str]]:
        """What the channel consists of: (offset, size, what, detail), no gap, no overlap."""
        out = [(0, _GREETING, "multifd greeting", f"channel {self.id}")]
        for p in self.packets:
            name = p.device[0] if p.device else p.ramblock
            text = name.split(b"\0")[0].decode("utf-8", "backslashreplace")
            what = "device state" if p.device else "sync" if p.flags & SYNC and not p.normal + p.zero else "packet"
            detail = text if p.device else f"{p.normal} full, {p.zero} zero x {text}" if p.normal + p.zero else ""
            out.append((p.offset, p.size, f"multifd {what}", detail))
            if p.data_size:
                kind = "device state" if p.device else f"{_METHODS[p.flags & METHOD]} pages"
                out.append((p.data, p.data_size, f"multifd {kind}", text))
        return out

    def build(self) -> Iterator[bytes | memoryview]:
        """The channel's bytes again: headers from what was read; reserved bytes and data from the channel."""
        yield struct.pack(">2I16sB", MAGIC, 1, self.uuid, self.id)
        yield self.view[25:_GREETING]
        for p in self.packets:
            if p.device:
                yield _DEVICE.pack(MAGIC, 1, p.flags, p.device[0], p.device[1], p.next_packet_size)
            else:
                head = struct.pack(
                    ">6IQI", MAGIC, 1, p.flags, p.pages_alloc, p.normal, p.next_packet_size, p.number, p.zero
                )
                offsets = self.offsets(p).astype(">u8").tobytes()
                yield head + bytes(self.view[p.offset + 36 : p.offset + 64]) + p.ramblock + offsets
                yield self.view[p.offset + _HEADER.size + len(offsets) : p.data]
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
    """What `zstandard` has and `zlib` has not: a reader that never expands more than it is asked for."""

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
    """The same for zstd. (`stream_reader` loses what is still inside when the input ends, and the frame never
    ends.)
    """

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._stream = zstandard.ZstdDecompressor().decompressobj()
        self._left = memoryview(b"")

    def read(self, size: int) -> bytes:
        # 1 KiB of input is at most 256 blocks of 128 KiB
        while not self._left and (data := self._source.read(1024)):
            self._left = memoryview(self._stream.decompress(data))
        out, self._left = bytes(self._left[:size]), self._left[size:]
        return out


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
        except (zlib.error, zstandard.ZstdError) as error:
            raise StreamError(f"multifd pages do not expand: {error}") from None
        if len(out) < self._size:
            raise StreamError("multifd pages expand to too little", expected=f"pages of {self._size} bytes")
        return out
