"""lzop files, which libvirt can write: blocks of LZO1X. lzallright unpacks a block; the framing is read here.

The facts are of lzop 1.04 (`conf.h`, `lzop.c`: `read_header`, `x_decompress`).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.source.parsing import Format

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x89LZO\x00\r\n\x1a\n"

_ADLER_DATA, _ADLER_PACKED = 0x1, 0x2
_CRC_DATA, _CRC_PACKED = 0x100, 0x200
_EXTRA, _FILTER = 0x40, 0x800

_BLOCK_LIMIT = 1 << 20
"""lzop writes blocks of 256 KiB and would read 64 MiB; LZO can grow 255 times, so this bounds the memory."""


HEADER = Format(
    "lzop header",
    "version" / c.Int16ub,
    "library_version" / c.Int16ub,
    "version_needed" / c.Int16ub,
    "method" / c.Int8ub,
    "level" / c.Int8ub,
    "flags" / c.Int32ub,
    "mode" / c.Int32ub,
    "time" / c.Int64ub,
)
"""What follows the magic; the file's name, a checksum and perhaps an extra field come behind it."""


class _Reader:
    """Takes numbers from the front of a view."""

    def __init__(self, view: memoryview, file: str) -> None:
        self.view, self.file, self.position = view, file, 0

    def take(self, count: int) -> bytes:
        data = bytes(self.view[self.position : self.position + count])
        if len(data) < count:
            raise StreamError("the lzop data is cut short", offset=len(self.view), file=self.file)
        self.position += count
        return data

    def u32(self) -> int:
        return int.from_bytes(self.take(4))

    def damaged(self, what: str) -> StreamError:
        return StreamError(f"the lzop data is damaged: {what}", offset=self.position, file=self.file)


def unpack(view: memoryview, file: str) -> Iterator[tuple[int, bytes]]:
    """Yields (packed bytes read so far, next bytes) of all parts of an lzop file.

    Raises
    ------
    StreamError : corrupt or cut short, with the offset in the lzop file.
    """
    reader = _Reader(view, file)
    while reader.position < len(view):
        flags = _header(reader)
        while length := reader.u32():
            yield reader.position, _block(reader, length, flags)


def _header(reader: _Reader) -> int:
    if reader.take(len(MAGIC)) != MAGIC:
        raise reader.damaged("no lzop header")
    begin = reader.position
    head, _ = HEADER.read(reader.view, begin, "an lzop header")
    needed, method, flags = head.version_needed, head.method, head.flags
    reader.take(HEADER.size)
    if needed > 0x1040 or method not in (1, 2, 3) or flags & _FILTER:
        raise reader.damaged(f"version 0x{needed:x}, method {method}, flags 0x{flags:x} are not known")
    reader.take(reader.take(1)[0])  # name
    if reader.u32() not in _sums(bytes(reader.view[begin : reader.position - 4])):
        raise reader.damaged("checksum of the header")
    if flags & _EXTRA:
        reader.take(reader.u32() + 4)
    return flags


def _block(reader: _Reader, length: int, flags: int) -> bytes:
    from lzallright import LZOCompressor, LZOError

    packed_length = reader.u32()
    if not packed_length <= length <= _BLOCK_LIMIT:
        raise reader.damaged(f"a block of {packed_length} bytes for {length}")
    sums = [reader.u32() for flag in (_ADLER_DATA, _CRC_DATA) if flags & flag]
    if packed_length < length:
        reader.take(4 * sum(bool(flags & flag) for flag in (_ADLER_PACKED, _CRC_PACKED)))
    data = reader.take(packed_length)
    if packed_length < length:
        try:
            data = LZOCompressor.decompress(data, length)
        except LZOError as error:
            raise reader.damaged(f"{error}") from error
    if len(data) != length or any(value not in _sums(data) for value in sums):
        raise reader.damaged("checksum of a block")
    return data


def _sums(data: bytes) -> tuple[int, int]:
    return zlib.adler32(data), zlib.crc32(data)
