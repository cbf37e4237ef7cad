"""One multifd channel: its packets, where their pages lie, and their content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format.multifd import (
    BEGIN,
    DEVICE_PACKET,
    DEVICE_STATE,
    GREETING,
    HEADER,
    MAGIC,
    METHODS,
    NOCOMP,
    PACKET,
    PACKET_SIZE,
    SYNC,
    ZLIB,
    ZSTD,
    Packet,
)
from vmstate_tools.format.multifd_pages import PageReader
from vmstate_tools.source.parsing import shown_name

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_channel(view: memoryview) -> bool:
    """Tells whether these bytes begin as a multifd channel does."""
    return bytes(view[:8]) == BEGIN


class Channel:
    """A Channel is one multifd connection, from its first byte.

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
        self._reader: PageReader | None = None
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
            at = GREETING.size + PACKET.size + PACKET_SIZE // size * 8
            if at == len(self.view) or is_channel(self.view[at : at + 8]):
                return size
        return 4096

    def _packet(self, at: int, syncs: int) -> Packet:
        """Returns the packet at `at`, behind `syncs` packets that synchronize."""
        left = len(self.view) - at
        if left < DEVICE_PACKET.size:
            raise StreamError("the channel ends in a packet", offset=len(self.view), expected="a whole packet")
        header, _ = HEADER.read(self.view, at, "a multifd packet")
        if header.magic != MAGIC or header.version != 1:
            raise StreamError(
                f"packet magic {header.magic:x}, version {header.version}", offset=at, expected="11223344, version 1"
            )
        packet = (self._device_packet if header.flags & DEVICE_STATE else self._page_packet)(at, syncs)
        if packet.data_size > left - packet.size:
            raise StreamError(
                f"{packet.data_size} bytes of data",
                offset=at,
                expected=f"at most {left - packet.size}, what is left",
            )
        return packet

    def _device_packet(self, at: int, syncs: int) -> Packet:
        header, _ = DEVICE_PACKET.read(self.view, at, "a multifd packet of device state")
        return Packet(at, DEVICE_PACKET.size, header.next_packet_size, header, syncs)

    def _page_packet(self, at: int, syncs: int) -> Packet:
        room = PACKET_SIZE // self.page_size
        size = PACKET.size + room * 8
        if len(self.view) - at < size:
            raise StreamError("the channel ends in a packet", offset=len(self.view), expected=f"{size} bytes")
        header, _ = PACKET.read(self.view, at, "a multifd packet")
        normal, zero, follow = header.normal_pages, header.zero_pages, header.next_packet_size
        packet = Packet(at, size, follow if normal else 0, header, syncs, normal, zero)
        if header.pages_alloc > room or normal > room or zero > room - normal or packet.method not in METHODS:
            raise StreamError(
                f"a packet of {normal} full and {zero} zero pages, {header.pages_alloc} allocated, "
                f"flags 0x{header.flags:x}",
                offset=at,
                expected=f"at most {room} pages, one compression method",
            )
        if normal and packet.method == NOCOMP and follow != normal * self.page_size:
            raise StreamError(
                f"{normal} pages in {follow} bytes",
                offset=at,
                expected=f"{normal * self.page_size} bytes",
            )
        return packet

    def offsets(self, packet: Packet) -> np.ndarray:
        """Returns the offsets in the RAMBlock of a packet's pages, the full ones first (uint64)."""
        n = packet.normal + packet.zero
        at = packet.offset + PACKET.size
        return np.frombuffer(self.view[at : at + 8 * n], ">u8").astype(np.uint64)

    def records(self) -> list[tuple[int, int, str, str]]:
        """Returns what the channel consists of: (offset, size, what, detail), no gap, no overlap."""
        out = [(0, GREETING.size, "multifd greeting", f"channel {self.id}")]
        for p in self.packets:
            name = p.header.idstr if p.is_device else p.ramblock
            text = shown_name(name.split(b"\0")[0])
            what = "device state" if p.is_device else "sync" if p.flags & SYNC and not p.normal + p.zero else "packet"
            detail = text if p.is_device else f"{p.normal} full, {p.zero} zero x {text}" if p.normal + p.zero else ""
            out.append((p.offset, p.size, f"multifd {what}", detail))
            if p.data_size:
                kind = "device state" if p.is_device else f"{METHODS[p.method]} pages"
                out.append((p.data, p.data_size, f"multifd {kind}", text))
        return out

    def build(self) -> Iterator[bytes | memoryview]:
        """Yields the channel's bytes again: headers from what was read, data and unused room from the channel."""
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
        """Returns the page that begins at byte `start` of all the channel's full pages in order.

        Plain pages are where they are. zlib and zstd run through the whole channel: reading on is cheap,
        going back begins anew. Raises `StreamError` where the data cannot be expanded.
        """
        number = int(np.searchsorted(self.starts, start, "right")) - 1
        packet = self.packets[number]
        method = packet.method
        if method == NOCOMP:
            at = packet.data + start - int(self.starts[number])
            return self.view[at : at + self.page_size]
        if method not in (ZLIB, ZSTD):
            raise StreamError(
                f"pages compressed by {METHODS[method]}",
                offset=packet.data,
                expected="plain, zlib or zstd pages",
            )
        if self._reader is None or start < self._reader.at:
            self._reader = PageReader(self._compressed(method), method, self.page_size)
        return self._reader.page(start)

    def _compressed(self, method: int) -> Iterator[memoryview]:
        """Returns the data of each packet that has pages."""
        for packet in self.packets:
            if packet.normal:
                if packet.method != method:
                    raise StreamError("the channel changes its compression method", offset=packet.offset)
                yield self.view[packet.data : packet.data + packet.data_size]
