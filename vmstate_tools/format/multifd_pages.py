"""Pages that multifd channels carry compressed: one zlib stream or zstd frame runs through all packets of a channel."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.format.multifd import ZLIB, ZSTD
from vmstate_tools.source import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Packed:
    """The compressed bytes of a channel, packet after packet, as a file to read."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def read(self, size: int = 1 << 16) -> bytes:
        """Returns the next bytes, at most `size`; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._left = piece
        out, self._left = bytes(self._left[:size]), self._left[size:]
        return out


class _Zlib:
    """A reader that never expands more than it is asked for, over a zlib stream that has no end."""

    def __init__(self, source: _Packed) -> None:
        self._source = source
        self._stream = zlib.decompressobj()
        self._left = b""

    def read(self, size: int) -> bytes:
        """Returns the next bytes, at most `size`; none at the end."""
        while not self._stream.eof:
            data = self._left or self._source.read()
            out = self._stream.decompress(data, size)
            self._left = self._stream.unconsumed_tail
            if out or not data:
                return out
        return b""


class _Zstd:
    """The same for a zstd frame that has no end."""

    def __init__(self, source: _Packed) -> None:
        self._source = source
        self._stream = zstd.ZstdDecompressor()

    def read(self, size: int) -> bytes:
        """Returns the next bytes, at most `size`; none at the end."""
        while not self._stream.eof:
            data = self._source.read() if self._stream.needs_input else b""
            ended = self._stream.needs_input and not data
            out = self._stream.decompress(data, size)
            if out or ended:
                return out
        return b""


_DECOMPRESSORS: dict[int, type[_Zlib | _Zstd]] = {ZLIB: _Zlib, ZSTD: _Zstd}


class PageReader:
    """A PageReader gives all full pages of one compressed channel, in order.

    Parameters
    ----------
    pieces : the compressed data of each packet.
    method : `ZLIB` or `ZSTD`.
    page_size : bytes.

    Attributes
    ----------
    at : where the page that was read last begins, in bytes from the first page.
    """

    def __init__(self, pieces: Iterator[memoryview], method: int, page_size: int) -> None:
        self._size = page_size
        self._stream = _DECOMPRESSORS[method](_Packed(pieces))
        self._last = b""
        self.at = 0

    def page(self, start: int) -> bytes:
        """Returns the page that begins at byte `start`, not before `at`. Raises StreamError if it does not expand."""
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
