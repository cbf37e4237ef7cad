"""A stream as a tree of records, sections, subsections, fields and elements, made only as far as it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from vmstate_tools.stream.records import Gap, Pages, Repeated, Run, Section, record_detail, record_kind
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.decode import gather
from vmstate_tools.vmstate.description import FieldDescription, Vmsd
from vmstate_tools.vmstate.layout import BYTES, Layout, format_value
from vmstate_tools.vmstate.value_column import ValueArray

_TEXT = 64  # bytes of a buffer that are read to show it


@dataclasses.dataclass(eq=False, slots=True)
class Node:
    """A Node is a part of a stream in the tree. `offset` and `size` are in bytes of the file.

    `kind` is 'section', 'subsection', 'struct', 'array', 'field' or 'record'; the last stands for framing and RAM.
    `path` and `vmsd` are those of a field in `Stream.fields()`. `how` is the kind of the value (of `vmstate.layout`)
    where there is one. `shape` is the description of a subsection or struct. `pieces` are the records of a section that
    was sent in several. `inner` makes the children.
    """

    stream: Stream
    label: str
    kind: str
    offset: int
    size: int
    path: str = ""
    type: str = ""
    vmsd: str = ""
    section: Section | None = None
    note: str = ""
    how: int | None = None
    value: Any = None
    inner: Callable[[], Sequence[Node]] | None = None
    shape: Vmsd | None = None
    pieces: list[Section | Run] = dataclasses.field(default_factory=list)

    def children(self) -> Sequence[Node]:
        """Returns the parts of the node in stream order. Raises StreamError where the bytes do not fit it."""
        return self.inner() if self.inner else ()

    def holds(self, offset: int) -> bool:
        """Returns whether the byte at `offset` of the file belongs to the node."""
        if self.pieces:
            return any(p.offset <= offset < p.offset + p.size for p in self.pieces)
        return self.offset <= offset < self.offset + self.size

    def read(self) -> Any:
        """Returns the value of a field: int, bool, str, or the first bytes of a buffer; None for any other node."""
        if self.how is None:
            return self.value
        view = self.stream.view
        if self.how == BYTES:
            return bytes(view[self.offset : self.offset + min(self.size, _TEXT)])
        data = np.frombuffer(view[self.offset : self.offset + self.size], np.uint8)
        at, width, kind = np.zeros(1, np.int64), np.array([self.size]), np.array([self.how], np.uint8)
        return ValueArray(gather(data, at, width, kind), kind)[0]

    def shown(self) -> str:
        """Returns the value as short text, or the note where there is no value."""
        value = self.read()
        if value is None:
            return self.note
        if not isinstance(value, bytes):
            return format_value(value)
        text, _, rest = value.partition(b"\0")
        if len(text) >= 3 and text.isascii() and text.decode().isprintable() and not any(rest):
            return f'"{text.decode()}"{" …" if len(text) == _TEXT else ""}'
        if not any(value) and len(value) == self.size:
            return f"{self.size:,} bytes, all 0"
        return f"{value[:8].hex(' ')}{' …' if self.size > 8 else ''}"


class Elements(Sequence[Node]):
    """Children of equal size at equal distances, each made when it is asked for."""

    def __init__(self, count: int, offset: int, width: int, make: Callable[[int, int], Node]) -> None:
        self._count, self._offset, self._width, self._make = count, offset, width, make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, i: int) -> Node: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Node]: ...
    def __getitem__(self, i: int | slice) -> Node | Sequence[Node]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self._count))]
        if not 0 <= i < self._count:
            raise IndexError(i)
        return self._make(i, self._offset + i * self._width)

    def place(self, offset: int) -> int:
        """Returns the number of the element that holds the byte at `offset`."""
        return (offset - self._offset) // self._width


Pair = tuple[Node | None, Node | None]
"""What stands at one place of the first stream and of the second; None where that stream has nothing there."""


def place(nodes: Sequence[Node], offset: int) -> int | None:
    """Returns the number of the node that holds the byte at `offset`, None where there is none."""
    if isinstance(nodes, Elements):
        i = nodes.place(offset)
        return i if 0 <= i < len(nodes) else None
    return next((i for i, node in enumerate(nodes) if node.holds(offset)), None)


def roots(stream: Stream) -> list[Node]:
    """Returns all records of a stream in file order; the parts of a section (START, PART, END) are one node.

    A run of records that equal the one before them is one node without parts: there may be millions of them.
    """
    found: dict[Any, Node] = {}
    for number, record in enumerate(stream.records):
        if isinstance(record, Repeated):
            first = record.first
            node = found.get(first.section_id) if isinstance(first, Section) and first.part != "full" else None
            if node is None:
                found[number,] = _run(stream, record)
            else:
                node.pieces.append(record)
                node.size += record.size
        elif isinstance(record, Section):
            key = record.section_id if record.part != "full" else (number,)
            if key in found:
                node = found[key]
                node.pieces.append(record)
                node.size += record.size
            else:
                found[key] = _section(stream, record)
        elif isinstance(record, Pages):
            node = Node(stream, "pages", "record", record.offset, record.size)
            node.inner = lambda r=record: _ram(stream, None, r.offset, r.offset + r.size)
            found[number,] = node
        elif isinstance(record, Gap):
            found[number,] = Node(stream, record.what, "record", record.offset, record.size, type="opaque")
        else:
            detail = record_detail(record)
            found[number,] = Node(
                stream,
                record_kind(record),
                "record",
                record.offset,
                record.size,
                note=detail,
                value=detail or None,
            )
    return list(found.values())


def _run(stream: Stream, run: Run) -> Node:
    """Returns the node of all records of a run, together."""
    node = Node(stream, f"{run.count:,} alike", "record", run.offset, run.size, note=f"{run.size:,} bytes")
    node.section = run.first if isinstance(run.first, Section) else None
    return node


def _section(stream: Stream, section: Section) -> Node:
    """Returns the node of a section; a section sent in parts has a node for each part."""
    node = Node(stream, section.label, "section", section.offset, section.size, section=section)
    node.note = f"version {section.version_id}"
    if section.part == "full":
        node.inner = lambda: _inside(stream, section)
    else:
        node.pieces.append(section)
        node.inner = lambda: [
            _part(stream, piece, i) if isinstance(piece, Section) else _run(stream, piece)
            for i, piece in enumerate(node.pieces)
        ]
    return node


def _part(stream: Stream, part: Section, number: int) -> Node:
    label = part.part if part.part != "part" else f"part {number}"
    node = Node(stream, label, "record", part.offset, part.size, section=part, note=f"{part.size:,} bytes")
    node.inner = lambda: _inside(stream, part)
    return node


def _inside(stream: Stream, section: Section) -> list[Node]:
    """Returns the parts of a section record: header, payload, footer."""
    header = Node(stream, "header", "record", section.offset, section.header.size, section=section)
    header.note = f"section_id {section.section_id}"
    nodes = [header]
    start, end = section.payload_offset, section.payload_end
    if section.how == "ram":
        nodes += _ram(stream, section, start, end)
    elif section.leaves:
        for leaf in section.leaves:
            value = leaf.value if not isinstance(leaf.value, bytes) else None
            how = BYTES if value is None else None
            node = Node(stream, leaf.path, "field", leaf.offset, leaf.size, leaf.path, leaf.type, "", section)
            node.how, node.value = how, value
            nodes.append(node)
    elif section.described:
        layout = stream.layout(section)
        assert section.description is not None
        nodes += _Described(stream, section, layout).vmsd(section.description.vmsd, 0, "")
    elif section.payload_size:
        size = section.payload_size
        nodes.append(Node(stream, "data", "field", start, size, "data", "opaque", "", section, how=BYTES))
    if section.footer:
        nodes.append(Node(stream, "footer", "record", section.footer.offset, section.footer.size, section=section))
    return nodes


def _ram(stream: Stream, section: Section | None, start: int, end: int) -> list[Node]:
    """Returns a node for each entry of `Ram.records` in this range of the file."""
    return [
        _pages(stream, section, offset, size, what, detail[0] if detail else "")
        for offset, size, what, *detail in stream.ram.records(start, end)
    ]


def _pages(stream: Stream, section: Section | None, offset: int, size: int, what: str, detail: str) -> Node:
    """Returns the node of an entry of `Ram.records`; where the entry is a run of pages, they are its children."""
    node = Node(stream, what, "record", offset, size, section=section, note=detail)
    count, _, block = detail.partition(" x ")
    if not block or not count.isdigit() or int(count) < 2:
        return node
    # The first page of a run may name the block; all others have one size. Other runs are left closed.
    width = 9 if "zero" in what else 8 + (stream.page_size or 0)
    lead = size - int(count) * width
    if what in ("ram zero pages", "ram pages") and lead in (0, 1 + len(block.encode())):
        mask = (stream.page_size or 1) - 1

        def page(i: int, at: int) -> Node:
            at, length = (at, width) if i or not lead else (offset, lead + width)
            head = int.from_bytes(stream.view[at : at + 8], "big")
            kind = "zero page" if "zero" in what else "page"
            return Node(stream, f"0x{head & ~mask:x}", "record", at, length, section=section, note=kind)

        node.inner = lambda: Elements(int(count), offset + lead, width, page)
    return node


class _Described:
    """Makes the nodes of a section that has a description: the description gives the tree, the layout the leaves."""

    def __init__(self, stream: Stream, section: Section, layout: Layout) -> None:
        self.stream, self.section, self.layout = stream, section, layout
        self.base = section.payload_offset

    def node(self, label: str, kind: str, offset: int, size: int, **more: Any) -> Node:
        """Returns a node at `offset` of the payload."""
        return Node(self.stream, label, kind, self.base + offset, size, section=self.section, **more)

    def vmsd(self, vmsd: Vmsd, offset: int, prefix: str) -> Iterator[Node]:
        """Yields the fields and subsections of a vmsd that begins at `offset` of the payload."""
        for field in vmsd.fields:
            extent = field.size * (1 if field.count is None else field.count)
            if extent:
                yield self.field(field, vmsd, offset, extent, prefix + field.label)
            offset += extent
        for sub in vmsd.subsections:
            head = 6 + len(sub.wire_name)
            node = self.node(sub.name, "subsection", offset, head + sub.size, vmsd=sub.name, shape=sub)
            node.note = f"version {sub.version_id}"
            node.inner = lambda sub=sub, at=offset, head=head: [
                self.node("header", "record", at, head, note=sub.name),
                *self.vmsd(sub, at + head, prefix),
            ]
            yield node
            offset += head + sub.size

    def field(self, field: FieldDescription, vmsd: Vmsd, offset: int, extent: int, path: str) -> Node:
        """Returns the node of a field, struct or array that takes `extent` bytes at `offset` of the payload."""
        first, last = np.searchsorted(self.layout.offset, (offset, offset + extent)).tolist()
        if last == first + 1 and self.layout.paths[first] == path:
            return self.leaf(first, field.label)
        about = {"type": field.type, "vmsd": vmsd.name, "shape": field.struct}
        node = self.node(field.label, "struct", offset, extent, path=path, **about)
        if field.count is None:
            node.inner = lambda: self.element(field, offset, path)
        else:
            node.kind, node.note = "array", f"{field.count:,} × {field.size:,} bytes"

            def make(i: int, at: int) -> Node:
                name, at = f"{path}[{i}]", at - self.base
                element = self.node(f"[{i}]", "struct", at, field.size, path=name, **about)
                element.inner = lambda: self.element(field, at, name)
                return element

            node.inner = lambda: Elements(field.count or 0, self.base + offset, field.size, make)
        return node

    def element(self, field: FieldDescription, offset: int, path: str) -> list[Node]:
        """Returns the parts of a struct, or of a type that holds several numbers."""
        if field.struct is not None:
            return list(self.vmsd(field.struct, offset, path + "."))
        first, last = np.searchsorted(self.layout.offset, (offset, offset + field.size)).tolist()
        return [self.leaf(i, self.layout.paths[i].removeprefix(path).removeprefix(".")) for i in range(first, last)]

    def leaf(self, number: int, label: str) -> Node:
        """Returns the node of a leaf of the layout: a field, or an array of plain values."""
        layout = self.layout
        path, type_, vmsd = layout.paths[number], layout.types[number], layout.vmsds[number]
        offset, width, count = (int(c[number]) for c in (layout.offset, layout.width, layout.count))
        kind = int(layout.kind[number])
        if not count:
            return self.node(label, "field", offset, width, path=path, type=type_, vmsd=vmsd, how=kind)

        def make(i: int, at: int) -> Node:
            where = at - self.base
            return self.node(f"[{i}]", "field", where, width, path=f"{path}[{i}]", type=type_, vmsd=vmsd, how=kind)

        node = self.node(label, "array", offset, width * count, path=path, type=type_, vmsd=vmsd)
        node.note = f"{count:,} × {width:,} bytes"
        node.inner = lambda: Elements(count, self.base + offset, width, make)
        return node
