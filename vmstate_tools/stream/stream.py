"""Stream: what a user opens; it reads records when it is first asked for them, and values when they are asked for."""

from __future__ import annotations

import functools
import io
import os
from functools import cached_property
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError, printable
from vmstate_tools.format import framing
from vmstate_tools.format.shared_limit import SharedLimit
from vmstate_tools.source import MULTIFD, Source, join, open_source
from vmstate_tools.stream.coverage import COLUMNS, RecordBytes
from vmstate_tools.stream.joined import FileWalk
from vmstate_tools.stream.ram import Ram
from vmstate_tools.stream.records import Gap, Section, Unrolled, is_command, is_section
from vmstate_tools.vmstate.description import StreamDescription, find_vmdesc, read_vmdesc
from vmstate_tools.vmstate.layout import check_subsections, layout_of, read_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, BinaryIO

    Where = str | os.PathLike[str] | bytes | BinaryIO

    import pandas as pd

    from vmstate_tools.format.multifd_channel import Channel
    from vmstate_tools.stream.field_tables import FieldTable
    from vmstate_tools.stream.records import Run, StreamRecord
    from vmstate_tools.vmstate.layout import Layout

# Runs of pages that a stream may have, whatever its size, and how many more for each byte of the file: 196,608 in the
# first MiB, each 3 us from opening to building. The most seen are 22,872, in 61,642 bytes.
_RUNS, _BYTES_PER_RUN = 1 << 16, 8

# Fields of all sections together that are laid out, in the same way: 262,144 in the first MiB, each 2.5 us. The most
# seen are 41,886, in 55,790 bytes.
_FIELDS, _BYTES_PER_FIELD = 1 << 17, 8

# Bytes that are built in memory, for each started MiB of the file.
_MOST_BUILT = 448 << 20


