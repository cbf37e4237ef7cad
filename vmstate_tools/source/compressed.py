"""Compressed files: zstd, gzip, xz, bzip2 and lz4, any number of members one after the other."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    class _Decompressor(Protocol):
        """What bz2, lzma, compression.zstd and lz4.frame agree on."""

        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes | None: ...
        def decompress(self, data: bytes, max_length: int) -> bytes: ...


_CHUNK = 1 << 20
_FIRST = 4 << 10
_PIECE = 4 << 20  # most small streams are one piece, which then is not copied

_MEMORY_BITS = 27
"""The most memory that a member may ask for, 128 MiB: `xz -9` needs 65 MiB, `zstd --long` a window of 128 MiB."""

_PADDING = 1 << 20


class _Gzip:
    """zlib's decompressor in the manner of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.eof = False
        self.needs_input = True
        self.unused_data = b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.eof, self.unused_data = self._zlib.eof, self._zlib.unused_data
        # A full `out` may leave more inside zlib even when all input is consumed.
        self.needs_input = not self._zlib.unconsumed_tail and len(out) < max_length
        return out


def _opener(kind: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """Returns what makes a decompressor, and the errors that it raises."""
    if kind == "gzip":
        return _Gzip, (zlib.error,)
    if kind == "bz2":
        return bz2.BZ2Decompressor, (OSError, ValueError)
    if kind == "xz":
        return lambda: lzma.LZMADecompressor(memlimit=1 << _MEMORY_BITS), (lzma.LZMAError,)
    if kind == "lz4":
        from lz4.frame import LZ4FrameDecompressor  # not in every installation

        return LZ4FrameDecompressor, (RuntimeError, ValueError)
    options = {int(zstd.DecompressionParameter.window_log_max): _MEMORY_BITS}
    return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError,)


def unpack(view: memoryview, kind: str, file: str) -> Iterator[tuple[int, bytes]]:
    """Yields (compressed bytes read so far, next bytes) of all members of a compressed file.

    Raises
    ------
    StreamError : corrupt or cut short, with the offset in the compressed file.
    """
    new, errors = _opener(kind)
    position = 0
    while position < len(view):
        if position and not view[position] and _is_padding(view, position):
            return
        member: _Decompressor = new()
        # A member may be tiny and unused_data a copy of all that was given too much: later ones begin with little.
        step = _FIRST if position else _CHUNK
        while not member.eof:
            given = b""
            if member.needs_input:
                given = bytes(view[position : position + step])
                step = min(2 * step, _CHUNK)
                if not given:
                    raise StreamError(f"the {kind} data is cut short", offset=position, file=file)
            try:
                data = member.decompress(given, _PIECE)
            except errors as error:
                what = f"the {kind} data is damaged: {error}"
                raise StreamError(what, offset=position, file=file) from error
            position += len(given)
            yield position, data
        position -= len(member.unused_data or b"")


def _is_padding(view: memoryview, start: int) -> bool:
    """Tells whether nothing but zeros follows, as on tapes and block devices."""
    return not any(bytes(view[at : at + _PADDING]).strip(b"\0") for at in range(start, len(view), _PADDING))
