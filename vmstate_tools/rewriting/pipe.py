"""A stream on its way through a pipe: RAM goes on as it comes, the device sections behind it are changed.

QEMU sends RAM and what else it sends in rounds first, then every device once, then the vmdesc that tells their
fields. So the walk looks at no more than the headers until the last round is over; what follows is small, is held,
and is read as a stream of its own.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import struct
from dataclasses import replace
from typing import Protocol

import numpy as np

from vmstate_tools.errors import StreamError
from vmstate_tools.format import framing as wire
from vmstate_tools.format.framing import Command, Record
from vmstate_tools.format.ram_blocks import PAGE_SIZES
from vmstate_tools.format.sections import handwritten
from vmstate_tools.rewriting.changes import Change, Edit, patched
from vmstate_tools.stream.ram import COMPRESS_PAGE, CONTINUE, EOS, FLAGS, MEM_SIZE, MULTIFD_FLUSH, PAGE, XBZRLE, ZERO
from vmstate_tools.stream.records import command_name
from vmstate_tools.stream.stream import open_stream

_BUFFER = 1 << 20  # bytes; also the most a pipe takes at once without privileges
_MOST_BUFFER = 64 << 20  # for a record of another live section that must be seen whole
_MOST_DEVICES = 1 << 30  # bytes held of device sections and vmdesc
_ZEROS = 32  # zero pages in a row from which on numpy is faster

_be64 = struct.Struct(">Q").unpack_from
_be32 = struct.Struct(">I").unpack_from
_htab = struct.Struct(">IHH").unpack_from
_KINDS = frozenset({ZERO, PAGE, XBZRLE, COMPRESS_PAGE})


class Readable(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class Writable(Protocol):
    def write(self, data: memoryview, /) -> int | None: ...


def pass_through(source: Readable, sink: Writable, edit: Edit) -> list[Change]:
    """Copy a stream from one pipe to another and change its device sections.

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
    return _Walk(_Pipe(source, sink)).run(edit)


def widen(*descriptors: int) -> None:
    """Let pipes take more at once, where they are pipes and it is allowed."""
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _BUFFER)


class _Pipe:
    """A window on the bytes that go through: looked at up to `at`, read up to `end`."""

    def __init__(self, source: Readable, sink: Writable) -> None:
        self.source = source
        self.sink = sink
        self.buffer = memoryview(bytearray(_BUFFER))
        self.at = self.end = 0
        self.gone = 0  # bytes written
        self.over = False

    @property
    def offset(self) -> int:
        """Of what is looked at next, from the start of the stream."""
        return self.gone + self.at

    def fill(self, size: int) -> bool:
        """Have `size` bytes to look at; False if the stream ends before."""
        while self.end - self.at < size:
            if self.over:
                return False
            self._flush()
            if size > len(self.buffer):
                larger = memoryview(bytearray(size))
                larger[: self.end] = self.buffer[: self.end]
                self.buffer = larger
            self._read()
        return True

    def _flush(self) -> None:
        """Write what was looked at and move the rest to the front."""
        self.write(self.buffer[: self.at])
        rest = bytes(self.buffer[self.at : self.end])
        self.buffer[: len(rest)] = rest
        self.at, self.end = 0, len(rest)

    def write(self, data: memoryview) -> None:
        self.gone += len(data)
        while data:
            data = data[self.sink.write(data) or 0 :]

    def _read(self) -> None:
        n = self.source.readinto(self.buffer[self.end :]) or 0
        self.end += n
        self.over = n == 0

    def need(self, size: int, what: str) -> None:
        if not self.fill(size):
            raise StreamError("the stream ends", offset=self.gone + self.end, expected=what)

    def take(self, size: int, what: str) -> bytes:
        self.need(size, what)
        self.at += size
        return bytes(self.buffer[self.at - size : self.at])

    def skip(self, size: int, what: str) -> None:
        """Let `size` bytes through without looking at them."""
        while size > self.end - self.at:
            size -= self.end - self.at
            self.at = self.end
            self._flush()
            self._read()
            if self.over:
                raise StreamError("the stream ends", offset=self.gone, expected=what)
        self.at += size

    def rest(self) -> bytearray:
        """All that is still to come, held."""
        self._flush()
        held = bytearray(self.buffer[: self.end])
        self.end = 0
        while True:
            self._read()
            if self.over:
                return held
            held += self.buffer[: self.end]
            self.end = 0
            if len(held) > _MOST_DEVICES:
                raise StreamError(f"{len(held)} bytes of device sections", expected=f"at most {_MOST_DEVICES}")