class Stream:
    """A Stream is one opened migration stream; use it as a context manager, or close it.

    Parameters
    ----------
    source : where the bytes come from.
    channels : the further connections of a multifd migration; their pages join `ram`.
    description : a stream's or vmdesc's description to use for sections this one does not describe.
    partial : keep what came before an error; the error is then in `error`.

    Attributes
    ----------
    name : of the file, as it was given.
    channels : the multifd channels, when the records have been read.
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
        self.name = source.name
        self.channels: list[Channel] = []
        self._channel_sources = channels
        self._view: memoryview | None = source.view
        self._borrowed = description
        self._partial = partial
        self._error: StreamError | None = None
        self._most_fields = _FIELDS + source.packed_size // _BYTES_PER_FIELD
        self._fields_left = SharedLimit(self._most_fields)
        self._laid_out: set[int] = set()  # offsets of the sections counted in `_fields_left`
        try:
            self.header = read_header(source.view, source.start)
        except StreamError as error:
            raise self._locate(error) from None

    @property
    def files(self) -> list[str]:
        """Returns the names of the files that the stream was read from, one for each connection of the migration."""
        connections = [connection.name for connection in self.source.connections] or [self.name]
        return [*connections, *(source.name for source in self._channel_sources)]

    @property
    def view(self) -> memoryview:
        """Returns the bytes of the file, decompressed and joined. Raises StreamError where the stream is closed."""
        if self._view is None:
            raise StreamError("the stream is closed", file=self.name)
        return self._view

    @property
    def closed(self) -> bool:
        """Tells whether `close` was called: what needs the bytes is an error then."""
        return self._view is None

    def _locate(self, error: StreamError, section: Section | None = None) -> StreamError:
        """Returns the error with the file, and the section, that it is about."""
        if section is not None:
            error.section = error.section or section.label
            error.offset = section.payload_offset if error.offset is None else error.offset
        if error.file is None:
            error.file, error.offset = self.source.locate(error.offset)
        return error

    # -- what was read ------------------------------------------------------------------------------------------

    @cached_property
    def vmdesc_place(self) -> tuple[int, int] | None:
        """Returns offset and size in bytes of the record with the vmdesc; None where the stream carries none."""
        return find_vmdesc(self.view[: self.source.connections[0].end] if self.source.connections else self.view)

    @cached_property
    def vmdesc(self) -> StreamDescription | None:
        """Returns the stream's own description of its sections, None where it carries none."""
        if self.vmdesc_place is None:
            return None
        try:
            return self._read_vmdesc(*self.vmdesc_place)
        except StreamError as error:
            if not self._partial:
                raise
            self._error = error
            return None

    def _read_vmdesc(self, offset: int, size: int) -> StreamDescription:
        try:
            return read_vmdesc(bytes(self.view[offset + 5 : offset + size]), self.source.packed_size)
        except StreamError as error:
            error.offset = offset + 5 + (error.offset or 0)
            raise self._locate(error) from None

    @cached_property
    def records(self) -> list[StreamRecord | Run]:
        """Returns all records in file order; records equal to the one before them are one `Repeated`."""
        records: list[StreamRecord | Run] = []
        if self.source.start:
            records.append(Gap(0, self.source.start, "before the stream"))
        records.append(self.header)
        packed = self.source.packed_size
        walk = FileWalk(
            self.view,
            records,
            functools.partial(
                Ram,
                forget=self.source.forget,
                files=self.files,
                locate=self._locate,
                most_runs=_RUNS + packed // _BYTES_PER_RUN,
            ),
            vmdesc=self.vmdesc,
            borrowed=self._borrowed,
            partial=self._partial,
            packed_size=packed,
            check=self.layout,
        )
        try:
            walk.read(self.header.end, self.source.connections)
            last = records[-1]
            if self.vmdesc_place is None and isinstance(last, framing.Parsed) and last.format is framing.VMDESCRIPTION:
                self._read_vmdesc(last.offset, last.size)  # it does not even look like one: that says what is wrong
        except StreamError as error:
            self._locate(error)
            if not self._partial:
                raise
            self._error = error
        end = walk.end
        for source in self._channel_sources:
            self.channels.append(walk.ram.add_channel(source.view, source.name))
        if end < len(self.view):
            records.append(Gap(end, len(self.view) - end, "not read" if self._error else "behind the stream"))
        self._walked = walk
        return records

    @property
    def error(self) -> StreamError | None:
        """Returns what stopped the reading of a stream opened with `partial=True`, None where nothing did."""
        _ = self.records
        return self._error

    @property
    def ram(self) -> Ram:
        """Returns the RAM blocks, page counts, and the guest's memory."""
        _ = self.records
        return self._walked.ram

    @property
    def configuration(self) -> dict[str, Any]:
        """Returns the configuration: `name`; `page_bits`, `capabilities`, `uuid` where sent. Empty before 2.4."""
        _ = self.records
        return self._walked.configuration

    @property
    def machine(self) -> str | None:
        """Returns the machine type, e.g. 'pseries-2.6'; None where the stream does not say."""
        name: str | None = self.configuration.get("name")
        return name

    @property
    def page_size(self) -> int | None:
        """Returns the target page size in bytes: from vmdesc or configuration, or what makes the RAM consistent."""
        if self.vmdesc is not None and self.vmdesc.page_size is not None:
            return self.vmdesc.page_size
        bits = self.configuration.get("page_bits")
        return 1 << bits if bits else self.ram.page_size

    @cached_property
    def commands(self) -> Unrolled[framing.Parsed]:
        """Returns all commands in file order."""
        return Unrolled(r for r in self.records if is_command(r))

    @cached_property
    def sections(self) -> Unrolled[Section]:
        """Returns all sections in file order; a section sent in several parts appears once for each part.

        Sections in a run of equal ones are made when they are asked for: there may be millions.
        """
        return Unrolled(r for r in self.records if is_section(r))

    @cached_property
    def distinct_sections(self) -> list[Section]:
        """Returns the sections in file order, each run of equal ones by its first alone."""
        return self.sections.distinct

    def section(self, idstr: str, instance: int | None = None) -> Section:
        """Returns the first section of that idstr (and instance_id). Raises KeyError naming what there is."""
        idstr = printable(idstr)  # as names from a stream are shown
        for section in self.distinct_sections:
            if section.idstr == idstr and instance in (None, section.instance_id):
                return section
        have = sorted({s.label if s.idstr == idstr else s.idstr for s in self.distinct_sections})
        raise KeyError(
            f"no section {idstr!r}{'' if instance is None else f'/{instance}'} in {self.name}; it has {have}"
        )

    # -- fields -------------------------------------------------------------------------------------------------

    def layout(self, section: Section) -> Layout:
        """Returns where each field of a described section lies. Raises StreamError if it cannot be laid out."""
        assert section.description is not None
        try:
            if section.offset not in self._laid_out:
                if not self._fields_left.take(section.description.vmsd.unrolled):
                    raise StreamError(
                        "one section too many to give the fields of",
                        expected=f"at most {self._most_fields} fields in a file of this size",
                    )
                self._laid_out.add(section.offset)
            layout = layout_of(section.description, section.payload_size)
            check_subsections(layout, self.view, section.payload_offset)
        except StreamError as error:
            raise self._locate(error, section) from None
        return layout

    def value(self, section: str, path: str, *, instance: int | None = None, vmsd: str | None = None) -> Any:
        """Returns one field's value: int, bool or bytes.

        `vmsd` tells fields apart whose path occurs in several subsections (`env.vsr[0]` of `cpu/fpu` and of
        `cpu/vsx`). Raises KeyError where there is no such field, or more than one.
        """
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
        """Returns every field of every section (or of one), a row each, in file order.

        Columns: section, instance_id (uint32), version_id (uint32, of the section), vmsd, path, type (wire type),
        offset (int64, bytes from the file's start), size (int64, bytes), value (`ValueDtype`: int, bool or bytes,
        exact). With `fold`, an array of more values than that is one row of bytes, `path[0:count]`.
        Where all arrays unfolded would make more than a million rows, the longest stay folded. Of a run of equal
        sections only the first is there. RAM pages are not fields: see `ram`.
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
        """Returns what each byte of the file is, in file order, from 0 to the end: no gap, no overlap.

        Columns: offset, size (int64, bytes), what (category), section (idstr/instance_id, or ''), detail (a path,
        a name). With `fields=False` a section's payload is one row. Equal sections, or commands, behind the first of
        them are one row, `sections alike` or `commands alike`.
        """
        import pandas as pd

        frame = pd.DataFrame(list(self._bytes().rows(fields)), columns=list(COLUMNS))
        return frame.astype({"offset": "int64", "size": "int64", "what": "category", "section": "category"})

    def write(self, out: BinaryIO) -> None:
        """Builds the stream again from what was parsed: framing from records, payloads from values."""
        for chunk in self.chunks():
            out.write(chunk)

    def build(self) -> bytes:
        """Returns the bytes of `write`.

        Raises StreamError where a small file unpacks to more than 448 MiB for each started MiB of it: `write` and
        `chunks` need no memory for them.
        """
        size, mebibytes = len(self.view), max(-(-self.source.packed_size >> 20), 1)
        if size > _MOST_BUILT * mebibytes:
            raise StreamError(
                f"{size} bytes are too many to be built in memory from a file of {self.source.packed_size}",
                expected=f"at most {_MOST_BUILT * mebibytes}; write() and chunks() build it piece by piece",
                file=self.name,
            )
        out = io.BytesIO()
        self.write(out)
        return out.getvalue()

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Returns the built stream piece by piece, in file order."""
        return self._bytes().chunks()

    def _bytes(self) -> RecordBytes:
        return RecordBytes(self.records, self.view, self.ram, self.layout)

    # -- housekeeping -------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Lets go of the file. What was read stays; what needs the bytes is a StreamError from here on."""
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
        from vmstate_tools.stream.summary import by_section, summarize

        try:
            summary = summarize(self)
            return stream_html(summary, by_section(summary))
        except StreamError as error:
            return f"<p><b>{text(self.name)}</b>: {text(error)}</p>"


def read_header(view: memoryview, start: int) -> framing.Parsed:
    """Returns the file header that stands at `start`. Raises StreamError where there is none of version 3."""
    expected = "the magic 'QEVM' and version 3"
    header = framing.parse(framing.FILE_HEADER, view, start, expected)
    if header.value.magic != framing.MAGIC:
        raise StreamError(f"found {bytes(header.value.magic)!r}", offset=start, expected=expected)
    if header.value.version == framing.VERSION_OBSOLETE:
        raise StreamError(
            "file version 2, which QEMU wrote before 2008 and no release since 1.0 reads",
            offset=start + 4,
            expected="version 3",
        )
    if header.value.version != framing.VERSION:
        raise StreamError(f"file version {header.value.version}", offset=start + 4, expected="version 3")
    return header


def open_stream(
    where: Where | Sequence[Where],
    *,
    description: Stream | StreamDescription | str | os.PathLike[str] | None = None,
    partial: bool = False,
    snapshot: str | None = None,
    max_size: int | None = None,
) -> Stream:
    """Opens a migration stream.

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
