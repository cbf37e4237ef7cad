"""The records that a stream consists of: sections, runs of equal sections, pages outside any section, and gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.format import framing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vmstate_tools.format.sections.handwritten import Leaf
    from vmstate_tools.vmstate.description import Description, Vmsd


class Section:
    """One SECTION_START, PART, END or FULL record, with its payload and footer. Offsets and sizes in bytes.

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
        return self.header.offset

    @property
    def payload_offset(self) -> int:
        return self.header.end

    @property
    def payload_end(self) -> int:
        return self.header.end + self.payload_size

    @property
    def size(self) -> int:
        return self.header.size + self.payload_size + (self.footer.size if self.footer else 0)

    @property
    def described(self) -> bool:
        """Are its fields what `description` says? Otherwise `leaves` has them, or nothing has."""
        return self.description is not None and not self.leaves

    @property
    def label(self) -> str:
        return f"{self.idstr}/{self.instance_id}"

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


class Pages:
    """RAM records of a connection that carries nothing else: no section is around them."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset = offset
        self.size = size


class Gap:
    """Bytes outside any record: before the stream starts, behind its end, or not read (`partial`)."""

    def __init__(self, offset: int, size: int, what: str) -> None:
        self.offset = offset
        self.size = size
        self.what = what


def _moved(record: framing.Parsed, by: int) -> framing.Parsed:
    """Returns an equal record that stands `by` bytes later."""
    return framing.Parsed(record.format, record.value, record.offset + by, record.size)


class Repeated:
    """`count` more sections behind `first`, each with its bytes: QEMU sends PARTs without a page while another device
    has more to send, a hundred thousand of them in a row.
    """

    def __init__(self, first: Section, count: int) -> None:
        self.first = first
        self.count = count

    @property
    def offset(self) -> int:
        return self.first.offset + self.first.size

    @property
    def size(self) -> int:
        return self.first.size * self.count

    def __iter__(self) -> Iterator[Section]:
        s, size = self.first, self.first.size
        for by in range(size, size * (self.count + 1), size):
            section = Section(s.idstr, s.instance_id, s.version_id, s.section_id, s.part, _moved(s.header, by))
            section.payload_size, section.how = s.payload_size, s.how
            section.footer = _moved(s.footer, by) if s.footer else None
            yield section


StreamRecord = framing.Parsed | Section | Pages | Gap
"""A record as it stands in the file. The walk puts `Repeated` beside these."""


def unrolled(records: Iterable[StreamRecord | Repeated]) -> Iterator[StreamRecord]:
    """Yields the records one by one, those of a run too."""
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
