"""`vt.explore`: a stream to walk through, or two side by side, down to the bytes of each field."""

from __future__ import annotations

import functools
import itertools
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import pandas as pd
import traitlets

from vmstate_tools.analysis.differences import diff
from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.facts import catalog, flags
from vmstate_tools.show.widgets.rows import Differences, Item, Items, locate
from vmstate_tools.show.widgets.search import Hit, search
from vmstate_tools.show.widgets.static_html import differences_still, stream_still
from vmstate_tools.show.widgets.tree import Node, roots
from vmstate_tools.stream.records import Section
from vmstate_tools.stream.stream import Stream, open_stream
from vmstate_tools.vmstate.layout import format_value

if TYPE_CHECKING:
    from vmstate_tools.stream.stream import Where

_HERE = Path(__file__).resolve().parent
_WINDOW = 256  # bytes of the file shown at once
_HITS = 200  # results of a search, or differences, listed at once


def explore(
    a: Stream | Where,
    b: Stream | Where | None = None,
    *,
    section: str | None = None,
    field: str | None = None,
    instance: int | None = None,
) -> Explorer:
    """A widget to walk through a stream: its sections, subsections and fields as a tree, the bytes of what is chosen.

    Parameters
    ----------
    a, b : one stream, or two to see where they differ (by `vt.diff`); streams, or what `vt.open` takes.
        A stream that was given must stay open as long as the widget is used.
    section, field, instance : what is chosen at the start, as in `Stream.value`.

    What is not opened is not read: a section's fields are told when it is opened, and 256 bytes are shown at a time.
    Search finds a part of a name, a name with `*` and `?`, a value (decimal, or hex with 0x), or text in quotes.
    Without a kernel the page shows the sections and their first fields.

    Raises StreamError, or KeyError where there is no such section or field.
    """
    given = [s for s in (a, b) if s is not None]
    widget = Explorer([s if isinstance(s, Stream) else open_stream(s) for s in given])
    if section is not None:
        widget.select(section, field, instance=instance)
    return widget


