"""One pass over the records of a stream, in their order: from a file as a whole, or piece by piece from a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from vmstate_tools.errors import StreamError, TruncatedError
from vmstate_tools.format import framing
from vmstate_tools.format.framing import Command
from vmstate_tools.format.framing import Record as RecordType
from vmstate_tools.format.shared_limit import SharedLimit
from vmstate_tools.stream import configuration
from vmstate_tools.stream.package import Package
from vmstate_tools.stream.ram import Ram
from vmstate_tools.stream.records import Repeated, Section, repeats
from vmstate_tools.stream.section_end import SectionEnds

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmstate_tools.stream.records import Run, StreamRecord
    from vmstate_tools.stream.section_readers import Readers

# Records that a stream may have, whatever its size, and how many more for each byte of the file: 65,536 in the first
# MiB, each 10 us from opening to building. A run of equal records counts once; then 108 are the most seen.
_RECORDS, _BYTES_PER_RECORD = 1 << 15, 32
# As how many records a section counts, or a part of one: to look for its end, and to build it, takes 50 us.
_SECTION = 6

_EXPECTED = "a configuration, section, command or end of file record"

Found = TypeVar("Found")


def most_records(packed_size: int) -> int:
    """Returns how many records a stream in a file of so many bytes, compressed or not, may have."""
    return _RECORDS + packed_size // _BYTES_PER_RECORD


class Feed(Protocol):
    """Where a walk has its bytes from.

    Attributes
    ----------
    view : the bytes at hand. Offsets in it are those of the walk.
    base : how many bytes of the stream came before `view`.
    what : what ends when there are no more bytes, for errors: "file" or "stream".
    over : nothing is to come behind `view`.
    """

    view: memoryview
    base: int
    what: str
    over: bool

    def more(self, keep: int) -> int | None:
        """Gets more bytes, in a new `view`; what stands before `keep` is not needed any more.

        Returns where the byte at `keep` stands then, or None where the stream has no more.
        """


class WholeFile:
    """A stream that is there as a whole."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.base = 0
        self.what = "file"
        self.over = True

    def more(self, keep: int) -> int | None:
        """Returns None: there is no more."""
        return None


def has_pages(section: Section) -> bool:
    """Tells whether a RAM section has more than its end mark, or begins or ends the RAM."""
    return section.part != "part" or section.payload_size != 8


