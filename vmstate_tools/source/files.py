"""A local file as one view: small files are copied when they are opened, large ones are read when they are asked for.

A file is never mapped. Where a mapped file is truncated by another process, the next touch of the missing part kills
the process (SIGBUS), and no handler in Python can prevent that. A read comes back short instead, which is an error
like any other. What a read brought stays as it is, whatever happens to the file.
"""

from __future__ import annotations

import os
from typing import cast, overload

from vmstate_tools.errors import StreamError

COPY_LIMIT = 16 << 20
"""Files of up to so many bytes are copied into memory when they are opened (5 ms)."""

BLOCK = 128 << 10
"""Bytes that are read at once where fewer are asked for: a walk from record to record asks for few."""

_LARGEST = 8 << 20  # bytes of a range that is kept for who asks for parts of it


class FileView:
    """A FileView reads each range of an open file when it is asked for; it offers what `memoryview` does of slices.

    `view[a:b]` is a read-only memoryview of a copy of these bytes, `view[i]` an int, `len(view)` the size of the file
    when it was opened: a file that grows is read up to there. It is no buffer itself: give a slice to numpy or struct.

    Raises StreamError where the file has become shorter, OSError where it cannot be read.
    """

    def __init__(self, descriptor: int, name: str, start: int, stop: int) -> None:
        self._descriptor = descriptor
        self._name = name
        self._start = start
        self._stop = stop
        self._block = (0, memoryview(b""))  # where the last block read begins, and its bytes

    def __len__(self) -> int:
        return self._stop - self._start

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> memoryview: ...
    def __getitem__(self, key: int | slice) -> int | memoryview:
        if isinstance(key, slice):
            first, last, step = key.indices(len(self))
            found = self._range(first, max(last, first))
            return found if step == 1 else found[::step]
        if not -len(self) <= key < len(self):
            raise IndexError(key)
        return self._range(key % len(self), key % len(self) + 1)[0]

    def _range(self, first: int, last: int) -> memoryview:
        begin, block = self._block
        if begin <= first and last <= begin + len(block):
            return block[first - begin : last - begin]
        block = self._read(first, max(last, min(first + BLOCK, len(self))))
        if len(block) <= _LARGEST:
            self._block = first, block
        return block[: last - first]

    def _read(self, first: int, last: int) -> memoryview:
        data = read_range(self._descriptor, self._start + first, self._start + last, self._name)
        return memoryview(data)

    def behind(self, start: int) -> FileView:
        """Returns the bytes from `start` on, of which none is read yet."""
        return FileView(self._descriptor, self._name, self._start + start, self._stop)

    def release(self) -> None:
        """Forgets what was read."""
        self._block = 0, memoryview(b"")


def read_range(descriptor: int, start: int, stop: int, name: str) -> bytes:
    """Returns the bytes [start, stop) of an open file. Raises StreamError where the file ends before."""
    data = os.pread(descriptor, stop - start, start)
    if len(data) < stop - start:  # a file's end, a signal, or more than one read gives (2 GiB)
        pieces = [data]
        at = start + len(data)
        while at < stop:
            more = os.pread(descriptor, stop - at, at)
            if not more:
                raise StreamError(
                    f"the file was truncated to {os.fstat(descriptor).st_size} bytes while it was read",
                    offset=at,
                    expected=f"bytes up to {stop}, which it had when it was opened",
                    file=name,
                )
            pieces.append(more)
            at += len(more)
        data = b"".join(pieces)
    return data


def behind(view: memoryview, start: int) -> memoryview:
    """Returns the view from `start` on; nothing of it is read."""
    if isinstance(view, FileView):
        return cast("memoryview", view.behind(start))
    return view[start:]
