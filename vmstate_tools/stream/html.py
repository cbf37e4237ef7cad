"""How a stream looks in a notebook, and tables for others. All text from a stream is escaped: it is hostile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from vmstate_tools.errors import printable

_MOST = 40  # rows shown of a table


def text(value: object) -> str:
    """Returns any value as text that a page shows and nothing else."""
    return escape(printable(str(value)))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns an HTML table; columns called `>…` are numbers. Rows beyond the fortieth are only counted."""
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


def stream_html(summary: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns what `summarize` says of a stream as HTML; `rows` are its sections, as `by_section` has them."""
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
            for s in rows
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
    return f"<p><b>{text(summary['file'])}</b><br>{text(', '.join(facts))}</p>{sections}{ram}"
