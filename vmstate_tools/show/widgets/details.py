"""What the explorer says of one row of its tree: facts, bytes, flags. All values are ready for a page."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from vmstate_tools.facts import catalog, flags
from vmstate_tools.show.widgets.rows import Item
from vmstate_tools.show.widgets.tree import Node
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream

_WINDOW = 256  # bytes of the file shown at once


def detail(streams: Sequence[Stream], item: Item) -> dict[str, Any]:
    """Returns everything that is shown of a row: its title, type and meaning, its flags, and each stream's side."""
    node = item.node
    found: dict[str, Any] = {
        "title": node.path or item.label,
        "where": node.section.label if node.section else "",
        "vmsd": node.vmsd if node.section and node.vmsd != node.section.idstr else "",
        "kind": "range" if item.run else node.kind,
        "type": node.type,
        "meaning": _meanings().get(node.type, ""),
        "facts": _facts(node.section) if node.section and not node.path else [],
        "sides": [
            _side(stream, side, n, len(streams))
            for side, (stream, n) in enumerate(zip(streams, item.pair, strict=False))
        ],
    }
    words = [n.read() for n in item.pair if n]
    word = node.path.rsplit(".", 1)[-1].removeprefix("mig_")
    if word in flags.WORDS and all(isinstance(w, int) and w >= 0 for w in words):
        found["flags"] = _flags(word, words)
    return found


def selected(node: Node) -> dict[str, Any]:
    """Returns what `Explorer.selected` says of a node."""
    return {
        "section": node.section.idstr if node.section else "",
        "instance_id": node.section.instance_id if node.section else None,
        "vmsd": node.vmsd,
        "path": node.path,
        "type": node.type,
        "offset": node.offset,
        "size": node.size,
        "value": node.read(),
    }


def window(stream: Stream, side: int, start: int) -> dict[str, Any]:
    """Returns 256 bytes of the file from `start` on, in hex; `side` says which stream it is."""
    view = stream.view
    start = max(0, min(start, len(view) - 1))
    return {"side": side, "start": start, "data": bytes(view[start : start + _WINDOW]).hex(), "end": len(view)}


def _side(stream: Stream, side: int, node: Node | None, streams: int) -> dict[str, Any] | None:
    """Returns where a node stands in its stream, its value and the bytes around it; None where there is no node."""
    if node is None:
        return None
    value = node.read()
    facts = [("offset", f"{node.offset:,} (0x{node.offset:x})")]
    if node.section is not None and node.kind != "section":
        inside = node.offset - node.section.payload_offset
        if inside >= 0:
            facts.append(("in the payload", f"{inside:,} (0x{inside:x})"))
    facts.append(("size", f"{node.size:,} byte{'s' if node.size != 1 else ''}"))
    if isinstance(value, int) and not isinstance(value, bool):
        facts.append(("value", f"{value:,}" if -1000 < value < 1000 else f"{value}"))
        facts.append(("in hex", f"0x{value & ((1 << 8 * node.size) - 1):0{2 * node.size}x}"))
    elif value is not None:
        facts.append(("value", node.shown()))
    # Two streams are aligned by the node, one stream by rows of 16 bytes.
    start = node.offset - 32 if streams == 2 else (node.offset - 32) & ~15
    return {"facts": facts, "offset": node.offset, "size": node.size, "bytes": window(stream, side, start)}


@functools.cache
def _meanings() -> dict[str, str]:
    """Returns the type of a field → what it means."""
    return {row["type"]: row["meaning"] for row in catalog.table("types")}


def _facts(section: Section) -> list[tuple[str, str]]:
    """Returns what the header of a section says, and how the section was read."""
    return [
        ("idstr", section.idstr),
        ("instance_id", str(section.instance_id)),
        ("version_id", str(section.version_id)),
        ("section_id", str(section.section_id)),
        ("read by", section.how),
    ]


def _flags(word: str, words: list[int]) -> list[dict[str, str]]:
    """Returns the flags that are set in any of the words, lowest first; `only` is the stream that alone has one."""
    every = 0
    for value in words:
        every |= value
    found = []
    for bit in range(64):
        if every >> bit & 1:
            (name,) = flags.decode(word, 1 << bit)
            known = [f for f in flags.known(word) if f.name in name.split("/")]
            has = [bool(value >> bit & 1) for value in words]
            only = "" if all(has) else "a" if has[0] else "b"
            found.append({"name": name, "meaning": known[-1].meaning if known else "", "only": only})
    return found
