"""How much a file may unpack to, and how long that may take: both follow what is read, not what it claims.

Whoever trusts a file names `max_size`, and with it lifts all limits but that one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source.detect import LEAD_LIMIT, LIBVIRT_FORMAT_AT, LIBVIRT_SPARSE, glance, identify

if TYPE_CHECKING:
    from vmstate_tools.source.sink import Sink

MAX_SIZE = 64 << 30
"""Unpacked bytes taken when the caller names no `max_size`. Runs of zeros count, though they cost no disk."""

MAX_SECONDS = 0.5
"""Seconds of CPU that unpacking may take for each started MiB of the outermost file, all containers together.

Decompressors take 2 to 50 ms for a MiB of a real stream. What takes longer is frames without content one after
another, or content that packs a thousand times.
"""

MAX_RATIO = 8192
"""Unpacked bytes per packed byte, beyond the first `FREE`, past which content is refused as a bomb.

Streams that carry zero pages in full (`zero-page-detection=none`) pack best: 8 changing bytes in every 4104.
With nothing else in 128 MiB that gave 479 (gzip), 1663 (zstd), 1668 (xz) and 7271 (bzip2).
"""

MAX_REPEAT = 64 << 20
"""Bytes of one 64 KiB block over and over past which content is refused as a bomb.

A plain stream has a record at least with each page, so its blocks differ. Only mapped-ram leaves holes as
large as guest memory. A stream that announces it is exempt from both limits, and a qcow2 image from this one.
"""

FREE = 64 << 20
"""Unpacked bytes before the ratio and the repeats are looked at."""

_MIB = 1 << 20
_HEAD = 64 << 10
_CONFIGURATION = 4 << 10  # a stream's configuration section, with its capabilities, ends well before


class Clock:
    """A Clock holds the CPU time that unpacking one file may take, whatever containers are in one another.

    `size` is that of the outermost file in bytes, None where it is not known before it was read: then each MiB counts
    when it has come.
    """

    def __init__(self, size: int | None) -> None:
        self.size = size
        self.used = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Starts to count: time goes by from here on."""
        self._since = time.thread_time()

    def check(self, packed: int) -> str | None:
        """Returns what is wrong, if more time went by than `packed` bytes, or the whole file, may take."""
        now = time.thread_time()
        self.used += now - (now if self._since is None else self._since)
        self._since = now
        mebibytes = -(-max(packed if self.size is None else self.size, 1) // _MIB)
        if self.used <= MAX_SECONDS * mebibytes:
            return None
        return f"unpacking took {self.used:.1f} s of CPU, more than {MAX_SECONDS} s for each of {mebibytes} MiB"


class Gate:
    """Decides, while content is being unpacked, whether to go on."""

    def __init__(self, name: str, max_size: int | None, clock: Clock) -> None:
        self._name = name
        self._limit = MAX_SIZE if max_size is None else max_size
        self._clock = clock if max_size is None else None
        self._known = False
        self._looked = 0
        self._ratio = max_size is None
        self._repeat = max_size is None
        clock.start()

    def check(self, packed: int, sink: Sink) -> None:
        """Raises StreamError where what came is of no known kind, or goes past a limit; `packed` bytes were read."""
        if sink.size > self._limit:
            raise self._refusal(f"unpacks to more than {self._limit} bytes", "a larger max_size=")
        if not self._known and sink.size >= max(_HEAD, 2 * self._looked):
            with sink.head() as head:
                self._look(head)
        if self._clock is not None and (late := self._clock.check(packed)):
            raise self._refusal(late)
        if sink.size <= FREE:
            return
        if self._ratio and sink.size > MAX_RATIO * packed:
            raise self._refusal(f"{packed} bytes unpack to {sink.size} and more, over {MAX_RATIO} times as many")
        if self._repeat and sink.repeat > MAX_REPEAT:
            raise self._refusal(f"unpacks to {sink.repeat} and more bytes of the same, over {MAX_REPEAT}")

    def _look(self, head: memoryview) -> None:
        """Takes note of what it is. Raises StreamError where it is nothing that this package reads."""
        self._looked = len(head)
        found = glance(head)
        if found is None:
            if len(head) > LEAD_LIMIT:
                identify(head, self._name)
            return
        kind, at = found
        if at + _CONFIGURATION > len(head):
            return
        self._known = True
        mapped_ram = (
            head[at + LIBVIRT_FORMAT_AT :][:4] in LIBVIRT_SPARSE
            if kind == "libvirt"
            else b"\x0amapped-ram" in bytes(head[at : at + _CONFIGURATION])
        )
        self._ratio = self._ratio and not mapped_ram
        self._repeat = self._repeat and not mapped_ram and kind != "qcow2"

    def _refusal(
        self, what: str, expected: str = "less, or max_size= in Python, or a file that you unpacked"
    ) -> StreamError:
        return StreamError(what, expected=expected, file=self._name)
