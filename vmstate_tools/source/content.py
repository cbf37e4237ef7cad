"""Bytes in one piece: a mapped file, or what was unpacked, in memory while small and in a sparse file when not."""

from __future__ import annotations

import io
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source.magic import identify

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY_LIMIT = 64 << 20
"""Unpacked content up to this many bytes stays in memory; more goes to an unlinked temporary file."""

MAX_SIZE = 64 << 30
"""Unpacked bytes taken when the caller names no `max_size`. Runs of zeros count, though they cost no disk."""

MAX_RATIO = 2048
"""Unpacked bytes per packed byte, beyond the first `MEMORY_LIMIT`, past which content is refused as a bomb.

Even a stream that carries every zero page in full has a record of 8 changing bytes per page, and packs to a
few hundredths of that. Only mapped-ram leaves holes as large as guest memory: a stream that announces it is
exempt, and so is everything when the caller names `max_size`.
"""

DISK_SHARE = 0.5
"""The share of the free disk space that unpacked content may fill."""

_BLOCK = 64 << 10
_ZEROS = bytes(_BLOCK)
_HEAD = 64 << 10


class Content:
    """One contiguous read-only `view` of bytes, and what must be closed after it."""

    def __init__(self, data: bytes | bytearray | mmap.mmap) -> None:
        self._map = data if isinstance(data, mmap.mmap) else None
        self.view = memoryview(data).toreadonly()

    @classmethod
    def of_file(cls, file: IO[bytes]) -> Content:
        """Map a whole file, which may be closed afterwards. An empty one cannot be mapped."""
        if not os.fstat(file.fileno()).st_size:
            return cls(b"")
        return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def forget(self, start: int, stop: int) -> None:
        """Drop the resident pages that lie wholly in `[start, stop)`; they are read again when touched."""
        page = mmap.PAGESIZE
        start = -(-max(start, 0) // page) * page
        stop = min(stop, len(self.view)) // page * page
        if self._map is not None and start < stop:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def close(self) -> None:
        """Release the mapping; where arrays made over the view are alive it goes with the last of them."""
        try:
            self.view.release()
            if self._map is not None:
                self._map.close()
        except BufferError:
            pass


class ViewFile(io.RawIOBase):
    """A memoryview as a binary file, for libraries that want one. Nothing is copied but what is read."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = (0, self._position, len(self._view))[whence]
        self._position = max(0, origin + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        # Not readinto(): RawIOBase.read() would first allocate as much as was asked for.
        stop = len(self._view) if size is None or size < 0 else self._position + size
        data = bytes(self._view[self._position : stop])
        self._position += len(data)
        return data


def collect(pieces: Iterator[tuple[int, bytes]], name: str, max_size: int | None) -> Content:
    """Gather unpacked pieces into one `Content`, watching that they are a stream and no bomb.

    `pieces` yields (packed bytes read so far, next unpacked bytes). What has come is looked at after the first
    64 KiB, and again while all of it may be a lead-in: unknown content is refused before more is unpacked.
    An error that `pieces` raises passes through with the `Content` so far as its attribute `salvage`.
    """
    sink = _Sink()
    known = False
    looked = 0
    limit = MAX_SIZE if max_size is None else max_size
    sparse = max_size is not None
    try:
        for packed, data in pieces:
            sink.add(data)
            if sink.size > limit:
                raise StreamError(f"unpacks to more than {limit} bytes", expected="a larger max_size", file=name)
            if not known and sink.size >= max(_HEAD, 2 * looked):
                looked = sink.size
                head = sink.head()
                known = identify(head, name, complete=False) is not None
                sparse = sparse or b"\x0amapped-ram" in bytes(head[:_HEAD])
            if not sparse and sink.size > MEMORY_LIMIT and sink.size > MAX_RATIO * packed:
                raise StreamError(
                    f"{packed} bytes unpack to over {sink.size}: not a migration stream",
                    expected=f"at most {MAX_RATIO} times, unless max_size is given",
                    file=name,
                )
    except StreamError as error:
        error.salvage = sink.finish()  # type: ignore[attr-defined]
        raise
    except BaseException:
        sink.finish().close()
        raise
    return sink.finish()


class _Sink:
    """Collects bytes in memory, then in a temporary file whose zero blocks are holes."""

    def __init__(self) -> None:
        self.size = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._written = 0
        self._room = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self._file is None and self.size > MEMORY_LIMIT:
            self._spill()
        if self._file is None:
            self._memory += data
        else:
            self._write(data)

    def head(self) -> memoryview:
        """What has been collected, while it is still in memory (a lead-in is shorter than `MEMORY_LIMIT`)."""
        return memoryview(bytes(self._memory))

    def finish(self) -> Content:
        if self._file is None:
            return Content(bytes(self._memory))
        with self._file as file:
            file.truncate(self.size)
            return Content.of_file(file)

    def _spill(self) -> None:
        # /tmp is often memory; /var/tmp is where large temporary files belong.
        folder = os.environ.get("TMPDIR") or ("/var/tmp" if Path("/var/tmp").is_dir() else None)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._room = int(shutil.disk_usage(folder or tempfile.gettempdir()).free * DISK_SHARE)
        self._write(self._memory)
        self._memory = bytearray()

    def _write(self, data: bytes | bytearray) -> None:
        assert self._file is not None
        view = memoryview(data)
        for at in range(0, len(view), _BLOCK):
            block = view[at : at + _BLOCK]
            if block == _ZEROS[: len(block)]:
                self._file.seek(len(block), os.SEEK_CUR)
                continue
            self._written += len(block)
            if self._written > self._room:
                raise StreamError(f"unpacks to more than the {self._room} bytes that the disk can spare")
            self._file.write(block)
