"""Stream: what a user opens; ties the rooms above together."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError, printable
from vmstate_tools.format import framing as wire
from vmstate_tools.format.framing import Command, Record
from vmstate_tools.format.sections import handwritten
from vmstate_tools.source import MULTIFD, Source, join, open_source
from vmstate_tools.source.connections import POSTCOPY, RESUMED, Connection
from vmstate_tools.stream.ram import Ram
from vmstate_tools.stream.records import (
    Gap,
    Pages,
    Repeated,
    Section,
    StreamRecord,
    record_detail,
    record_kind,
    unrolled,
)
from vmstate_tools.vmstate.description import (
    MAX_LEAVES,
    Description,
    StreamDescription,
    built_in,
    find_vmdesc,
    read_vmdesc,
)
from vmstate_tools.vmstate.shared_limit import SharedLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, BinaryIO

    Where = str | os.PathLike[str] | bytes | BinaryIO

    import pandas as pd

    from vmstate_tools.format.multifd import Channel
    from vmstate_tools.stream.field_tables import FieldTable
    from vmstate_tools.vmstate.layout import Layout


class _Located:
    """Names the file and the section in every StreamError that passes."""

    def __init__(self, stream: Stream, section: Section | None) -> None:
        self.stream, self.section = stream, section

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, StreamError):
            self.stream._locate(error, self.section)


# What a broken connection can lose of one record: a page of 64 KiB with a block's name, or a command.
_LONGEST_RECORD = 8 + 256 + (64 << 10) + 64


class Stream:
    """One opened migration stream; use as a context manager, or close it.

    Parameters
    ----------
    source : where the bytes come from.
    channels : the further connections of a multifd migration; their pages join `ram`.
    description : a stream's or vmdesc's description to use for sections this one does not describe.
    partial : keep what came before an error; the error is then in `error`.
    """

    def __init__(
        self,
        source: Source,
        *,
        channels: Sequence[Source] = (),
        description: StreamDescription | None = None,
        partial: bool = False,
    ) -> None:
        self.source = source
        self._channel_sources = channels
        self.name = source.name
        self._view: memoryview | None = source.view
        self._borrowed = description
        self._partial = partial
        self._error: StreamError | None = None
        self.channels: list[Channel] = []  # filled by the walk
        self._unrolled = SharedLimit(2 * MAX_LEAVES)  # fields of all sections that are told one by one
        self._laid_out: set[int] = set()  # offsets of the sections counted in it
        with self._located():
            self.header = self._read_header()

    @property
    def view(self) -> memoryview:
        """The bytes of the file, decompressed and joined. Raises StreamError where the stream is closed."""
        if self._view is None:
            raise StreamError("the stream is closed", file=self.name)
        return self._view

    @property
    def closed(self) -> bool:
        """Whether `close` was called: what needs the bytes is an error then."""
        return self._view is None

    @property
    def files(self) -> list[str]:
        """Names of the files that the stream was read from: one, or one for each connection of the migration."""
        connections = [connection.name for connection in self.source.connections] or [self.name]
        return [*connections, *(source.name for source in self._channel_sources)]

    # -- the walk ---------------------------------------------------------------------------------------------

    def _located(self, section: Section | None = None) -> _Located:
        return _Located(self, section)

    def _locate(self, err: StreamError, section: Section | None) -> None:
        if section is not None:
            err.section = err.section or section.label
            err.offset = section.payload_offset if err.offset is None else err.offset
        if err.file is None:
            err.file, err.offset = self.source.locate(err.offset)

    def _read_header(self) -> wire.Parsed:
        start = self.source.start
        expected = "the magic 'QEVM' and version 3"
        header = wire.parse(wire.FILE_HEADER, self.view, start, expected)
        if header.value.magic != wire.MAGIC:
            raise StreamError(f"found {bytes(header.value.magic)!r}", offset=start, expected=expected)
        if header.value.version == wire.VERSION_OBSOLETE:
            raise StreamError(
                "file version 2, which QEMU wrote before 2008 and no release since 1.0 reads",
                offset=start + 4,
                expected="version 3",
            )
        if header.value.version != wire.VERSION:
            raise StreamError(f"file version {header.value.version}", offset=start + 4, expected="version 3")
        return header

    @cached_property
    def vmdesc_place(self) -> tuple[int, int] | None:
        """Offset and size in bytes of the record with the vmdesc; None where the stream carries none."""
        return find_vmdesc(self.view[: self.source.connections[0].end] if self.source.connections else self.view)

    @cached_property
    def vmdesc(self) -> StreamDescription | None:
        """The stream's own description of its sections, None where it carries none."""
        if self.vmdesc_place is None:
            return None
        offset, size = self.vmdesc_place
        try:
            return self._read_vmdesc(offset, size)
        except StreamError as err:
            if not self._partial:
                raise
            self._error = err
            return None

    def _read_vmdesc(self, offset: int, size: int) -> StreamDescription:
        with self._located():
            try:
                return read_vmdesc(bytes(self.view[offset + 5 : offset + size]))
            except StreamError as err:
                err.offset = offset + 5 + (err.offset or 0)
                raise

    @cached_property
    def records(self) -> list[StreamRecord | Repeated]:
        """All records in file order, as they were read: a run of equal sections is a `Repeated` behind the first."""
        records: list[StreamRecord | Repeated] = []
        if self.source.start:
            records.append(Gap(0, self.source.start, "before the stream"))
        records.append(self.header)
        walk = _Walk(self, records)
        try:
            with self._located():
                walk.run()
        except StreamError as err:
            if not self._partial:
                raise
            self._error = err
        end = max((r.offset + r.size for r in records), default=0)
        for channel in self._channel_sources:
            try:
                self.channels.append(walk.ram.add_channel(channel.view))
            except StreamError as err:
                err.file = channel.name
                raise
        if end < len(self.view):
            records.append(Gap(end, len(self.view) - end, "not read" if self._error else "behind the stream"))
        self._walked = walk
        return records

    @property
    def error(self) -> StreamError | None:
        """What stopped the reading of a stream opened with `partial=True`, None where nothing did."""
        _ = self.records
        return self._error

    # -- what a stream says of itself ---------------------------------------------------------------------------

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The configuration section: `name`, and `page_bits`, `capabilities`, `uuid` where sent. Empty before 2.4."""
        _ = self.records
        return self._walked.configuration

    @property
    def machine(self) -> str | None:
        """The machine type, e.g. 'pseries-2.6'; None where the stream does not say."""
        name: str | None = self.configuration.get("name")
        return name

    @property
    def page_size(self) -> int | None:
        """Target page size in bytes: from the vmdesc, the configuration, or what makes the RAM section consistent."""
        if self.vmdesc is not None and self.vmdesc.page_size is not None:
            return self.vmdesc.page_size
        bits = self.configuration.get("page_bits")
        return 1 << bits if bits else self.ram.page_size

    @property
    def commands(self) -> list[wire.Parsed]:
        return [r for r in self.records if isinstance(r, wire.Parsed) and r.format is wire.COMMAND]

    @property
    def sections(self) -> list[Section]:
        """All sections in file order; those sent in several parts appear once for each part."""
        return [r for r in unrolled(self.records) if isinstance(r, Section)]

    @property
    def distinct_sections(self) -> list[Section]:
        """The sections in file order, each run of equal ones by its first alone."""
        return [r for r in self.records if isinstance(r, Section)]

    def section(self, idstr: str, instance: int | None = None) -> Section:
        """The first section of that idstr (and instance_id). Raises KeyError naming what there is."""
        idstr = printable(idstr)  # as names from a stream are shown
        for section in self.distinct_sections:
            if section.idstr == idstr and instance in (None, section.instance_id):
                return section
        have = sorted({s.label if s.idstr == idstr else s.idstr for s in self.distinct_sections})
        raise KeyError(
            f"no section {idstr!r}{'' if instance is None else f'/{instance}'} in {self.name}; it has {have}"
        )

    @property
    def ram(self) -> Ram:
        """RAM blocks, page counts, and the guest's memory."""
        _ = self.records
        return self._walked.ram

    # -- fields -------------------------------------------------------------------------------------------------

    def layout(self, section: Section) -> Layout:
        """Where each field of a described section lies. Raises StreamError if it cannot be laid out."""
        from vmstate_tools.vmstate.layout import check_subsections, layout_of

        assert section.description is not None
        with self._located(section):
            if section.offset not in self._laid_out:
                if not self._unrolled.take(section.description.vmsd.unrolled):
                    raise StreamError(
                        "one section too many to tell the fields of", expected=f"{2 * MAX_LEAVES} in all at most"
                    )
                self._laid_out.add(section.offset)
            layout = layout_of(section.description, section.payload_size)
            check_subsections(layout, self.view, section.payload_offset)
            return layout

    def value(self, section: str, path: str, *, instance: int | None = None, vmsd: str | None = None) -> Any:
        """One field's value: int, bool or bytes.

        `vmsd` tells fields apart whose path occurs in several subsections (`env.vsr[0]` of `cpu/fpu` and of
        `cpu/vsx`). Raises KeyError where there is no such field, or more than one.
        """
        from vmstate_tools.vmstate.layout import read_value

        which = self.section(section, instance)
        for leaf in which.leaves:
            if leaf.path == path:
                return leaf.value
        if not which.described:
            raise KeyError(f"section {which.label} of {self.name} has no field {path!r}: it is {which.how}")
        layout = self.layout(which)
        found = [(i, n) for i, n in layout.find(path) if vmsd in (None, layout.vmsds[i])]
        if not found:
            import difflib

            near = difflib.get_close_matches(path, layout.index, n=3)
            raise KeyError(
                f"section {which.label} of {self.name} has no field {path!r}"
                + (f"; it has {', '.join(near)}" if near else "")
            )
        if len(found) > 1:
            vmsds = sorted({layout.vmsds[i] for i, _ in found})
            raise KeyError(f"field {path!r} of section {which.label} is in several vmsds: say vmsd=, one of {vmsds}")
        i, n = found[0]
        return read_value(layout.kind_of(i), self.view, which.payload_offset, *layout.place(i, n))

    def fields(
        self, section: str | None = None, *, instance: int | None = None, fold: int | None = None
    ) -> pd.DataFrame:
        """Every field of every section (or of one), a row each, in file order.

        Columns: section, instance_id (uint32), version_id (uint32, of the section), vmsd, path, type (wire type),
        offset (int64, bytes from the file's start), size (int64, bytes), value (`ValueDtype`: int, bool or bytes,
        exact). With `fold`, an array of more values than that is one row of bytes, `path[0:count]`.
        Where all arrays unfolded would make more than a million rows, the longest stay folded.
        RAM pages are not fields: see `ram`.
        """
        section = section if section is None else printable(section)
        wanted = [s for s in self.distinct_sections if section in (None, s.idstr) and instance in (None, s.instance_id)]
        if section is not None and not any(s.idstr == section for s in self.distinct_sections):
            self.section(section, instance)
        return self.fields_of(wanted, fold=fold)

    def fields_of(self, sections: Iterable[Section], *, fold: int | None = None) -> pd.DataFrame:
        """Returns the fields of these sections, in their order, as `fields` does."""
        from vmstate_tools.stream.field_frames import fields_frame

        return fields_frame([self.field_table(sections, fold=fold)])

    def field_table(self, sections: Iterable[Section] | None = None, *, fold: int | None = None) -> FieldTable:
        """Returns the fields of these sections, or of all, in the form that `load` collects from many streams."""
        from vmstate_tools.stream.field_tables import field_table

        wanted = self.distinct_sections if sections is None else sections
        return field_table(self.view, self.layout, [s for s in wanted if s.how != "ram"], fold)

    # -- bytes --------------------------------------------------------------------------------------------------

    def coverage(self, fields: bool = True) -> pd.DataFrame:
        """What each byte of the file is, in file order, from 0 to the end: no gap, no overlap.

        Columns: offset, size (int64, bytes), what (category), section (idstr/instance_id, or ''), detail (a path,
        a name). With `fields=False` a section's payload is one row.
        """
        import pandas as pd

        rows: list[tuple[int, int, str, str, str]] = []
        for record in unrolled(self.records):
            if isinstance(record, Section):
                rows += self._section_coverage(record, fields)
            elif isinstance(record, Pages):
                for offset, size, what, *detail in self.ram.records(record.offset, record.offset + record.size):
                    rows.append((offset, size, what, "", detail[0] if detail else ""))
            elif isinstance(record, Gap):
                rows.append((record.offset, record.size, record.what, "", ""))
            else:
                rows.append((record.offset, record.size, record_kind(record), "", record_detail(record)))
        frame = pd.DataFrame(rows, columns=["offset", "size", "what", "section", "detail"])
        return frame.astype({"offset": "int64", "size": "int64", "what": "category", "section": "category"})

    def _section_coverage(self, section: Section, fields: bool) -> Iterator[tuple[int, int, str, str, str]]:
        label = section.label
        yield section.offset, section.header.size, "section header", label, section.part
        start, end = section.payload_offset, section.payload_end
        if start < end:
            if not fields:
                yield start, end - start, "ram" if section.how == "ram" else "payload", label, section.how
            elif section.how == "ram":
                for offset, size, what, *detail in self.ram.records(start, end):
                    yield offset, size, what, label, detail[0] if detail else ""
            elif section.described:
                layout = self.layout(section)
                tiles = [
                    (o, s, "field", p)
                    for o, s, p in zip(layout.offset.tolist(), layout.length.tolist(), layout.paths, strict=True)
                ]
                tiles += [(o, len(h), "subsection header", wire.name(h[2:-4])) for o, h in layout.subsections]
                for offset, size, what, detail_ in sorted(tiles):
                    yield start + offset, size, what, label, detail_
            elif section.leaves:
                for leaf in section.leaves:
                    yield leaf.offset, leaf.size, "field", label, leaf.path
            else:
                yield start, end - start, "opaque", label, ""
        if section.footer:
            yield section.footer.offset, section.footer.size, "section footer", label, ""

    def write(self, out: BinaryIO) -> None:
        """Build the stream again from what was parsed: framing from records, payloads from values."""
        for chunk in self.chunks():
            out.write(chunk)

    def build(self) -> bytes:
        """The bytes of `write`."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The built stream piece by piece, in file order."""
        _ = self.view  # raises where the stream is closed
        for record in unrolled(self.records):
            if isinstance(record, Section):
                yield record.header.build()
                yield from self._build_payload(record)
                if record.footer:
                    yield record.footer.build()
            elif isinstance(record, Pages):
                yield from self.ram.build(record.offset, record.offset + record.size)
            elif isinstance(record, Gap):
                yield self.view[record.offset : record.offset + record.size]
            else:
                yield record.build()

    def _build_payload(self, section: Section) -> Iterable[bytes | memoryview]:
        start, end = section.payload_offset, section.payload_end
        if section.how == "ram":
            return self.ram.build(start, end)
        if section.leaves:
            return (handwritten.build(section.leaves),)
        if section.described:
            from vmstate_tools.vmstate.decode import encode

            return (encode(self.layout(section), self.view[start:end]),)
        return (self.view[start:end],)

    # -- housekeeping -------------------------------------------------------------------------------------------

    def close(self) -> None:
        if "records" in self.__dict__:
            self._walked.close()
        self._view = None
        self.channels.clear()
        for source in (self.source, *self._channel_sources):
            source.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream {self.name}: {len(self.sections)} sections, machine {self.machine or 'not said'}>"

    def _repr_html_(self) -> str:
        from vmstate_tools.stream.html import stream_html, text
        from vmstate_tools.stream.summary import summarize

        try:
            return stream_html(summarize(self))
        except StreamError as err:
            return f"<p><b>{text(self.name)}</b>: {text(err)}</p>"


