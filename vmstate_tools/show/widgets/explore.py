"""The explorer of `vt.explore` shows a stream, or two side by side, down to the bytes of each field."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from vmstate_tools.analysis.differences import diff
from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.show.widgets import details, listings
from vmstate_tools.show.widgets.difference_counts import Differences
from vmstate_tools.show.widgets.rows import Item, Items
from vmstate_tools.show.widgets.search import locate
from vmstate_tools.show.widgets.static_html import differences_page, stream_page
from vmstate_tools.show.widgets.tree import Node, roots
from vmstate_tools.stream.stream import Stream, open_stream

if TYPE_CHECKING:
    from vmstate_tools.stream.stream import Where

_HERE = Path(__file__).resolve().parent


def explore(
    a: Stream | Where,
    b: Stream | Where | None = None,
    *,
    section: str | None = None,
    field: str | None = None,
    instance: int | None = None,
) -> Explorer:
    """Returns a widget to look around in a stream: its sections, subsections and fields as a tree, with their bytes.

    Parameters
    ----------
    a, b : one stream, or two to see where they differ (by `vt.diff`): each a `Stream`, or what `vt.open` takes.
        A `Stream` must stay open as long as the widget is used.
    section, field, instance : what is chosen at the start, as in `Stream.value`.

    Only what you open is read: the fields of a section when you open it, and 256 bytes at a time. The search finds a
    part of a name, a name with `*` and `?`, a value (decimal, or hex with 0x), or text in quotes. Without a kernel the
    page shows the sections and their first fields.

    Raises StreamError, or KeyError where there is no such section or field.
    """
    given = [s for s in (a, b) if s is not None]
    widget = Explorer([s if isinstance(s, Stream) else open_stream(s) for s in given])
    if section is not None:
        widget.select(section, field, instance=instance)
    return widget


class Explorer(anywidget.AnyWidget):
    """An Explorer is the widget that `vt.explore` returns.

    `selected` says what is chosen, and can be observed: a dict of section, instance_id, vmsd, path, type, offset and
    size (both in bytes) and value; it is empty at first.
    """

    _esm = _HERE / "explore.js"
    _css = _HERE / "explore.css"
    _start = traitlets.Dict().tag(sync=True)
    selected = traitlets.Dict()

    def __init__(self, streams: list[Stream]) -> None:
        self.streams = streams
        two = len(streams) == 2
        self.differences = Differences(diff(*streams)) if two else None
        renamed = self.differences.renamed if self.differences else {}
        self._items = Items((roots(streams[0]), roots(streams[1]) if two else []), renamed)
        self._static_id = f"vmstate-{uuid.uuid4().hex}"  # the HTML id of the picture for pages without a kernel
        self._chosen: Node | None = None
        start: dict[str, Any] = {"streams": [self._about(s) for s in streams], "static": self._static_id}
        start["rows"] = [self._row(item) for item in self._items.top]
        if self.differences is not None:
            start["found"] = listings.different(streams, self.differences)
        super().__init__(_start=start)
        self.on_msg(self._asked)

    def select(self, section: str, field: str | None = None, *, instance: int | None = None) -> None:
        """Chooses a section or a field and opens the tree down to it. Raises KeyError, StreamError."""
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
        """Displays plain HTML and then the widget, which hides the HTML while it lives.

        A page that cannot show the second of the two outputs still has the first.
        """
        from IPython.display import display

        plain = f"<{type(self).__name__} of {', '.join(printable(s.name) for s in self.streams)}>"
        html = f'<div id="{self._static_id}">{self.static_html()}</div>'
        display({"text/html": html, "text/plain": plain}, raw=True)
        bundle = self._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        display({**(data or {}), "text/plain": "(Run this cell to move about in it.)"}, metadata=metadata, raw=True)

    def static_html(self) -> str:
        """Returns what the widget shows at the start as HTML, without anything that runs."""
        if self.differences is not None:
            return differences_page(self.streams, self.differences)
        return stream_page(self.streams[0], self._chosen)

    # -- what a page asks -----------------------------------------------------------------------------------------

    def _asked(self, _: object, message: dict[str, Any], buffers: object) -> None:
        """Answers a message of a page. It comes from a browser, so nothing in it is believed."""
        try:
            answer = self.answer(message)
        except VmstateError as error:
            answer = {"error": str(error)}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        self.send({"to": message.get("from"), **answer})

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Returns the answer to `{"do": …}`: `open`, `pick`, `bytes`, `at`, `find` or `differences`."""
        if any(s.closed for s in self.streams):
            raise VmstateError("the stream was closed")
        do = message["do"]
        if do == "open":
            return {"rows": [self._row(item) for item in self._items.children(self._items[message["row"]])]}
        if do == "pick":
            return {"detail": self._detail(self._items[message["row"]])}
        if do == "bytes":
            side = message["side"]
            return {"bytes": details.window(self.streams[side], side, message["start"])}
        if do == "at":
            return self._reveal(message["side"], message["offset"], message.get("path"))
        if do == "find":
            return {"found": listings.found(self.streams, self._items, str(message["query"]))}
        if do == "differences":
            if self.differences is None:
                return {"found": {"title": "", "rows": []}}
            return {"found": listings.different(self.streams, self.differences)}
        raise ValueError(do)

    def _about(self, stream: Stream) -> dict[str, Any]:
        """Returns what stands above the tree."""
        return {
            "name": printable(stream.name),
            "machine": stream.machine or "not said",
            "size": len(stream.view),
            "error": str(stream.error) if stream.error else "",
        }

    def _row(self, item: Item) -> dict[str, Any]:
        """Returns a row of the tree as a page takes it."""
        node = item.node
        row: dict[str, Any] = {"row": item.number, "label": item.label, "kind": node.kind, "only": ""}
        if item.run is not None:
            row |= {"kind": "range", "inner": True, "note": ""}
        else:
            notes = list(dict.fromkeys(n.shown() for n in item.pair if n))
            row |= {"inner": any(n.inner for n in item.pair if n), "note": " ≠ ".join(notes), "size": node.size}
        if self.differences is not None:
            row["only"] = "" if item.run else item.only
            row["differences"] = self._count(self.differences, item)
        return row

    def _count(self, differences: Differences, item: Item) -> int:
        """Returns how many differences lie in a row, or in the rows of a range."""
        if item.elements is not None:
            return differences.of_elements(*item.elements)
        if item.run is not None:
            pairs, start, stop = item.run
            return sum(differences.of_pair(pair) for pair in itertools.islice(pairs, start, stop))
        return differences.of_pair(item.pair)

    def _detail(self, item: Item) -> dict[str, Any]:
        """Chooses a row, and returns what is shown of it."""
        self.selected = details.selected(item.node)
        return details.detail(self.streams, item)

    def _reveal(self, side: int, offset: int, path: str | None = None) -> dict[str, Any]:
        """Returns the way to what stands at an offset: the rows of each level, and the details of the last row.

        The last row is the smallest node there, or the node with this path; the path '' means the section itself.
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