class Walk:
    """Reads record after record, up to the end of file mark and the vmdesc behind it.

    Parameters
    ----------
    feed : where the bytes come from.
    found : called with each record, or run of equal ones, when it is read.
    ram : makes the RAM state; called as `Ram` is, when the first RAM section comes.
    page_size : of the target in bytes, where it is known beforehand.
    partial : what a file has that was cut short is wanted.
    most_records : how many records there may be; a run of equal ones counts once, a section as six.

    Attributes
    ----------
    readers : what reads the sections' payloads; to be set before the walk begins.
    configuration : `name`, and `page_bits`, `capabilities`, `uuid` where sent.
    switched : the guest had gone over to the destination (postcopy).
    section_at : the section that is being read.
    """

    readers: Readers

    def __init__(
        self,
        feed: Feed,
        found: Callable[[StreamRecord | Run], object],
        ram: Callable[..., Ram] = Ram,
        *,
        page_size: int | None = None,
        partial: bool = False,
        most_records: int = 1 << 62,
    ) -> None:
        self.feed = feed
        self.found = found
        self.view = feed.view
        self.configuration: dict[str, Any] = {}
        self.ends = SectionEnds(partial=partial)
        self.switched = False
        self.section_at: Section | None = None
        self._make_ram = ram
        self._ram: Ram | None = None
        self._page_size = page_size
        self._postcopy = False
        self._package = Package()
        self._most_records = most_records
        self._limit = SharedLimit(most_records)
        self._last: Section | None = None

    @property
    def ram(self) -> Ram:
        """Returns the RAM state; made when it is first asked for, of what the stream has said up to there."""
        if self._ram is None:
            bits = self.configuration.get("page_bits")
            self._ram = self._make_ram(
                self.view,
                page_size=self._page_size or (1 << bits if bits else None),
                capabilities=frozenset(self.configuration.get("capabilities", ())),
                postcopy=self._postcopy,
            )
        return self._ram

    def connect(self, view: memoryview) -> None:
        """Goes on with another connection: `view` reaches from the stream's start to that connection's end."""
        self.view = self.feed.view = view
        if self._ram is not None:
            self._ram.connect(view)

    def close(self) -> None:
        """Lets go of the view."""
        self.view = self.feed.view = memoryview(b"")
        if self._ram is not None:
            self._ram.close()

    # -- bytes that are not there yet ------------------------------------------------------------------------------

    def whole(self, read: Callable[[int], Found], offset: int) -> Found:
        """Returns `read(offset)`, with more bytes as long as it finds the stream at its end."""
        while True:
            try:
                return read(offset)
            except TruncatedError:
                offset = self._go_on(offset)

    def _go_on(self, offset: int) -> int:
        """Gets more bytes and returns where the byte at `offset` stands then; raises again if there are none."""
        moved = self.feed.more(offset)
        if moved is None:
            raise
        self.view = self.feed.view
        return moved

    # -- records ---------------------------------------------------------------------------------------------------

    def read_records(self, offset: int) -> int:
        """Reads records from `offset` on and returns where the last one ends.

        Raises StreamError; its offset counts from the beginning of the stream.
        """
        try:
            return self._read_records(offset)
        except StreamError as error:
            if error.offset is not None:
                error.offset += self.feed.base
            raise

    def _read_records(self, offset: int) -> int:
        before = None
        while True:
            self._package.leave(offset)
            kind, offset = self.whole(self._kind, offset)
            if self.stops_at(kind):
                return self.read_end(offset)
            if kind in framing.PART_NAMES:
                offset = self.read_section(offset)
            elif kind == RecordType.COMMAND:
                offset = self.whole(self.read_command, offset)
            elif kind == RecordType.CONFIGURATION and before is None:
                offset = self.whole(self.read_configuration, offset)
            elif kind == RecordType.SUBSECTION and before in (RecordType.CONFIGURATION, RecordType.SUBSECTION):
                offset = self.whole(self.read_configuration_subsection, offset)
            else:
                raise StreamError(f"found 0x{kind:02x}", offset=offset, expected=_EXPECTED)
            before = kind

    def _kind(self, offset: int) -> tuple[int, int]:
        if offset >= len(self.view):
            raise TruncatedError(f"the {self.feed.what} ends here, {self._place()}", offset=offset, expected=_EXPECTED)
        return self.view[offset], offset

    def _place(self) -> str:
        """Returns where in the stream the walk is, for an error."""
        last = self._last
        if last is None:
            return "before the first section"
        inside = last.how == "opaque" and last.bounded_by == "end of file mark"
        return f"{'in' if inside else 'after'} section {last.label}"

    def stops_at(self, kind: int) -> bool:
        """Tells whether a record of this type ends the walk."""
        return kind == RecordType.EOF

    def read_end(self, offset: int) -> int:
        """Reads the end of file mark and the vmdesc behind it, and returns where they end."""
        if self._package.end is not None:
            raise StreamError("the stream ends in a package", offset=offset, expected="a record")
        offset = self._add(framing.parse(framing.EOF, self.view, offset, _EXPECTED))
        if offset < len(self.view) and self.view[offset] == RecordType.VMDESCRIPTION:
            offset = self._add(framing.parse(framing.VMDESCRIPTION, self.view, offset, "a vmdesc"))
        return offset

    def _add(self, record: framing.Parsed) -> int:
        self._count(record.offset)
        self.found(record)
        return record.end

    def _count(self, offset: int, records: int = 1) -> None:
        if not self._limit.take(records):
            raise StreamError(
                "one record too many",
                offset=offset,
                expected=f"at most {self._most_records} in a file of this size; equal ones in a row count once, "
                f"sections as {_SECTION} each",
            )

    def read_configuration(self, offset: int) -> int:
        """Reads the head of the configuration section and returns where it ends; its subsections follow."""
        return self._add(configuration.read_head(self.view, offset, self.configuration))

    def read_configuration_subsection(self, offset: int) -> int:
        """Reads a subsection of the configuration and returns where it ends."""
        return self._add(configuration.read_subsection(self.view, offset, self.configuration))

    def read_command(self, offset: int) -> int:
        """Reads a command, and equal ones behind it, and returns where they end."""
        record = framing.parse(framing.COMMAND, self.view, offset, "a command")
        command = record.value.command
        if command == Command.PACKAGED:
            self._package.enter(record, self.view)
            return self._add(record)
        self._postcopy |= command == Command.POSTCOPY_ADVISE
        self.switched |= command == Command.POSTCOPY_RUN
        self._add(record)
        count = repeats(self.view, offset, record.end) if self._package.end is None else 0
        if not count:
            return record.end
        self.found(Repeated(record, count))
        return record.end + record.size * count

    # -- sections ----------------------------------------------------------------------------------------------------

    def read_section(self, offset: int) -> int:
        """Reads a section, and equal ones behind it, and returns where they end."""
        section = self.section_at = self.whole(lambda at: self.ends.read_header(self.view, at), offset)
        try:
            end = self._rest_of(section)
        except StreamError as error:
            self._locate(error, section)
            raise
        self._count(section.offset, _SECTION)
        self.found(section)
        self._last = section
        self.ends.known = True
        self.section_at = None
        return end + self._read_repeats(section, end)

    def _rest_of(self, section: Section) -> int:
        """Reads payload and footer of a section whose header was read, and returns where it ends."""
        start = at = section.payload_offset
        before = self.feed.base
        while True:
            try:
                end = self.readers.read(section, self.view, at)
                break
            except TruncatedError:
                at = self._go_on(max(at, self.readers.done_to))
        section.payload_size = self.feed.base + end - (before + start)
        return self.whole(lambda at: self.ends.read_footer(section, self.view, at, over=self.feed.over), end)

    def _locate(self, error: StreamError, section: Section) -> None:
        """Says in an error which section was read, and that the stream ends in it if it does."""
        error.section = error.section or section.label
        if isinstance(error, TruncatedError):
            error.offset = len(self.view)
            error.message = f"the {self.feed.what} ends here, in section {section.label}"
        elif error.offset is None:
            error.offset = section.payload_offset

    def _read_repeats(self, section: Section, end: int) -> int:
        """Reads sections that are equal to this one behind it, and returns how many bytes they have."""
        if self._package.end is not None or section.leaves or self.readers_may_differ(section):
            return 0
        count = repeats(self.view, section.offset, end)
        behind = end + section.size * count
        if count and section.footer is None and self.view[behind : behind + 1] == bytes([RecordType.SECTION_FOOTER]):
            count -= 1  # the last one is another: it has a footer
        if count and section.how == "ram":
            self.ram.reader.take_empty(section.payload_offset + section.size, section.size, count)
        if count:
            self.found(Repeated(section, count))
        return section.size * count

    def readers_may_differ(self, section: Section) -> bool:
        """Tells whether sections with the same bytes may be read otherwise: then each is read for itself."""
        return section.how != "ram" or has_pages(section)