class _Walk:
    """One pass over the records, in file order."""

    def __init__(self, stream: Stream, records: list[StreamRecord | Repeated]) -> None:
        self.stream = stream
        self.view = stream.view
        self.records = records
        self.configuration: dict[str, Any] = {}
        self.open: dict[int, Section] = {}  # section_id -> its START
        self.states: dict[tuple[str, int], dict[str, Any]] = {}  # of handwritten sections
        self.postcopy = False
        self.switched = False  # to postcopy
        self.package_end: int | None = None  # of the package that the walk is in
        self.section_at: Section | None = None  # being read
        self.footers = False  # has a section had one
        self.holes = SharedLimit(1 << 16)  # elements of pointer arrays looked at for NULLs
        self.guesses = SharedLimit(1 << 18)  # fields of built-in layouts that did not fit
        self.leaves = SharedLimit(MAX_LEAVES)  # of handwritten sections
        self.complete = False  # has there been a section that could have had one
        vmdesc = stream.vmdesc
        self.devices = {key: found[::-1] for key, found in vmdesc.by_section().items()} if vmdesc else {}
        self.borrowed = stream._borrowed.by_section() if stream._borrowed else {}

    @cached_property
    def least_release(self) -> str | None:
        """The first release that had this machine type, where it says."""
        name = self.configuration.get("name")
        if not name:
            return None
        from vmstate_tools.vmstate.builtin import least_release

        return least_release(name)

    def close(self) -> None:
        """Let go of the view."""
        self.view = memoryview(b"")
        if "ram" in self.__dict__:
            self.ram.close()

    @cached_property
    def ram(self) -> Ram:
        bits = self.configuration.get("page_bits")
        vmdesc = self.stream.vmdesc
        return Ram(
            self.view,
            page_size=vmdesc.page_size if vmdesc else 1 << bits if bits else None,
            capabilities=frozenset(self.configuration.get("capabilities", ())),
            postcopy=self.postcopy,
            forget=self.stream.source.forget,
            files=self.stream.files,
        )

    def run(self) -> None:
        whole, connections = self.view, self.stream.source.connections
        if not connections:
            self.read_records(self.stream.header.end)
            return
        for connection, next_ in zip(connections, [*connections[1:], None], strict=True):
            self.connect(whole[: connection.end])
            try:
                if connection.kind == POSTCOPY:
                    self.read_pages(connection)
                else:
                    self.read_records(connection.start or self.stream.header.end)
            except StreamError:
                successor = POSTCOPY if connection.kind == POSTCOPY else RESUMED
                if next_ is None or next_.kind != successor or not self.switched:
                    raise
                self.cut_off(connection)
            else:
                self.rest(connection, "behind the stream")
        self.connect(whole)

    def connect(self, view: memoryview) -> None:
        """What is read from here on stands in `view`, which reaches from the stream's start to a connection's end."""
        self.view = view
        if "ram" in self.__dict__:
            self.ram.connect(view)

    def read_pages(self, connection: Connection) -> None:
        """The pages that the destination asked for."""
        end = self.ram.parse(connection.start, part="part")
        self.records.append(Pages(connection.start, end - connection.start))

    def cut_off(self, connection: Connection) -> None:
        """Keep the whole records of a connection that broke. Raises where more than one is lost."""
        end = max(r.offset + r.size for r in self.records)
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
        self.rest(connection, "cut off")

    def rest(self, connection: Connection, what: str) -> None:
        """What no record holds at a connection's end."""
        end = max(r.offset + r.size for r in self.records)
        if end < connection.end:
            self.records.append(Gap(end, connection.end - end, what))

    def read_records(self, offset: int) -> None:
        expected = "a configuration, section, command or end of file record"
        while True:
            if self.package_end is not None and offset >= self.package_end:
                if offset > self.package_end:
                    raise StreamError(
                        "a record goes past the end of its package", offset=self.package_end, expected="a record's end"
                    )
                self.package_end = None
            if offset >= len(self.view):
                raise StreamError("the stream ends", offset=offset, expected=expected)
            kind = self.view[offset]
            if kind == Record.EOF:
                if self.package_end is not None:
                    raise StreamError("the stream ends in a package", offset=offset, expected="a record")
                break
            if kind in wire.PART_NAMES:
                offset = self.section(offset)
            elif kind == Record.COMMAND:
                offset = self.command(offset)
            elif kind == Record.CONFIGURATION and len(self.records) and self.records[-1] is self.stream.header:
                offset = self.read_configuration(offset)
            else:
                raise StreamError(f"found 0x{kind:02x}", offset=offset, expected=expected)
        offset = self.add(wire.parse(wire.EOF, self.view, offset, expected))
        if offset < len(self.view) and self.view[offset] == Record.VMDESCRIPTION:
            record = wire.parse(wire.VMDESCRIPTION, self.view, offset, "a vmdesc")
            self.add(record)
            if self.stream.vmdesc_place is None:  # it does not even look like one: say what is wrong with it
                self.stream._read_vmdesc(record.offset, record.size)

    def add(self, record: wire.Parsed) -> int:
        self.records.append(record)
        return record.end

    def read_configuration(self, offset: int) -> int:
        record = wire.parse(wire.CONFIGURATION, self.view, offset, "a configuration section")
        self.configuration["name"] = wire.name(record.value.name)
        offset = self.add(record)
        while offset < len(self.view) and self.view[offset] == Record.SUBSECTION:
            header = wire.parse(wire.SUBSECTION_HEADER, self.view, offset, "a subsection of the configuration")
            fmt = wire.CONFIGURATION_SUBSECTIONS.get(header.value.name)
            if fmt is None:
                raise StreamError(
                    f"unknown subsection {wire.name(header.value.name)!r}",
                    offset=offset,
                    section="configuration",
                    expected=f"one of {[wire.name(n) for n in wire.CONFIGURATION_SUBSECTIONS]}",
                )
            body = wire.parse(fmt, self.view, offset, f"subsection {wire.name(header.value.name)}")
            if (bits := body.value.get("page_bits")) is not None and not 8 <= bits <= 30:
                raise StreamError(
                    f"{bits} target page bits", offset=offset, section="configuration", expected="between 8 and 30"
                )
            offset = self.add(body)
            for key, value in body.value.items():
                if key == "capabilities":
                    self.configuration[key] = [wire.name(v) for v in value]
                elif key in ("page_bits", "uuid"):
                    if key == "page_bits" and not 8 <= value <= 30:
                        raise StreamError(f"{value} target page bits", offset=body.offset, expected="between 8 and 30")
                    self.configuration[key] = value
        return offset

    def command(self, offset: int) -> int:
        record = wire.parse(wire.COMMAND, self.view, offset, "a command")
        if record.value.command == Command.POSTCOPY_ADVISE:
            self.postcopy = True
        elif record.value.command == Command.POSTCOPY_RUN:
            self.switched = True
        elif record.value.command == Command.PACKAGED:
            # The package holds records like any others: the walk goes on into them.
            if len(record.value.data) != 4 or self.package_end is not None:
                raise StreamError(
                    "a package in a package" if self.package_end else f"{len(record.value.data)} bytes of data",
                    offset=offset,
                    expected="a package's size, 4 bytes",
                )
            size = int.from_bytes(record.value.data, "big")
            if size > len(self.view) - record.end:
                raise StreamError(
                    f"a package of {size} bytes", offset=offset, expected=f"at most {len(self.view) - record.end}"
                )
            self.package_end = record.end + size
        return self.add(record)

    def section(self, offset: int) -> int:
        section = self.section_at = self.section_header(offset)
        try:
            end = self.payload_end(section)
            section.payload_size = end - section.payload_offset
            if end < len(self.view) and self.view[end] == Record.SECTION_FOOTER:
                section.footer = wire.parse(wire.SECTION_FOOTER, self.view, end, "a section footer")
                found = section.footer.value.section_id
                if found != section.section_id:
                    raise StreamError(
                        f"a footer of section id {found}",
                        offset=end,
                        expected=f"the footer of section id {section.section_id}",
                    )
                self.footers = True
                end = section.footer.end
            elif self.footers:
                raise StreamError(
                    f"{section.payload_size} bytes, then no footer",
                    offset=end,
                    expected=f"the footer of section id {section.section_id}",
                )
            if self.stream._partial and section.description is not None:
                self.stream.layout(section)  # what is kept can be decoded
        except StreamError as err:  # not `_located`: there may be a hundred thousand sections
            self.stream._locate(err, section)
            raise
        self.records.append(section)
        self.complete = True
        self.section_at = None
        if section.how == "ram" and section.part == "part" and self.package_end is None:
            count = self.ram.repeated(section.offset, section.payload_offset, end)
            if count:
                self.records.append(Repeated(section, count))
                end += section.size * count
        return end

    def fits(self, section: Section, end: int) -> bool:
        """May this section's payload end here: is its footer, or the next record, to be seen?"""
        view = self.view
        if end >= len(view):
            return end == len(view) and self.stream._partial and not self.footers
        if self.footers:
            return view[end : end + 5] == bytes([Record.SECTION_FOOTER]) + section.section_id.to_bytes(4, "big")
        kind = view[end]
        if kind in (Record.SECTION_START, Record.SECTION_FULL):
            cut = self.stream._partial and (len(view) < end + 6 or len(view) < end + 14 + view[end + 5])
            from vmstate_tools.stream.section_end import is_header

            return cut or is_header(view, end)
        if kind in (Record.SECTION_PART, Record.SECTION_END):
            return int.from_bytes(view[end + 1 : end + 5], "big") in self.open
        if kind == Record.EOF:
            return end + 1 == len(view) or view[end + 1] == Record.VMDESCRIPTION
        return kind in (Record.COMMAND, Record.SECTION_FOOTER)

    def section_header(self, offset: int) -> Section:
        part = wire.PART_NAMES[self.view[offset]]
        if part in ("start", "full"):
            header = wire.parse(wire.SECTION_HEADER, self.view, offset, "a section header")
            v = header.value
            section = Section(wire.name(v.idstr), v.instance_id, v.version_id, v.section_id, part, header)
            self.open[v.section_id] = section
            return section
        header = wire.parse(wire.SECTION_CONTINUED, self.view, offset, "a section header")
        started = self.open.get(header.value.section_id)
        if started is None:
            raise StreamError(
                f"section id {header.value.section_id} was never started",
                offset=offset,
                expected=f"one of {sorted(self.open)[:20]}" if self.open else "a section start",
            )
        return Section(started.idstr, started.instance_id, started.version_id, started.section_id, part, header)

    def payload_end(self, section: Section) -> int:
        """Find where the payload ends, and what it consists of."""
        start, key = section.payload_offset, (section.idstr, section.instance_id)
        if section.idstr == "ram":
            if section.part == "full":
                raise StreamError("the RAM in one piece", offset=section.offset, expected="its start, parts and end")
            section.how = "ram"
            return self.ram.parse(start, part=section.part)
        own = self.devices[key].pop() if section.part == "full" and self.devices.get(key) else None
        if handwritten.known(section.idstr) and (own is None or own.opaque):
            try:
                end, leaves = handwritten.parse(
                    section.idstr,
                    self.view,
                    start,
                    part=section.part,
                    version_id=section.version_id,
                    state=self.states.setdefault(key, {}),
                )
            except StreamError:
                # A version this reader does not know: what describes or bounds the section serves.
                if section.part != "full":
                    raise
            else:
                if self.fits(section, end) and (own is None or end == start + own.vmsd.size):
                    if not self.leaves.take(len(leaves)):  # so many that they are not told one by one
                        payload = bytes(self.view[start:end])
                        leaves = [handwritten.Leaf("data", "buffer", start, end - start, payload)]
                    section.how, section.leaves, section.description = "handwritten", leaves, own
                    return end
        if own is not None:
            fitting = self.fitting(section, own)
            if fitting is None:
                size = own.vmsd.size
                raise StreamError(
                    f"its description claims {size} bytes, {len(self.view) - start} are left"
                    if size > len(self.view) - start
                    else f"{size} bytes described, then no end of a section",
                    offset=min(start + size, len(self.view)),
                    expected="a description that fits the bytes",
                )
            section.how, section.description = "vmdesc", fitting
        elif section.part == "full":
            for device in self.borrowed.get(key, ())[:8]:
                section.description = self.fitting(section, device)
                if section.description is not None and self.has_subsections(section):
                    section.how = "borrowed"
                    break
                section.description = None
        if section.description is not None:
            return start + section.description.vmsd.size
        if section.part == "full":
            from vmstate_tools.vmstate.builtin import resolve

            found = resolve(
                section.idstr,
                section.version_id,
                self.view,
                start,
                plausible_end=lambda end: self.fits(section, end),
                release=self.least_release,
                budget=self.guesses,
                instance_id=section.instance_id,
            )
            if found is not None:
                section.how, section.description = "built-in", built_in(found)
                return start + section.description.vmsd.size
        from vmstate_tools.stream.section_end import end_of_opaque

        section.how = "opaque"
        end, section.bounded_by = end_of_opaque(
            self.view, start, section.section_id, footers=self.footers or not self.complete, seen=self.open
        )
        return end

    def fitting(self, section: Section, description: Description) -> Description | None:
        """The description, if the section ends where it says; with NULLs put where the bytes have them."""
        start = section.payload_offset
        if self.fits(section, start + description.vmsd.size):
            return description
        from vmstate_tools.vmstate.null_pointers import with_holes

        return with_holes(description, self.view, start, lambda end: self.fits(section, end), self.holes)

    def has_subsections(self, section: Section) -> bool:
        """Do the subsections stand where a description that is not the stream's own puts them?"""
        from vmstate_tools.vmstate.layout import check_subsections, layout_of

        assert section.description is not None
        try:
            layout = layout_of(section.description, len(self.view) - section.payload_offset)
            check_subsections(layout, self.view, section.payload_offset)
        except StreamError:
            return False
        return True


