"""A stream on its way through a pipe: RAM goes on as it comes, the device sections behind it are changed.

QEMU sends RAM and what else it sends in rounds first, then every device once, then the vmdesc that describes their
fields. So the walk looks at the records until the last round is over; what follows is small, is held, and is read as a
stream of its own.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from vmstate_tools.errors import StreamError, TruncatedError
from vmstate_tools.format import framing
from vmstate_tools.format.framing import Command, Record
from vmstate_tools.format.sections import handwritten, htab
from vmstate_tools.rewriting.changes import Change, Edit, patched
from vmstate_tools.stream.records import Section, command_name
from vmstate_tools.stream.stream import open_stream, read_header
from vmstate_tools.stream.walk import Walk

if TYPE_CHECKING:
    from vmstate_tools.stream.records import Run, StreamRecord

_BUFFER = 1 << 20  # bytes; also the most a pipe takes at once without privileges
_MOST_BUFFER = 64 << 20  # for a record that must be seen whole
_MOST_DEVICES = 1 << 30  # bytes held of device sections and vmdesc
_PAGES_TO_SEE = 5 << 20  # bytes of RAM in which its page size is to be seen: 64 pages of 64 KiB


class Readable(Protocol):
    """A Readable is where the stream comes from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Reads into `buffer` and returns how many bytes; 0 at the end."""


class Writable(Protocol):
    """A Writable is where the stream goes."""

    def write(self, data: memoryview, /) -> int | None:
        """Writes `data` and returns how many bytes of it."""


def pass_through(source: Readable, sink: Writable, edit: Edit) -> list[Change]:
    """Copies a stream from one pipe to another and changes its device sections.

    Memory does not grow with the stream. Nothing of the device sections is written before all of them were read and
    `edit` has agreed: a destination never gets a half-changed stream.

    Returns
    -------
    What was changed; offsets count from the first device section.

    Raises
    ------
    StreamError : not a migration stream, or one that cannot be followed on a pipe (mapped-ram, postcopy).
    RewriteError : as `edit` does.
    """
    return _PipeWalk(_Pipe(source, sink)).run(edit)


def widen(*descriptors: int) -> None:
    """Lets pipes take more at once, where they are pipes and it is allowed."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _BUFFER)


class _Pipe:
    """A window on the bytes that go through; what was looked at is written when more is needed. See `walk.Feed`."""

    what = "stream"

    def __init__(self, source: Readable, sink: Writable) -> None:
        self.source = source
        self.sink = sink
        self.base = 0
        self.over = False
        self.view = memoryview(b"")
        self._buffer = memoryview(bytearray(_BUFFER))

    def more(self, keep: int) -> int | None:
        """Writes what stands before `keep` and reads on, twice as much as stands behind it at least."""
        if self.over:
            return None
        left = len(self.view) - keep
        if left >= _MOST_BUFFER:
            raise StreamError(
                "a record that is too long to be held",
                offset=keep,
                expected=f"at most {_MOST_BUFFER} bytes",
            )
        self.fill(keep, 2 * left + 1)
        return 0

    def fill(self, keep: int, size: int) -> None:
        """Writes what stands before `keep` and has `size` bytes behind it at hand, as far as there are as many."""
        self.write(self.view[:keep])
        self.base += keep
        rest = bytes(self.view[keep:])
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        self._buffer[: len(rest)] = rest
        end = len(rest)
        while end < size and not self.over:
            end += self._read(end)
        self.view = self._buffer[:end]

    def _read(self, end: int) -> int:
        n = self.source.readinto(self._buffer[end:]) or 0
        self.over = n == 0
        return n

    def write(self, data: memoryview) -> None:
        """Writes all of `data`."""
        while data:
            data = data[self.sink.write(data) or 0 :]

    def rest(self, keep: int) -> bytes:
        """Writes what stands before `keep` and returns all that is still to come."""
        self.write(self.view[:keep])
        held = bytearray(self.view[keep:])
        while not self.over:
            n = self._read(0)
            held += self._buffer[:n]
            if len(held) > _MOST_DEVICES:
                raise StreamError(f"{len(held)} bytes of device sections", expected=f"at most {_MOST_DEVICES}")
        return bytes(held)


