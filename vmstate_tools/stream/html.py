"""How streams, sections and collections look in a notebook. All text from a stream is escaped: it is hostile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from vmstate_tools.errors import StreamError, printable
from vmstate_tools.stream.summary import by_section, summarize

if TYPE_CHECKING:
    from vmstate_tools.frames.collection import Collection
    from vmstate_tools.stream.stream import Section, Stream
    from vmstate_tools.vmstate.description import FieldDescription, Vmsd

_MOST = 40  # rows shown of a table


def text(value: object) -> str:
    """Any value as text that a page shows and nothing else."""
    return escape(printable(str(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table; columns called `>…` are numbers. Rows beyond the fortieth are only counted."""
    align = ["right" if name.startswith(">") else "left" for name in columns]
    head = "".join(
        f'<th style="text-align:{a}">{text(n.lstrip(">"))}</th>' for n, a in zip(columns, align, strict=True)
    )
    body: list[str] = []
    left = 0
    for row in rows:
        if len(body) == _MOST:
            left += 1
            continue
        cells = (f'<td style="text-align:{a}">{text(v)}</td>' for v, a in zip(row, align, strict=True))
        body.append(f"<tr>{''.join(cells)}</tr>")
    if left:
        body.append(f'<tr><td style="text-align:left" colspan="{len(columns)}">… and {left} more</td></tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def stream_html(stream: Stream) -> str:
    try:
        summary = summarize(stream)
    except StreamError as err:
        return f"<p><b>{text(stream.name)}</b>: {text(err)}</p>"
    size = summary["size"]
    facts = [
        f"machine {summary['machine'] or 'not said'}",
        f"page size {summary['page_size'] or 'not said'}",
        f"{size:,} bytes",
        f"{len(summary['sections'])} section records",
        "no vmdesc" if summary["vmdesc_size"] is None else f"vmdesc of {summary['vmdesc_size']:,} bytes",
    ]
    if summary["coverage"]["opaque"]:
        facts.append(f"{summary['coverage']['opaque']:,} bytes that nothing describes")
    if summary["error"]:
        facts.append(f"read up to an error: {summary['error']}")
    sections = table(
        ["section", ">instance_id", ">version_id", ">parts", ">offset", ">size", ">share", "read by"],
        (
            (
                s["idstr"],
                s["instance_id"],
                s["version_id"],
                s["parts"],
                f"{s['offset']:,}",
                f"{s['size']:,}",
                f"{s['size'] / size:.1%}",
                s["how"],
            )
            for s in by_section(summary)
        ),
    )
    ram = ""
    if summary["ram"]:
        ram = table(
            ["RAM block", ">bytes of guest memory", ">zero pages", ">full pages", ">bytes in the stream"],
            (
                (b["block"], f"{b['used_length']:,}", f"{b['zero']:,}", f"{b['normal']:,}", f"{b['bytes']:,}")
                for b in summary["ram"]
            ),
        )
    return f"<p><b>{text(stream.name)}</b><br>{text(', '.join(facts))}</p>{sections}{ram}"


def section_html(section: Section) -> str:
    facts = [
        f"version {section.version_id}",
        section.part,
        f"at {section.offset:,}",
        f"{section.size:,} bytes, {section.payload_size:,} of them payload",
        f"read by: {section.how}",
    ]
    if section.how == "opaque":
        facts.append(f"bounded by: {section.bounded_by}")
    rows = ""
    if section.description is not None:
        rows = table(["field", "type", ">size"], _fields(section.description.vmsd))
    elif section.leaves:
        rows = table(["field", "type", ">size"], ((leaf.path, leaf.type, leaf.size) for leaf in section.leaves))
    return f"<p><b>{text(section.label)}</b><br>{text(', '.join(facts))}</p>{rows}"


def _fields(vmsd: Vmsd) -> Iterable[tuple[str, str, str]]:
    """The first level of a vmsd: its fields, then its subsections with theirs."""

    def extent(field: FieldDescription) -> str:
        return f"{field.size:,}" if field.count is None else f"{field.count:,} × {field.size:,}"

    yield from ((field.label, field.type, extent(field)) for field in vmsd.fields)
    for sub in vmsd.subsections:
        yield f"subsection {sub.name}", f"version {sub.version_id}", ""
        yield from _fields(sub)


def collection_html(collection: Collection) -> str:
    streams, errors = collection.streams, collection.errors
    facts = [f"{len(streams)} streams", f"{len(errors)} that could not be read"]
    by = "release" if "release" in streams else "machine"
    counts = streams.groupby(by, sort=by != "release", dropna=False).agg(
        machines=("machine", "nunique"), streams=("file", "size"), size=("stream_size", "sum")
    )
    if by == "release":
        counts = counts.loc[sorted(counts.index, key=_release_key)]
    rows = table(
        [by, ">machine types", ">streams", ">bytes"],
        ((name, machines, n, f"{size:,}") for name, machines, n, size in counts.itertuples(name=None)),
    )
    bad = table(["file", "error"], zip(errors["file"], errors["message"], strict=True)) if len(errors) else ""
    return f"<p><b>Collection</b><br>{text(', '.join(facts))}</p>{rows}{bad}"


def _release_key(release: object) -> tuple[int, ...]:
    """Sorts 2.10.0 behind 2.8.0, and what is no release first."""
    return tuple(int(part) for part in str(release).split(".") if part.isdigit())