def open_stream(
    where: Where | Sequence[Where],
    *,
    description: Stream | StreamDescription | str | os.PathLike[str] | None = None,
    partial: bool = False,
    snapshot: str | None = None,
    max_size: int | None = None,
) -> Stream:
    """Open a migration stream.

    Parameters
    ----------
    where : a path, a URL, `-` for standard input, bytes, or a binary file; compressed or in a container
        (libvirt save image, qcow2 with internal snapshots) as it comes. A list of these is one migration
        captured connection by connection: its main stream and its multifd channels in any order, the connection
        of `postcopy-preempt`, and those of a postcopy that was resumed, in theirs.
    description : another stream, or its path, whose vmdesc describes sections this stream does not describe.
    partial : keep what came before an error instead of raising it; `Stream.error` has it.
    snapshot : which internal snapshot of a qcow2 image, by name or id.
    max_size : most bytes to unpack from a compressed file.

    Raises StreamError, or OSError where a file cannot be read.
    """
    if isinstance(description, (str, os.PathLike)):
        with open_stream(description) as other:
            description = other.vmdesc
    elif isinstance(description, Stream):
        description = description.vmdesc
    parts: Sequence[Any] = where if isinstance(where, (list, tuple)) else (where,)
    sources: list[Source] = []
    try:
        for each in parts:
            sources.append(
                open_source(each, snapshot=snapshot, partial=partial, max_size=max_size, channel=len(parts) > 1)
            )
        channels = [source for source in sources if source.kind == MULTIFD]
        sources.append(join([source for source in sources if source.kind != MULTIFD] or sources))
        return Stream(sources[-1], channels=channels, description=description, partial=partial)
    except BaseException:
        for source in sources:
            source.close()
        raise