class Explorer(anywidget.AnyWidget):
    """What `vt.explore` gives.

    `selected` says what is chosen, for `observe`: a dict of section, instance_id, vmsd, path, type, offset, size
    (bytes) and value; empty at first.
    """

    _esm = _HERE / "explore.js"
    _css = _HERE / "explore.css"
    _start = traitlets.Dict().tag(sync=True)
    selected = traitlets.Dict()

    def __init__(self, streams: list[Stream]) -> None:
        self.streams = streams
        two = len(streams) == 2
        self.differences = Differences(diff(*streams)) if two else None
        self._items = Items((roots(streams[0]), roots(streams[1]) if two else []), self.differences)
        self._still = f"vmstate-{uuid.uuid4().hex}"  # the HTML id of the picture for pages without a kernel
        self._chosen: Node | None = None
        start: dict[str, Any] = {"streams": [self._about(s) for s in streams], "still": self._still}
        start["rows"] = [self._row(item) for item in self._items.top]
        if self.differences is not None:
            start["found"] = self._different()
        super().__init__(_start=start)
        self.on_msg(self._asked)

    def select(self, section: str, field: str | None = None, *, instance: int | None = None) -> None:
        """Choose a section or a field: the widget opens the way to it. Raises KeyError, StreamError."""
        stream = self.streams[0]
        which = stream.section(section, instance)
        offset = which.offset if field is None else locate(stream, which.label, None, field)
        if offset is None:
            raise KeyError(f"section {which.label} of {stream.name} has no field {field!r}")
        shown = self._reveal(0, offset, field or "")
        self._start = {**self._start, "shown": shown}
        self._chosen = self._items[shown["row"]].pair[0]
        self.send({"shown": shown})

    def _ipython_display_(self) -> None:
        """The picture, which the widget hides while it lives, and the widget: two outputs, so that a page that
        cannot show the second has the first.
        """
        from IPython.display import display

        plain = f"<{type(self).__name__} of {', '.join(printable(s.name) for s in self.streams)}>"
        html = f'<div id="{self._still}">{self.still()}</div>'
        display({"text/html": html, "text/plain": plain}, raw=True)
        bundle = self._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        display({**(data or {}), "text/plain": "(Run this cell to move about in it.)"}, metadata=metadata, raw=True)

    def still(self) -> str:
        """HTML of what the widget shows at the start, without anything that runs."""
        if self.differences is not None:
            return differences_still(self.streams, self.differences)
        return stream_still(self.streams[0], self._chosen)

    # -- what a page asks -----------------------------------------------------------------------------------------

    def _asked(self, _: object, message: dict[str, Any], buffers: object) -> None:
        """Answer one message of a page; it comes from a browser, so nothing in it is believed."""
        try:
            answer = self.answer(message)
        except VmstateError as error:
            answer = {"error": str(error)}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            closed = any(s.closed for s in self.streams)
            answer = {"error": "the stream was closed" if closed else f"{type(error).__name__}: {error}"}
        self.send({"to": message.get("from"), **answer})

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to `{"do": …}`: `open`, `pick`, `bytes`, `at`, `find` or `differences`."""
        if any(s.closed for s in self.streams):
            raise VmstateError("the stream was closed")
        do = message["do"]
        if do == "open":
            return {"rows": [self._row(item) for item in self._items.children(self._items[message["row"]])]}
        if do == "pick":
            return {"detail": self._detail(self._items[message["row"]])}
        if do == "bytes":
            return {"bytes": self._bytes(message["side"], message["start"])}
        if do == "at":
            return self._reveal(message["side"], message["offset"], message.get("path"))
        if do == "find":
            return {"found": self._find(str(message["query"]))}
        if do == "differences":
            return {"found": self._different()}
        raise ValueError(do)

    def _about(self, stream: Stream) -> dict[str, Any]:
        return {
            "name": printable(stream.name),
            "machine": stream.machine or "not said",
            "size": len(stream.source.view),
            "error": str(stream.error) if stream.error else "",
        }

    def _row(self, item: Item) -> dict[str, Any]:
        node = item.node
        row: dict[str, Any] = {"row": item.number, "label": item.label, "kind": node.kind, "only": ""}
        if item.run is not None:
            row |= {"kind": "range", "inner": True, "note": ""}
        else:
            notes = list(dict.fromkeys(n.shown() for n in item.pair if n))
            row |= {"inner": any(n.inner for n in item.pair if n), "note": " ≠ ".join(notes), "size": node.size}
        if self.differences is not None:
            row["only"] = "" if item.run else item.only
            row["differences"] = self.differences.count(item)
        return row

    def _reveal(self, side: int, offset: int, path: str | None = None) -> dict[str, Any]:
        """The way to what stands at an offset: the rows of each level, and the detail of the last.

        The last is the smallest thing there, or the one that has this path; '' is the section itself.
        """
        chain = self._items.reveal(side, offset)
        for i, item in enumerate(chain):
            node = item.pair[side]
            if node and not item.run and (node.path == path if path else path == "" and node.kind == "section"):
                chain = chain[: i + 1]
                break
        if not chain:
            raise VmstateError(f"nothing stands at {offset}")
        opened = [
            {"row": item.number, "rows": [self._row(child) for child in self._items.children(item)]}
            for item in chain[:-1]
        ]
        return {"way": opened, "row": chain[-1].number, "detail": self._detail(chain[-1])}

    # -- what is known of one thing -------------------------------------------------------------------------------

    def _detail(self, item: Item) -> dict[str, Any]:
        node = item.node
        self.selected = {
            "section": node.section.idstr if node.section else "",
            "instance_id": node.section.instance_id if node.section else None,
            "vmsd": node.vmsd,
            "path": node.path,
            "type": node.type,
            "offset": node.offset,
            "size": node.size,
            "value": node.read(),
        }
        detail: dict[str, Any] = {
            "title": node.path or item.label,
            "where": node.section.label if node.section else "",
            "vmsd": node.vmsd if node.section and node.vmsd != node.section.idstr else "",
            "kind": "range" if item.run else node.kind,
            "type": node.type,
            "meaning": _meanings().get(node.type, ""),
            "facts": _facts(node.section) if node.section and not node.path else [],
            "sides": [self._side(number, n) for number, n in enumerate(item.pair[: len(self.streams)])],
        }
        words = [n.read() for n in item.pair if n]
        word = node.path.rsplit(".", 1)[-1].removeprefix("mig_")
        if word in flags.WORDS and all(isinstance(w, int) and w >= 0 for w in words):
            detail["flags"] = _flags(word, words)
        return detail

    def _side(self, number: int, node: Node | None) -> dict[str, Any] | None:
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
        return {
            "facts": facts,
            "offset": node.offset,
            "size": node.size,
            "bytes": self._bytes(number, node.offset - 32 if len(self.streams) == 2 else (node.offset - 32) & ~15),
        }

    def _bytes(self, side: int, start: int) -> dict[str, Any]:
        view = self.streams[side].source.view
        start = max(0, min(start, len(view) - 1))
        return {"side": side, "start": start, "data": bytes(view[start : start + _WINDOW]).hex(), "end": len(view)}

    # -- lists ----------------------------------------------------------------------------------------------------

    def _find(self, query: str) -> dict[str, Any]:
        seen: set[tuple[str, str, str]] = set()

        def hits() -> Any:
            for side, stream in enumerate(self.streams):
                for hit in search(stream, query):
                    key = (hit.section.label, hit.vmsd, hit.path)
                    if side == 0 or key not in seen:
                        seen.add(key)
                        yield side, hit

        found = list(itertools.islice(hits(), _HITS + 1))
        rows = [self._hit(side, hit) for side, hit in found[:_HITS]]
        many = f"the first {_HITS}" if len(found) > _HITS else f"{len(found)}"
        return {"title": f"{many} found", "rows": rows}

    def _hit(self, side: int, hit: Hit) -> dict[str, Any]:
        chain = self._items.reveal(side, hit.offset) if hit.path else []
        node = next((n for item in reversed(chain) if (n := item.pair[side]) and n.path == hit.path), None)
        note = node.shown() if node else ""
        return {
            "side": side,
            "offset": hit.offset,
            "section": hit.section.label,
            "path": hit.path,
            "label": hit.path,
            "note": note,
        }

    def _different(self) -> dict[str, Any]:
        """The rows of `vt.diff`, each with the place to go to."""
        if self.differences is None:
            return {"title": "", "rows": []}
        frame = self.differences.frame
        found = []
        for row in frame.head(_HITS).to_dict("records"):
            label = row["section"] if pd.isna(row["instance_id"]) else f"{row['section']}/{row['instance_id']}"
            side = 0 if row["kind"].endswith("only in a") else 1  # names in the frame are those of b
            path = row["path"].split(" → ")[-1]
            offset = locate(self.streams[side], label, row["vmsd"], path)
            if offset is None:
                offset, path = locate(self.streams[side], label, "", ""), ""
            a, b = (format_value(row[name]) for name in ("a", "b"))
            values = f"{a} ≠ {b}" if a and b else a or b
            if row["kind"] == "name":
                note = "under another name"
            elif row["kind"] == "value":
                note = row["flags"] or values
            else:
                note = f"{row['kind']}: {values}" if values else row["kind"]
            found.append(
                {
                    "side": side,
                    "offset": offset,
                    "section": label,
                    "path": path,
                    "label": row["path"] or row["vmsd"],
                    "note": printable(note),
                }
            )
        more = f", the first {_HITS} of them" if len(frame) > _HITS else ""
        return {"title": f"{len(frame):,} differences{more}", "rows": found}


@functools.cache
def _meanings() -> dict[str, str]:
    return {row["type"]: row["meaning"] for row in catalog.table("types")}


def _facts(section: Section) -> list[tuple[str, str]]:
    return [
        ("idstr", section.idstr),
        ("instance_id", str(section.instance_id)),
        ("version_id", str(section.version_id)),
        ("section_id", str(section.section_id)),
        ("read by", section.how),
    ]


def _flags(word: str, words: list[int]) -> list[dict[str, str]]:
    """The flags that are set in any of the words, lowest bit first; `only` where not in all."""
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
