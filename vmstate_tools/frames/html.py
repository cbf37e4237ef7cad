"""How collections of streams look in a notebook. All text from a stream is escaped: it is hostile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.stream.html import table, text

if TYPE_CHECKING:
    from vmstate_tools.frames.collection import Collection


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
