"""RAM sections for tests: written record by record, loaded as plainly as possible, found in whole streams."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from vmstate_tools.source import zstd
from vmstate_tools.stream.ram import Ram

DATA = Path(__file__).parent / "data" / "ram"
"""Streams of a running guest, and what QEMU said of its memory."""

ZERO, MEM_SIZE, PAGE, EOS, CONTINUE, XBZRLE, HOOK, COMPRESS, FLUSH = (
    0x002, 0x004, 0x008, 0x010, 0x020, 0x040, 0x080, 0x100, 0x200,
)  # fmt: skip


def be64(*words: int) -> bytes:
    return struct.pack(f">{len(words)}Q", *words)


def unzst(path: Path) -> bytes:
    with path.open("rb") as file:
        return zstd.reader(file).read()


def pages_of(seed: int, n: int = 1, size: int = 4096) -> bytes:
    return random.Random(seed).randbytes(n * size)


# What the guest of the `ran` captures stored from 1 MiB on: 8192 words, each the one before plus
# 0x0101010101010101.
PATTERN = b"".join(be64(0x1111222233334444 + i * 0x0101010101010101 & 0xFFFFFFFFFFFFFFFF) for i in range(8192))


def named(name: bytes) -> bytes:
    return bytes([len(name)]) + name


def mem_size(*blocks: tuple[bytes, int], extra: bytes = b"") -> bytes:
    total = sum(size for _, size in blocks)
    return be64(total | MEM_SIZE) + b"".join(named(n) + be64(size) + extra for n, size in blocks)


@dataclass
class Writer:
    """Writes payloads and keeps guest memory as a destination would."""

    page_size: int = 4096
    out: bytearray = field(default_factory=bytearray)
    memory: dict[bytes, bytearray] = field(default_factory=dict)
    last: bytes | None = None

    def blocks(self, *blocks: tuple[bytes, int]) -> None:
        self.out += mem_size(*blocks)
        for name, size in blocks:
            self.memory[name] = bytearray(size)

    def _head(self, name: bytes, offset: int, flag: int) -> None:
        same = self.last == name
        self.out += be64(offset | flag | (CONTINUE if same else 0)) + (b"" if same else named(name))
        self.last = name

    def page(self, name: bytes, offset: int, content: bytes) -> None:
        self._head(name, offset, PAGE)
        self.out += content
        self.memory[name][offset : offset + self.page_size] = content

    def zero(self, name: bytes, offset: int, fill: int = 0) -> None:
        self._head(name, offset, ZERO)
        self.out.append(fill)
        self.memory[name][offset : offset + self.page_size] = bytes([fill]) * self.page_size

    def compressed(self, name: bytes, offset: int, content: bytes) -> None:
        self._head(name, offset, COMPRESS)
        data = zlib.compress(content)
        self.out += struct.pack(">I", len(data)) + data
        self.memory[name][offset : offset + self.page_size] = content

    def patched(self, name: bytes, offset: int, at: int, new: bytes) -> None:
        """An XBZRLE page that replaces `new` at `at` in the page."""
        self._head(name, offset, XBZRLE)

        def uleb(n: int) -> bytes:
            return bytes([n]) if n < 0x80 else bytes([n & 0x7F | 0x80, n >> 7])

        delta = uleb(at) + uleb(len(new)) + new
        self.out += b"\x01" + struct.pack(">H", len(delta)) + delta
        self.memory[name][offset + at : offset + at + len(new)] = new

    def eos(self) -> None:
        self.out += be64(EOS)

    def parse(self, **options: object) -> Ram:
        return parse(bytes(self.out), **options)


def parse(data: bytes, **options: object) -> Ram:
    """All payloads, back to back."""
    ram = Ram(memoryview(data), **options)
    at = 0
    while at < len(data):
        at = ram.parse(at, part="part")
    return ram


def assert_accounted(ram: Ram, data: bytes, start: int, end: int) -> None:
    at = start
    for offset, size, *_ in ram.records(start, end):
        assert offset == at
        assert size > 0
        at = offset + size
    assert at == end
    for piece in ram.build(start, end):
        assert bytes(piece) == data[start : start + len(piece)]
        start += len(piece)
    assert start == end


def load(data: bytes, payloads: list[tuple[int, int]], page_size: int) -> tuple[dict, dict]:
    """Pages that are not zero, and the number of records by block and kind, read as `ram_load` reads."""
    memory: dict[bytes, dict[int, bytes]] = {}
    counts: dict[tuple[bytes, int], int] = {}
    name = b""
    for start, end in payloads:
        at = start
        while at < end:
            (head,) = struct.unpack_from(">Q", data, at)
            at += 8
            flags, offset = head & (page_size - 1), head & -page_size
            if flags & MEM_SIZE:
                while offset:
                    size = data[at]
                    name = data[at + 1 : at + 1 + size]
                    (length,) = struct.unpack_from(">Q", data, at + 1 + size)
                    memory.setdefault(name, {})
                    at += 9 + size
                    offset -= length
                continue
            if flags in (EOS, FLUSH):
                continue
            if not flags & CONTINUE:
                name = data[at + 1 : at + 1 + data[at]]
                at += 1 + len(name)
            kind = flags & ~CONTINUE
            counts[name, kind] = counts.get((name, kind), 0) + 1
            pages = memory[name]
            if kind == ZERO:
                pages.pop(offset, None)
                if data[at]:
                    pages[offset] = data[at : at + 1] * page_size
                at += 1
            elif kind == PAGE:
                pages[offset] = data[at : at + page_size]
                at += page_size
            elif kind == XBZRLE:
                (size,) = struct.unpack_from(">H", data, at + 1)
                pages[offset] = patch(data[at + 3 : at + 3 + size], pages.get(offset, bytes(page_size)))
                at += 3 + size
            elif kind == COMPRESS:
                (size,) = struct.unpack_from(">I", data, at)
                pages[offset] = zlib.decompress(data[at + 4 : at + 4 + size])
                at += 4 + size
            else:
                raise AssertionError(hex(flags))
    full = {n: {o: p for o, p in pages.items() if p.strip(b"\0")} for n, pages in memory.items()}
    return full, counts


def patch(delta: bytes, page: bytes) -> bytes:
    out = bytearray(page)
    at = position = 0

    def uleb() -> int:
        nonlocal at
        low = delta[at]
        at += 1
        if low & 0x80:
            low = low & 0x7F | delta[at] << 7
            at += 1
        return low

    while at < len(delta):
        position += uleb()
        n = uleb()
        out[position : position + n] = delta[at : at + n]
        position += n
        at += n
    return bytes(out)


def content(ram: Ram, block: str, page_size: int, path: Path) -> dict[int, bytes]:
    """A block's pages that are not zero, by way of `extract`."""
    ram.extract(block, path, overwrite=True, progress=False)
    out = {}
    with path.open("rb") as file:
        offset = 0
        while page := file.read(page_size):
            if page.strip(b"\0"):
                out[offset] = page
            offset += page_size
    return out