class _Walk:
    def __init__(self, pipe: _Pipe) -> None:
        self.pipe = pipe
        self.head = b""  # file header and configuration
        self.page = 0  # bytes; 0 as long as nothing told it
        self.shared = False  # x-ignore-shared
        self.postcopy = False  # postcopy-ram was advised
        self.open: dict[int, tuple[str, int]] = {}  # section id -> idstr, version_id
        self.states: dict[int, dict[str, object]] = {}
        self.ended = False  # has a live section come to its end

    def run(self, edit: Edit) -> list[Change]:
        pipe = self.pipe
        self.head = pipe.take(8, "a migration stream")
        if self.head[:4] != wire.MAGIC:
            raise StreamError(f"found {self.head[:4]!r}", offset=0, expected="the magic 'QEVM'")
        pipe.need(1, "a record")
        if pipe.buffer[pipe.at] == Record.CONFIGURATION:
            self.configuration()
        while True:
            pipe.need(1, "a section, command or end of file record")
            kind = pipe.buffer[pipe.at]
            if kind == Record.EOF or (kind == Record.SECTION_FULL and self.ended):
                return self.devices(edit)
            if kind == Record.COMMAND:
                self.command()
            elif kind in wire.PART_NAMES:
                self.section(kind)
            else:
                raise StreamError(f"found 0x{kind:02x}", offset=pipe.offset, expected="a section or command")

    def devices(self, edit: Edit) -> list[Change]:
        """Hold, read, change and write the rest: the device sections, end mark and vmdesc."""
        rest = bytes(self.pipe.rest())
        with open_stream(self.head + rest) as stream:
            changes = [replace(change, offset=change.offset - len(self.head)) for change in edit(stream)]
        for piece in patched(memoryview(rest), changes):
            self.pipe.write(memoryview(piece))
        return changes

    # -- framing ----------------------------------------------------------------------------------------------

    def configuration(self) -> None:
        """The configuration section; it is kept, as the rest is read with it before."""
        pipe = self.pipe
        pipe.need(5, "a configuration section")
        size = _be32(pipe.buffer, pipe.at + 1)[0]
        if size > 4096:
            raise StreamError(f"a machine type's name of {size} bytes", offset=pipe.offset, expected="at most 4096")
        size += 5
        while True:
            pipe.need(size + 1, "a machine type's name")
            if pipe.buffer[pipe.at + size] != Record.SUBSECTION:
                break
            pipe.fill(size + 4096)
            size += self.configured(pipe.buffer[pipe.at + size : pipe.end])
        self.head += pipe.take(size, "a configuration section")

    def configured(self, view: memoryview) -> int:
        """The size of a subsection of the configuration."""
        what = "a subsection of the configuration"
        header = wire.parse(wire.SUBSECTION_HEADER, view, 0, what)
        fmt = wire.CONFIGURATION_SUBSECTIONS.get(header.value.name)
        if fmt is None:
            raise StreamError(f"unknown subsection {wire.name(header.value.name)!r}", section="configuration")
        body = wire.parse(fmt, view, 0, what)
        if "page_bits" in body.value:
            bits = body.value.page_bits
            if not 10 <= bits <= 16:
                raise StreamError(f"{bits} target page bits", section="configuration", expected="between 10 and 16")
            self.page = 1 << bits
        capabilities = body.value.get("capabilities", ())
        self.shared |= b"x-ignore-shared" in capabilities
        if b"mapped-ram" in capabilities:
            raise StreamError("mapped-ram, whose pages have their places in a file", expected="a file, not a pipe")
        return body.size

    def command(self) -> None:
        command, size = struct.unpack(">xHH", self.pipe.take(5, "a command"))
        if command in (Command.PACKAGED, Command.ENABLE_COLO):
            raise StreamError(f"command {command_name(command)}", offset=self.pipe.offset, expected="precopy")
        self.postcopy |= command == Command.POSTCOPY_ADVISE and size > 0
        self.pipe.skip(size, "a command's data")

    def section(self, kind: int) -> None:
        pipe = self.pipe
        section_id = _be32(pipe.take(5, "a section header"), 1)[0]
        if kind in (Record.SECTION_START, Record.SECTION_FULL):
            name = pipe.take(pipe.take(1, "a section's name")[0], "a section's name")
            _instance, version = struct.unpack(">II", pipe.take(8, "a section header"))
            self.open[section_id] = (wire.name(name), version)
        elif section_id not in self.open:
            raise StreamError(f"section id {section_id} was never started", offset=pipe.offset)
        idstr, version = self.open[section_id]
        if kind == Record.SECTION_FULL:  # a device that is set up before RAM, since 8.0
            self.early(section_id)
        elif idstr == "ram":
            self.ram()
        elif idstr == "spapr/htab":
            self.htab(kind)
        else:
            self.other(idstr, version, section_id, wire.PART_NAMES[kind])
        self.ended |= kind == Record.SECTION_END
        if pipe.fill(1) and pipe.buffer[pipe.at] == Record.SECTION_FOOTER:
            footer = _be32(pipe.take(5, "a footer"), 1)[0]
            if footer != section_id:
                raise StreamError(
                    f"a footer of section id {footer}",
                    offset=pipe.offset - 5,
                    section=idstr,
                    expected=f"the footer of section id {section_id}",
                )

    def early(self, section_id: int) -> None:
        """A device's section ahead of RAM: nothing tells its size yet, but its footer its end."""
        pipe, mark = self.pipe, bytes([Record.SECTION_FOOTER]) + section_id.to_bytes(4, "big")
        size = 4096
        while True:
            more = pipe.fill(size)
            found = bytes(pipe.buffer[pipe.at : pipe.end]).find(mark)
            if found >= 0:
                pipe.at += found
                return
            if not more or size >= _MOST_BUFFER:
                raise StreamError("a device section before RAM", offset=pipe.offset, expected="a footer behind it")
            size *= 4

    # -- live sections ------------------------------------------------------------------------------------------

    def ram(self) -> None:
        """One payload of the RAM section: let its pages through up to its end mark (migration/ram.c: `ram_load`)."""
        pipe, what = self.pipe, "a RAM page record"
        while True:
            pipe.need(8, what)
            if self.page:
                pipe.skip(self._pages() - pipe.at, what)
                pipe.need(8, what)
            head = _be64(pipe.buffer, pipe.at)[0]
            flags = head & (self.page - 1 if self.page else FLAGS)
            kind = flags & ~CONTINUE
            if kind not in _KINDS:
                pipe.at += 8
                if kind == EOS:
                    return
                if flags == MEM_SIZE:
                    self.block_list(head & ~FLAGS)
                elif flags != MULTIFD_FLUSH:
                    raise StreamError(f"unknown RAM flags 0x{flags:x}", offset=pipe.offset - 8, expected=what)
                continue
            size = 8
            if not flags & CONTINUE:
                pipe.need(9, what)
                size += 1 + pipe.buffer[pipe.at + 8]
            if kind == PAGE:
                self.page = self.page or self._page_size(head, size)
                size += self.page
            elif kind == ZERO:
                size += 1
            elif kind == XBZRLE:
                pipe.need(size + 3, what)
                size += 3 + int.from_bytes(pipe.buffer[pipe.at + size + 1 : pipe.at + size + 3], "big")
            else:
                pipe.need(size + 4, what)
                size += 4 + _be32(pipe.buffer, pipe.at + size)[0]
            pipe.skip(size, what)

    def block_list(self, left: int) -> None:
        while left:
            name = self.pipe.take(self.pipe.take(1, "a RAM block's name")[0], "a RAM block's name")
            size = _be64(self.pipe.take(8, "a RAM block's size"))[0]
            if not name or not 0 < size <= left:
                raise StreamError(f"RAM block {wire.name(name)!r} of {size} bytes", offset=self.pipe.offset)
            left -= size
            if self.shared:
                self.pipe.skip(8, "a RAM block's address")
            elif self.postcopy and self.pipe.fill(8):
                # The page size of a block on huge pages; nothing announces it (see `ramblocks.read_block_list`).
                word = _be64(self.pipe.buffer, self.pipe.at)[0]
                self.pipe.at += 8 if word & (word - 1) == 0 and 4096 <= word < 1 << 48 else 0

    def _pages(self) -> int:
        """Where the row of full and zero pages that starts here ends; perhaps beyond what was read."""
        buffer, at, last = self.pipe.buffer, self.pipe.at, self.pipe.end - 8
        mask, full, zero, step = self.page - 1, PAGE | CONTINUE, ZERO | CONTINUE, 8 + self.page
        get = _be64
        while at <= last:
            flags = get(buffer, at)[0] & mask
            if flags == full:
                at += step
            elif flags == zero:
                ahead = at + 9 * _ZEROS
                if ahead <= last and get(buffer, ahead)[0] & mask == zero:
                    heads = np.ndarray(((last - at) // 9 + 1,), ">u8", buffer, at, (9,))
                    other = np.flatnonzero((heads & np.uint64(mask)) != zero)
                    at += 9 * (int(other[0]) if len(other) else len(heads))
                else:
                    at += 9
            else:
                break
        return at

    def _page_size(self, head: int, start: int) -> int:
        """The page size, where nothing tells it: the one with which another record follows this full page.

        Of several it is that with which the next page of the block follows; else the one most targets have.
        """
        pipe = self.pipe
        pipe.fill(start + PAGE_SIZES[0] + 8)
        fitting = []
        for size in PAGE_SIZES:
            at = pipe.at + start + size
            if at + 8 > pipe.end or head & (size - 1) & ~FLAGS:
                continue
            after = _be64(pipe.buffer, at)[0]
            kind = after & (size - 1) & ~CONTINUE
            if kind in _KINDS and after & CONTINUE and after & ~(size - 1) == (head & ~(size - 1)) + size:
                return size
            if kind in _KINDS or kind in (EOS, MULTIFD_FLUSH):
                fitting.append(size)
        if not fitting:
            raise StreamError("no record follows this page", offset=pipe.offset, expected="a page of 1 to 64 KiB")
        return 4096 if 4096 in fitting else fitting[0]

    def htab(self, kind: int) -> None:
        """The hash table of a pseries guest (hw/ppc/spapr.c: `htab_load`), chunk by chunk."""
        what = "the hash table"
        word = _be32(self.pipe.take(4, what))[0]
        if kind == Record.SECTION_START or word == 0xFFFFFFFF:
            return
        while True:
            _index, valid, invalid = _htab(self.pipe.take(8, what))
            if not valid and not invalid:
                return
            self.pipe.skip(16 * valid, what)

    def other(self, idstr: str, version: int, section_id: int, part: str) -> None:
        """Another live section: what reads it in a file reads it here, given enough of it."""
        if not handwritten.known(idstr):
            raise StreamError("a live section of a form that is not known", offset=self.pipe.offset, section=idstr)
        pipe, size = self.pipe, 4096
        state = self.states.setdefault(section_id, {})  # kept from one payload to the next
        while True:
            more = pipe.fill(size)
            view, after = pipe.buffer[: pipe.end], copy.deepcopy(state)
            try:
                end, _ = handwritten.parse(idstr, view, pipe.at, part=part, version_id=version, state=after)
            except StreamError as err:
                if not more or size >= _MOST_BUFFER:
                    err.offset, err.section = pipe.gone + (err.offset or 0), idstr
                    raise
                size *= 4
                continue
            self.states[section_id], pipe.at = after, end
            return
