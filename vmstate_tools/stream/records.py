"""The records that a stream consists of: sections, runs of equal records, pages outside any section, and gaps."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, TypeGuard, TypeVar, cast, overload

import numpy as np

from vmstate_tools.format import framing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vmstate_tools.format.sections.handwritten import Leaf
    from vmstate_tools.vmstate.description import Description, Vmsd

_LONGEST = 4096  # bytes of a record that is looked for behind itself
_FIRST, _MORE = 64, 1 << 16  # records compared at once, at first and at most


class Section:
    """A Section is one SECTION_START, PART, END or FULL record, with payload and footer. Offsets and sizes in bytes.

    Attributes
    ----------
    part : 'start', 'part', 'end' or 'full'.
    how : what it was read by: 'ram', 'handwritten', 'vmdesc', 'borrowed', 'built-in'; 'opaque' where nothing did.
    bounded_by : of an opaque one, 'footer', 'next header' or 'end of file mark'.
    """

    __slots__ = (
        "bounded_by",
        "description",
        "footer",
        "header",
        "how",
        "idstr",
        "instance_id",
        "leaves",
        "part",
        "payload_size",
        "section_id",
        "version_id",
    )

    def __init__(
        self, idstr: str, instance_id: int, version_id: int, section_id: int, part: str, header: framing.Parsed
    ) -> None:
        self.idstr = idstr
        self.instance_id = instance_id
        self.version_id = version_id
        self.section_id = section_id
        self.part = part
        self.header = header
        self.payload_size = 0
        self.footer: framing.Parsed | None = None
        self.how = "opaque"
        self.bounded_by = "description"
        self.description: Description | None = None
        self.leaves: list[Leaf] = []

    @property
    def offset(self) -> int:
        """Returns where its header begins."""
        return self.header.offset

    @property
    def payload_offset(self) -> int:
        """Returns where its payload begins."""
        return self.header.end

    @property
    def payload_end(self) -> int:
        """Returns where its payload ends, and its footer begins if it has one."""
        return self.header.end + self.payload_size

    @property
    def size(self) -> int:
        """Returns the bytes of header, payload and footer."""
        return self.header.size + self.payload_size + (self.footer.size if self.footer else 0)

    @property
    def described(self) -> bool:
        """Tells whether its fields are what `description` says. Otherwise `leaves` has them, or nothing has."""
        return self.description is not None and not self.leaves

    @property
    def label(self) -> str:
        """Returns idstr/instance_id."""
        return f"{self.idstr}/{self.instance_id}"

    def moved(self, by: int) -> Section:
        """Returns an equal section, without leaves, that stands `by` bytes later."""
        other = Section(
            self.idstr, self.instance_id, self.version_id, self.section_id, self.part, _moved(self.header, by)
        )
        other.payload_size, other.how, other.bounded_by = self.payload_size, self.how, self.bounded_by
        other.description = self.description
        other.footer = _moved(self.footer, by) if self.footer else None
        return other

    def __repr__(self) -> str:
        return (
            f"<Section {self.label} version {self.version_id} {self.part} "
            f"at {self.offset}, {self.size} bytes, {self.how}>"
        )

    def _repr_html_(self) -> str:
        from vmstate_tools.stream.html import table, text

        facts = [
            f"version {self.version_id}",
            self.part,
            f"at {self.offset:,}",
            f"{self.size:,} bytes, {self.payload_size:,} of them payload",
            f"read by: {self.how}",
        ]
        if self.how == "opaque":
            facts.append(f"bounded by: {self.bounded_by}")
        rows: Iterable[tuple[str, str, int | str]] = ((leaf.path, leaf.type, leaf.size) for leaf in self.leaves)
        if self.description is not None:
            rows = _described_fields(self.description.vmsd)
        fields = table(["field", "type", ">size"], rows) if self.description is not None or self.leaves else ""
        return f"<p><b>{text(self.label)}</b><br>{text(', '.join(facts))}</p>{fields}"


def _described_fields(vmsd: Vmsd) -> Iterator[tuple[str, str, str]]:
    """Yields name, type and extent of the fields of a vmsd, then of its subsections."""
    for field in vmsd.fields:
        extent = f"{field.size:,}" if field.count is None else f"{field.count:,} × {field.size:,}"
        yield field.label, field.type, extent
    for sub in vmsd.subsections:
        yield f"subsection {sub.name}", f"version {sub.version_id}", ""
        yield from _described_fields(sub)


def _moved(record: framing.Parsed, by: int) -> framing.Parsed:
    """Returns an equal record that stands `by` bytes later."""
    return framing.Parsed(record.format, record.value, record.offset + by, record.size)


class Pages:
    """RAM records of a connection that carries nothing else: no section is around them."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size


class Gap:
    """A Gap is bytes outside any record: before the stream starts, behind its end, or not read (`partial`)."""

    def __init__(self, offset: int, size: int, what: str) -> None:
        self.offset = offset
        self.size = size
        self.what = what


Record = TypeVar("Record", bound=Section | framing.Parsed)