def find(data: bytes, start: int = 0) -> tuple[Ram, list[tuple[int, int]]]:
    """The RAM of a whole stream and its payloads, by just enough of the framing to get along."""
    assert data[start : start + 4] == b"QEVM"
    at = start + 8
    capabilities: set[str] = set()
    postcopy = False
    if data[at] == 7:
        at += 5 + int.from_bytes(data[at + 1 : at + 5], "big")
        while data[at] == 5:
            name = data[at + 2 : at + 2 + data[at + 1]]
            at += 6 + len(name)
            if name.endswith(b"/capabilities"):
                n = int.from_bytes(data[at : at + 4], "big")
                at += 4
                for _ in range(n):
                    capabilities.add(data[at + 1 : at + 1 + data[at]].decode())
                    at += 1 + data[at]
            else:
                at += {b"target-page-bits": 4, b"uuid": 16}[name.split(b"/")[1]]
    ram = None
    payloads = []
    names: dict[bytes, bytes] = {}
    while data[at] not in (0, 4):
        kind, number = data[at], data[at + 1 : at + 5]
        if kind == 8:
            postcopy |= number[1] == 3
            at += 5 + int.from_bytes(number[2:], "big")
            continue
        if kind == 0x7E:
            at += 5
            continue
        at += 5
        if kind == 1:
            names[number] = data[at + 1 : at + 1 + data[at]]
            at += 1 + data[at] + 8
        if names[number] == b"ram":
            ram = ram or Ram(memoryview(data), capabilities=frozenset(capabilities), postcopy=postcopy)
            end = ram.parse(at, part={1: "start", 2: "part", 3: "end"}[kind])
            payloads.append((at, end))
            at = end
        elif names[number] == b"spapr/htab":
            at = _htab_end(data, at, kind)
        else:
            at = data.index(b"\x7e" + number, at)
    assert ram is not None
    return ram, payloads


def _htab_end(data: bytes, at: int, kind: int) -> int:
    if kind == 1 or data[at : at + 4] == b"\xff" * 4:
        return at + 4
    at += 4
    while data[at : at + 8] != bytes(8):
        at += 8 + 16 * int.from_bytes(data[at + 4 : at + 6], "big")
    return at + 8