class _PipeWalk(Walk):
    """Reads the records up to the first device section behind the RAM, or the end mark."""

    def __init__(self, pipe: _Pipe) -> None:
        super().__init__(pipe, self._note)
        self.pipe = pipe
        self.readers: _LiveReaders = _LiveReaders(self)
        self.head = bytearray()  # file header and configuration
        self._live_ended = False

    def run(self, edit: Edit) -> list[Change]:
        """Passes the RAM on, and changes and passes on the rest."""
        header = self.whole(lambda at: read_header(self.view, at), 0)
        self.head += header.build()
        start = self.read_records(header.end)
        rest = self.pipe.rest(start)
        with open_stream(bytes(self.head) + rest) as stream:
            changes = [replace(change, offset=change.offset - len(self.head)) for change in edit(stream)]
        for piece in patched(memoryview(rest), changes):
            self.pipe.write(memoryview(piece))
        return changes

    def stops_at(self, kind: int) -> bool:
        """Tells whether a record of this type is not to be passed on before it was looked at with all that follow."""
        return kind == Record.EOF or (kind == Record.SECTION_FULL and self._live_ended)

    def read_end(self, offset: int) -> int:
        """Returns `offset`: what stands there is read later."""
        return offset

    def _note(self, record: StreamRecord | Run) -> None:
        if isinstance(record, Section):
            self._live_ended |= record.part == "end"
        elif isinstance(record, framing.Parsed) and record.format is not framing.COMMAND:
            self.head += record.build()  # of the configuration: the rest is read with it before
            if "mapped-ram" in self.configuration.get("capabilities", ()):
                raise StreamError("mapped-ram, whose pages have their places in a file", expected="a file, not a pipe")

    def read_command(self, offset: int) -> int:
        """Reads a command and returns where it ends; refuses what is not precopy."""
        command = framing.parse(framing.COMMAND, self.view, offset, "a command").value.command
        if command in (Command.PACKAGED, Command.ENABLE_COLO):
            raise StreamError(f"command {command_name(command)}", offset=offset, expected="precopy")
        return super().read_command(offset)


class _LiveReaders:
    """What finds the end of a section that is sent before the device sections: see `walk.Readers`."""

    def __init__(self, walk: _PipeWalk) -> None:
        self.walk = walk
        self.done_to = 0
        self._states: dict[int, dict[str, object]] = {}
        self._inside: Section | None = None  # of which a part was read for good

    def read(self, section: Section, view: memoryview, start: int) -> int:
        """Returns the end of the payload at `start`, or of what is left of it."""
        self.done_to = start
        if section.part == "full":
            return self._early(section, view, start)
        if section.idstr == "ram":
            return self._ram(section, view, start)
        if section.idstr == "spapr/htab":
            return self._htab(section, view, start)
        return self._handwritten(section, view, start)

    def _ram(self, section: Section, view: memoryview, start: int) -> int:
        section.how = "ram"
        pipe, reader = self.walk.pipe, self.walk.ram.reader
        if not reader.page_size and len(view) - start < _PAGES_TO_SEE and not pipe.over:
            pipe.fill(start, _PAGES_TO_SEE)
            view, start = pipe.view, 0
            self.walk.view = view
        reader.move(view, whole=pipe.over)
        try:
            return reader.parse(start)
        finally:
            self.done_to = reader.parsed_to

    def _early(self, section: Section, view: memoryview, start: int) -> int:
        """Returns the end of a device's section ahead of RAM (since 8.0), by its footer: nothing says its size yet."""
        mark = framing.SECTION_FOOTER.build({"section_id": section.section_id})
        found = bytes(view[start:]).find(mark)
        if found < 0:
            raise TruncatedError("a device section before RAM", offset=start, expected="a footer behind it")
        return start + found

    def _htab(self, section: Section, view: memoryview, start: int) -> int:
        """Reads the hash table of a pseries guest (hw/ppc/spapr.c: `htab_load`) by chunks: it may have gigabytes."""
        at = start
        if self._inside is not section:
            if len(view) < at + 4:
                raise TruncatedError("the hash table ends", offset=at, expected="its size")
            size = int.from_bytes(view[at : at + 4], "big")
            at += 4
            if section.part == "start" or size == 0xFFFFFFFF:
                return at
            self._inside, self.done_to = section, at
        while True:
            head = at + htab.CHUNK.size
            _, valid, invalid = htab.CHUNK.unpack(view[at:head]) if head <= len(view) else (0, 0, 0)
            end = head + htab.HPTE * valid
            if end > len(view):
                raise TruncatedError("the hash table ends", offset=at, expected="a chunk of it")
            self.done_to = at = end
            if not valid and not invalid:
                return at

    def _handwritten(self, section: Section, view: memoryview, start: int) -> int:
        """Returns the end of another live section: what reads it in a file reads it here, given enough of it."""
        if not handwritten.known(section.idstr):
            raise StreamError("a live section of a form that is not known", offset=start, section=section.idstr)
        state = copy.deepcopy(self._states.get(section.section_id, {}))  # carried from one payload to the next
        try:
            end, _ = handwritten.parse(
                section.idstr, view, start, part=section.part, version_id=section.version_id, state=state
            )
        except StreamError as error:
            if not self.walk.pipe.over:
                raise TruncatedError(error.message, offset=error.offset, expected=error.expected) from None
            raise
        self._states[section.section_id] = state
        return end