class Repeated(Generic[Record]):
    """A Repeated is `count` more records behind `first`, a section or a command, each with its bytes.

    QEMU sends PARTs without a page while another device has more to send, a hundred thousand of them in a row.
    """

    def __init__(self, first: Record, count: int) -> None:
        self.first: Record = first
        self.count = count

    @property
    def offset(self) -> int:
        """Returns where the first of the `count` records begins."""
        return self.first.offset + self.first.size

    @property
    def size(self) -> int:
        """Returns the bytes of the `count` records."""
        return self.first.size * self.count

    def at(self, number: int) -> Record:
        """Returns the record of this number, counted from 0."""
        by = self.first.size * (number + 1)
        moved = self.first.moved(by) if isinstance(self.first, Section) else _moved(self.first, by)
        return cast("Record", moved)

    def __iter__(self) -> Iterator[Record]:
        return map(self.at, range(self.count))


StreamRecord = framing.Parsed | Section | Pages | Gap
"""A record as it stands in the file."""

Run = Repeated[Section] | Repeated[framing.Parsed]


def repeats(view: memoryview, start: int, end: int) -> int:
    """Returns how many times the bytes [start, end), a record, stand again behind themselves, in a row.

    0 for a long record: so many cannot be in a file that its size is no measure of them.
    """
    size = end - start
    if size > _LONGEST or view[start:end] != view[end : end + size]:
        return 0
    one = np.frombuffer(view[start:end], np.uint8)
    count, window, same = 0, _FIRST, True
    while same and (n := min(window, (len(view) - end) // size - count)):
        at = end + count * size
        alike = (np.frombuffer(view[at : at + n * size], np.uint8).reshape(n, size) == one).all(axis=1)
        same = bool(alike.all())
        count, window = count + (n if same else int(alike.argmin())), min(window * 8, _MORE)
    return count


class Unrolled(Sequence[Record]):
    """The records of a list in which some are runs, one by one: each of a run is made when it is asked for."""

    def __init__(self, records: Iterable[Record | Repeated[Record]]) -> None:
        self._records: list[Record | Repeated[Record]] = list(records)
        lengths = [record.count if isinstance(record, Repeated) else 1 for record in self._records]
        self._ends = list(itertools.accumulate(lengths))

    @property
    def distinct(self) -> list[Record]:
        """Returns the records without the runs of records that are equal to the one before them."""
        return [record for record in self._records if not isinstance(record, Repeated)]

    @property
    def lengths(self) -> list[int]:
        """Returns for each of `distinct` how many records there are: itself, and the records of the run behind it."""
        found: list[int] = []
        for record in self._records:
            if isinstance(record, Repeated):
                found[-1] += record.count
            else:
                found.append(1)
        return found

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            if isinstance(record, Repeated):
                yield from record
            else:
                yield record

    @overload
    def __getitem__(self, number: int) -> Record: ...

    @overload
    def __getitem__(self, number: slice) -> list[Record]: ...

    def __getitem__(self, number: int | slice) -> Record | list[Record]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not -len(self) <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        number %= len(self)
        place = bisect.bisect_right(self._ends, number)
        record = self._records[place]
        if isinstance(record, Repeated):
            return record.at(number - (self._ends[place] - record.count))
        return record

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self[:20]) if len(self) <= 20 else f"<{len(self)} records, {self[0]!r} …>"


def is_section(record: StreamRecord | Run) -> TypeGuard[Section | Repeated[Section]]:
    """Tells whether this is a section, or a run of sections."""
    return isinstance(record.first if isinstance(record, Repeated) else record, Section)


def is_command(record: StreamRecord | Run) -> TypeGuard[framing.Parsed | Repeated[framing.Parsed]]:
    """Tells whether this is a command, or a run of commands."""
    one = record.first if isinstance(record, Repeated) else record
    return isinstance(one, framing.Parsed) and one.format is framing.COMMAND


def unrolled(records: Iterable[StreamRecord | Run]) -> Iterator[StreamRecord]:
    """Yields the records one by one, also the records of a run."""
    for record in records:
        if isinstance(record, Repeated):
            yield from record
        else:
            yield record


_KINDS = {
    framing.FILE_HEADER: "file header",
    framing.CONFIGURATION: "configuration",
    framing.COMMAND: "command",
    framing.EOF: "end of file mark",
    framing.VMDESCRIPTION: "vmdesc",
} | dict.fromkeys(framing.CONFIGURATION_SUBSECTIONS.values(), "configuration")


def record_kind(record: framing.Parsed) -> str:
    """Returns what a framing record is, as `Stream.coverage` calls it."""
    return _KINDS[record.format]


def record_detail(record: framing.Parsed) -> str:
    """Returns the machine type of a configuration, the name of a command; '' for any other record."""
    if record.format is framing.CONFIGURATION:
        return framing.name(record.value.name)
    if record.format is framing.COMMAND:
        return command_name(record.value.command)
    return ""


def command_name(number: int) -> str:
    """Returns a command's name without its MIG_CMD_, or its number where QEMU has none of it."""
    return framing.COMMAND_NAMES.get(number, f"command {number}")
