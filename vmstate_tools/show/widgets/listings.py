"""The lists of the explorer: what a search found, and where two streams differ. Each row has a place to go to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from vmstate_tools.errors import printable
from vmstate_tools.show.widgets.difference_counts import Differences
from vmstate_tools.show.widgets.rows import Items
from vmstate_tools.show.widgets.search import Hit, locate, search
from vmstate_tools.stream.stream import Stream
from vmstate_tools.vmstate.layout import format_value

_HITS = 200  # rows of a list


def found(streams: Sequence[Stream], items: Items, query: str) -> dict[str, Any]:
    """Returns what `query` finds in the streams, what both have only once, and how many there are."""
    hits = list(itertools.islice(_hits(streams, query), _HITS + 1))
    rows = [_hit(items, side, hit) for side, hit in hits[:_HITS]]
    many = f"the first {_HITS}" if len(hits) > _HITS else f"{len(hits)}"
    return {"title": f"{many} found", "rows": rows}


def _hits(streams: Sequence[Stream], query: str) -> Iterator[tuple[int, Hit]]:
    """Yields (side, hit): the hits of the first stream, then what only the second has."""
    seen: set[tuple[str, str, str]] = set()
    for side, stream in enumerate(streams):
        for hit in search(stream, query):
            key = (hit.section.label, hit.vmsd, hit.path)
            if side == 0 or key not in seen:
                seen.add(key)
                yield side, hit


def _hit(items: Items, side: int, hit: Hit) -> dict[str, Any]:
    """Returns a row of the list."""
    chain = items.reveal(side, hit.offset) if hit.path else []
    node = next((n for item in reversed(chain) if (n := item.pair[side]) and n.path == hit.path), None)
    return {
        "side": side,
        "offset": hit.offset,
        "section": hit.section.label,
        "path": hit.path,
        "label": hit.path,
        "note": node.shown() if node else "",
    }


def different(streams: Sequence[Stream], differences: Differences) -> dict[str, Any]:
    """Returns the first rows of `vt.diff`, and how many there are."""
    frame = differences.frame
    rows = [_difference(streams, row) for row in frame.head(_HITS).to_dict("records")]
    more = f", the first {_HITS} of them" if len(frame) > _HITS else ""
    return {"title": f"{len(frame):,} differences{more}", "rows": rows}


def _difference(streams: Sequence[Stream], row: dict[Any, Any]) -> dict[str, Any]:
    """Returns a row of the list for a row of `vt.diff`."""
    label = row["section"] if pd.isna(row["instance_id"]) else f"{row['section']}/{row['instance_id']}"
    side = 0 if row["kind"].endswith("only in a") else 1  # names in the frame are those of b
    path = row["path"].split(" → ")[-1]
    offset = locate(streams[side], label, row["vmsd"], path)
    if offset is None:
        offset, path = locate(streams[side], label, "", ""), ""
    a, b = (format_value(row[name]) for name in ("a", "b"))
    values = f"{a} ≠ {b}" if a and b else a or b
    if row["kind"] == "name":
        note = "under another name"
    elif row["kind"] == "value":
        note = row["flags"] or values
    else:
        note = f"{row['kind']}: {values}" if values else row["kind"]
    return {
        "side": side,
        "offset": offset,
        "section": label,
        "path": path,
        "label": row["path"] or row["vmsd"],
        "note": printable(note),
    }
