"""How a collection looks in a notebook. All text from streams and manifests is escaped: it may be hostile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.stream.html import table, text

if TYPE_CHECKING:
    import pandas as pd


def collection_html(streams: pd.DataFrame, errors: pd.DataFrame) -> str:
    """Returns a collection as HTML: how many streams of each release (or machine type) there are, and what failed."""
    facts = [f"{len(streams)} streams", f"{len(errors)} that could not be read"]
    by = "release" if "release" in streams else "machine"
    counts = streams.groupby(by, dropna=False, observed=True).agg(
        machines=("machine", "nunique"), streams=("file", "size"), size=("stream_size", "sum")
    )
    rows = table(
        [by, ">machine types", ">streams", ">bytes"],
        ((name, machines, n, f"{size:,}") for name, machines, n, size in counts.itertuples(name=None)),
    )
    bad = table(["file", "error"], zip(errors["file"], errors["message"], strict=True)) if len(errors) else ""
    return f"<p><b>Collection</b><br>{text(', '.join(facts))}</p>{rows}{bad}"
