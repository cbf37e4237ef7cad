"""What each byte of a stream is, and the bytes again, built from what was read: record by record, in file order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.format import framing
from vmstate_tools.format.sections import handwritten
from vmstate_tools.stream.pieces import pieces
from vmstate_tools.stream.records import Gap, Pages, Repeated, Section, record_detail, record_kind
from vmstate_tools.vmstate.decode import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from vmstate_tools.stream.ram import Ram
    from vmstate_tools.stream.records import Run, StreamRecord
    from vmstate_tools.vmstate.layout import Layout

COLUMNS = ("offset", "size", "what", "section", "detail")
_PIECE = 1 << 20  # bytes of equal records that are built at once

_Row = tuple[int, int, str, str, str]


class RecordBytes:
    """The records of one stream with what is needed to take them apart and to build them."""

    def __init__(
        self,
        records: Iterable[StreamRecord | Run],
        view: memoryview,
        ram: Ram,
        layout: Callable[[Section], Layout],
    ) -> None:
        self._records, self._view, self._ram, self._layout = records, view, ram, layout

    # -- coverage ----------------------------------------------------------------------------------------------

    def rows(self, fields: bool) -> Iterator[_Row]:
        """Yields offset, size, what, section, detail of each piece, without gap or overlap.

        With `fields`, each field is a row, and each kind of RAM record; without, a section's payload is one. A run of
        equal records is one row.
        """
        for record in self._records:
            if isinstance(record, Repeated):
                yield self._run(record)
            elif isinstance(record, Section):
                yield from self._section(record, fields)
            elif isinstance(record, Pages):
                yield from self._pages(record.offset, record.offset + record.size, "")
            elif isinstance(record, Gap):
                yield record.offset, record.size, record.what, "", ""
            else:
                yield record.offset, record.size, record_kind(record), "", record_detail(record)

    def _run(self, run: Run) -> _Row:
        if isinstance(run.first, Section):
            detail = f"{run.count} x {run.first.part}"
            return run.offset, run.size, "sections alike", run.first.label, detail
        return run.offset, run.size, "commands alike", "", f"{run.count} x {record_detail(run.first)}"

    def _pages(self, start: int, end: int, label: str) -> Iterator[_Row]:
        for offset, size, what, detail in self._ram.records(start, end):
            yield offset, size, what, label, detail

    def _section(self, section: Section, fields: bool) -> Iterator[_Row]:
        label = section.label
        yield section.offset, section.header.size, "section header", label, section.part
        start, end = section.payload_offset, section.payload_end
        if start < end:
            if not fields:
                yield start, end - start, "ram" if section.how == "ram" else "payload", label, section.how
            elif section.how == "ram":
                yield from self._pages(start, end, label)
            elif section.described:
                yield from self._fields(section)
            elif section.leaves:
                for leaf in section.leaves:
                    yield leaf.offset, leaf.size, "field", label, leaf.path
            else:
                yield start, end - start, "opaque", label, ""
        if section.footer:
            yield section.footer.offset, section.footer.size, "section footer", label, ""

    def _fields(self, section: Section) -> Iterator[_Row]:
        layout = self._layout(section)
        tiles = [
            (o, s, "field", p)
            for o, s, p in zip(layout.offset.tolist(), layout.length.tolist(), layout.paths, strict=True)
        ]
        tiles += [(o, len(h), "subsection header", framing.name(h[2:-4])) for o, h in layout.subsections]
        for offset, size, what, detail in sorted(tiles):
            yield section.payload_offset + offset, size, what, section.label, detail

    # -- building ----------------------------------------------------------------------------------------------

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yields the stream again: framing from records, payloads from decoded values, gaps from the file."""
        for record in self._records:
            if isinstance(record, Repeated):
                yield from self._built_run(record)
            elif isinstance(record, Section):
                yield from self._built_section(record)
            elif isinstance(record, Pages):
                yield from self._ram.build(record.offset, record.offset + record.size)
            elif isinstance(record, Gap):
                yield from pieces(self._view, record.offset, record.offset + record.size)
            else:
                yield record.build()

    def _built_run(self, run: Run) -> Iterator[bytes]:
        first = run.first
        one = b"".join(self._built_section(first)) if isinstance(first, Section) else first.build()
        at_once = max(_PIECE // len(one), 1)
        for done in range(0, run.count, at_once):
            yield one * min(at_once, run.count - done)

    def _built_section(self, section: Section) -> Iterator[bytes | memoryview]:
        yield section.header.build()
        start, end = section.payload_offset, section.payload_end
        if section.how == "ram":
            yield from self._ram.build(start, end)
        elif section.leaves:
            yield handwritten.build(section.leaves)
        elif section.described:
            yield encode(self._layout(section), self._view[start:end])
        else:
            yield from pieces(self._view, start, end)
        if section.footer:
            yield section.footer.build()
