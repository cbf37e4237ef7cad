"""The walk over the whole of a stream that is in files: one, or one for each connection of its migration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.source.connections import POSTCOPY, RESUMED, Connection
from vmstate_tools.stream.records import Gap, Pages
from vmstate_tools.stream.section_readers import SectionReaders
from vmstate_tools.stream.walk import Walk, WholeFile, has_pages, most_records
from vmstate_tools.vmstate.builtin import least_release

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmstate_tools.stream.ram import Ram
    from vmstate_tools.stream.records import Run, Section, StreamRecord
    from vmstate_tools.vmstate.description import StreamDescription

# What a broken connection can lose of one record: a page of 64 KiB with a block's name, or a command.
_LONGEST_RECORD = 8 + 256 + (64 << 10) + 64

# Values that sections may have which QEMU writes by hand, whatever the file's size, and how many more for each byte of
# it: 131,072 in the first MiB, each 4 to 12 us. The most seen are 692; a hash table of the guest's has more.
_VALUES, _BYTES_PER_VALUE = 1 << 16, 16


class FileWalk(Walk):
    """Reads all connections of a migration, one after another, in a view in which they are joined.

    Parameters
    ----------
    view : the bytes of all.
    records : where the records go; what was read before is in it.
    vmdesc, borrowed : the stream's description, and that of another stream for what it does not describe.
    check : called in a partial file with each section that has a description; raises StreamError where it cannot be
        decoded.
    packed_size : bytes of the files, as they are compressed.
    """

    def __init__(
        self,
        view: memoryview,
        records: list[StreamRecord | Run],
        ram: Callable[..., Ram],
        *,
        vmdesc: StreamDescription | None,
        borrowed: StreamDescription | None,
        partial: bool,
        packed_size: int,
        check: Callable[[Section], object],
    ) -> None:
        super().__init__(
            WholeFile(view),
            records.append,
            ram,
            page_size=vmdesc.page_size if vmdesc else None,
            partial=partial,
            most_records=most_records(packed_size),
        )
        self.records = records
        self._check = check
        self.readers: SectionReaders = SectionReaders(
            self.ends,
            lambda: self.ram,
            vmdesc,
            borrowed,
            self._release,
            most_values=_VALUES + packed_size // _BYTES_PER_VALUE,
        )

    def _release(self) -> str | None:
        """Returns the first release that had this machine type, where the stream says it."""
        name = self.configuration.get("name")
        return least_release(name) if name else None

    def readers_may_differ(self, section: Section) -> bool:
        """Tells whether sections with the bytes of this one may be read otherwise: by a description of their own."""
        if section.how == "ram":
            return has_pages(section)
        return section.part != "full" or section.how == "handwritten" or self.readers.describes(section)

    def _rest_of(self, section: Section) -> int:
        end = super()._rest_of(section)
        if self.ends.partial and section.description is not None:
            self._check(section)  # what is kept of the file can be decoded
        return end

    def read(self, offset: int, connections: Sequence[Connection]) -> None:
        """Reads the records from `offset` on, and those of further connections."""
        whole = self.view
        if not connections:
            self.read_records(offset)
            return
        for connection, next_ in zip(connections, [*connections[1:], None], strict=True):
            self.connect(whole[: connection.end])
            try:
                if connection.kind == POSTCOPY:
                    self._read_pages(connection)
                else:
                    self.read_records(connection.start or offset)
            except StreamError:
                successor = POSTCOPY if connection.kind == POSTCOPY else RESUMED
                if next_ is None or next_.kind != successor or not self.switched:
                    raise
                self._cut_off(connection)
            else:
                self._rest(connection, "behind the stream")
        self.connect(whole)

    @property
    def end(self) -> int:
        """Returns where the last record that was read ends."""
        return max((r.offset + r.size for r in self.records), default=0)

    def _read_pages(self, connection: Connection) -> None:
        """Reads the pages that the destination asked for."""
        end = self.ram.parse(connection.start, part="part")
        self.records.append(Pages(connection.start, end - connection.start))

    def _cut_off(self, connection: Connection) -> None:
        """Keeps the whole records of a connection that broke. Raises StreamError where more than one is lost."""
        end = self.end
        if connection.kind == POSTCOPY:
            end = self.ram.parsed_to
            self.records.append(Pages(connection.start, end - connection.start))
        elif self.section_at is not None and self.section_at.idstr == "ram":
            end = max(end, self.ram.parsed_to)
            self.section_at.payload_size = end - self.section_at.payload_offset
            self.records.append(self.section_at)
            self.section_at = None
        if connection.end - end > _LONGEST_RECORD:
            raise StreamError(
                f"{connection.end - end} bytes that are no record", offset=end, expected="the connection's end"
            )
        self._rest(connection, "cut off")

    def _rest(self, connection: Connection, what: str) -> None:
        """Adds what no record holds at a connection's end."""
        end = self.end
        if end < connection.end:
            self.records.append(Gap(end, connection.end - end, what))
