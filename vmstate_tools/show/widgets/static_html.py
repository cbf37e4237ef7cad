"""Plain HTML that stands in for a widget on a page without a kernel: nothing in it moves or runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmstate_tools.errors import StreamError
from vmstate_tools.show.widgets.difference_counts import Differences
from vmstate_tools.show.widgets.tree import Node, roots
from vmstate_tools.stream.html import table, text
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.layout import format_value

_SECTIONS = 60  # sections shown
_FIELDS = 12  # fields shown of each section
_ROW = 16  # bytes in a row


def stream_page(stream: Stream, chosen: Node | None = None) -> str:
    """Returns the sections of a stream, each with its first fields, and the chosen node with its bytes."""
    nodes = roots(stream)
    parts = [f"<p><b>{text(stream.name)}</b>, {len(stream.view):,} bytes</p>"]
    for node in nodes[:_SECTIONS]:
        about = f"{text(node.label)} <small>{text(node.note)}, {node.size:,} bytes at {node.offset:,}</small>"
        if node.section is None:
            parts.append(f"<div>{about}</div>")
        else:
            parts.append(f"<details><summary>{about}</summary>{_fields(node)}</details>")
    if len(nodes) > _SECTIONS:
        parts.append(f"<p>… and {len(nodes) - _SECTIONS:,} more</p>")
    if chosen is not None:
        parts.append(_bytes(chosen))
    return "".join(parts)


def differences_page(streams: Sequence[Stream], differences: Differences) -> str:
    """Returns the first forty differences between two streams."""
    names = " and ".join(f"<b>{text(stream.name)}</b>" for stream in streams)
    frame = differences.frame
    rows = (
        (section, path or vmsd, kind, format_value(a), format_value(b), marks)
        for section, path, vmsd, kind, a, b, marks in zip(
            *(frame[name] for name in ("section", "path", "vmsd", "kind", "a", "b", "flags")), strict=True
        )
    )
    columns = ["section", "path", "kind", "a", "b", "flags"]
    return f"<p>{names}: {len(frame):,} differences</p>{table(columns, rows)}"


def _fields(section: Node) -> str:
    """Returns a table of the first fields of a section, or the error where it cannot be decoded."""
    rows: list[tuple[str, str, str, str]] = []
    try:
        for node in _leaves(section):
            if len(rows) == _FIELDS:
                rows.append(("…", "", "", ""))
                break
            rows.append((node.path or node.label, node.type, f"{node.offset:,}", node.shown()))
    except StreamError as error:
        return f"<p>{text(error)}</p>"
    return table(["field", "type", ">offset", "value"], rows)


def _leaves(node: Node) -> Iterator[Node]:
    """Yields fields and arrays in stream order, without the records that frame them."""
    for child in node.children():
        if child.kind in ("field", "array") or (child.kind == "record" and child.note and not child.inner):
            yield child
        else:
            yield from _leaves(child)


def _bytes(node: Node) -> str:
    """Returns rows of bytes around a node, with the bytes of the node in bold."""
    view = node.stream.view
    lines = []
    first = max(0, (node.offset - _ROW) // _ROW * _ROW)
    for start in range(first, min(first + 8 * _ROW, len(view)), _ROW):
        row = bytes(view[start : start + _ROW])
        cells = [
            f"<b><mark>{byte:02x}</mark></b>" if node.offset <= start + i < node.offset + node.size else f"{byte:02x}"
            for i, byte in enumerate(row)
        ]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:08x}  {' '.join(cells)}{'   ' * (_ROW - len(row))}  {text(shown)}")
    title = f"{text(node.path or node.label)} <small>{text(node.type)}, {node.size:,} bytes at {node.offset:,}</small>"
    return f"<p><b>{title}</b> {text(node.shown())}</p><pre>{chr(10).join(lines)}</pre>"
