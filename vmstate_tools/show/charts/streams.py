"""Charts of one stream: where its bytes go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from vmstate_tools.show.charts.style import DARK, INK, LIGHT, MID, PAPER, axes_of, cut, listed, spread, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.stream import Stream

# What a byte of a stream is for: (shade, hatch, marker).
KINDS = {
    "guest memory": (DARK, "", "o"),
    "device state": (MID, "", "s"),
    "framing": (PAPER, "////", "^"),
    "vmdesc": (LIGHT, "....", "D"),
    "undescribed": (PAPER, "xxxx", "X"),
}


def bytes_text(size: float) -> str:
    """Returns a size in bytes as an axis shows it: 512 B, 4 KiB, 256 MiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"


def stream_bytes(stream: Stream) -> pd.DataFrame:
    """Returns what the bytes of a stream are for, a row per section: columns what, kind (a key of `KINDS`), bytes.

    RAM has a row for each kind of record, all framing shares one row. Rows are in the order of the file.
    """
    sizes: dict[tuple[str, str], int] = {}

    def add(what: str, kind: str, size: int) -> None:
        sizes[what, kind] = sizes.get((what, kind), 0) + size

    for section, offset, total, what in _parts(stream):
        if section is not None and section.how == "ram":
            for _, size, record, _ in stream.ram.records(offset, offset + total):
                kind = "guest memory" if "page" in record or record.startswith("mapped-ram") else "framing"
                add(_RAM_NAMES.get(record, record) if kind == "guest memory" else _FRAMING, kind, size)
        elif section is not None:
            add(section.label, _kind(section), total)
        elif what == "vmdesc":
            add(what, "vmdesc", total)
        elif what in ("before the stream", "behind the stream", "not read"):
            add(what, "undescribed", total)
        else:
            add(_FRAMING, "framing", total)
    return pd.DataFrame([(*key, size) for key, size in sizes.items()], columns=["what", "kind", "bytes"])


_FRAMING = "record headers and footers"
_RAM_NAMES = {
    f"ram {name}{s}": f"RAM: {shown}"
    for name, shown in (
        ("page", "full pages"),
        ("zero page", "zero pages"),
        ("XBZRLE page", "XBZRLE pages"),
        ("compressed page", "compressed pages"),
    )
    for s in ("", "s")
}


def _parts(stream: Stream) -> Iterator[tuple[Section | None, int, int, str]]:
    """Yields (section, offset, size, what) in file order; `section` is None for what is not a payload."""
    payloads = {s.payload_offset: s for s in stream.sections}
    coverage = stream.coverage(fields=False)
    for offset, size, what in zip(*(coverage[c].tolist() for c in ("offset", "size", "what")), strict=True):
        yield payloads[offset] if what in ("ram", "payload") else None, offset, size, what


def _kind(section: Section) -> str:
    """Returns the key of `KINDS` for the payload of a section."""
    return {"ram": "guest memory", "opaque": "undescribed"}.get(section.how, "device state")


@styled
def stream_map(stream: Stream, ax: Axes | None = None, most: int = 24) -> Axes:
    """Draws how many bytes of a stream each section takes, largest first.

    The scale is logarithmic, so that small sections stay visible. Beyond `most` rows the smallest share one row.
    """
    table = stream_bytes(stream).query("bytes > 0").sort_values("bytes", ascending=False, kind="stable")
    total = int(table["bytes"].sum())
    rest = table.iloc[most - 1 :] if len(table) > most else table.iloc[:0]
    rows = list(table.iloc[: len(table) - len(rest)].itertuples(index=False, name=None))
    if len(rest):
        rows.append((f"{len(rest)} smaller sections together", "device state", int(rest["bytes"].sum())))
    ax = axes_of(ax, 8, 1.1 + 0.24 * len(rows))
    smallest = min(size for _, _, size in rows)
    left = 10 ** np.floor(np.log10(smallest)) / 1.5
    for y, (_, kind, size) in enumerate(rows):
        shade, _, marker = KINDS[kind]
        ax.plot([left, size], [y, y], color=LIGHT, linewidth=1.2, zorder=1)
        ax.plot(size, y, marker, color=shade, markeredgecolor=INK, markersize=7, zorder=2)
        share = size / total
        text = f"{size:,}  ({share:.1%})" if share >= 0.001 else f"{size:,}"
        ax.annotate(text, (size, y), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
    ax.set_yticks(range(len(rows)), [cut(what, 40) for what, _, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xscale("log")
    ax.set_xlim(left, max(size for _, _, size in rows) * 40)
    _byte_axis(ax)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"bytes, logarithmic scale (whole stream: {total:,} bytes)")
    ax.set_title(f"Where the bytes go: {cut(stream.machine or 'a stream', 40)}")
    ax.set_ylabel("section")
    _legend_of_markers(ax, {kind for _, kind, _ in rows})
    return ax


def _legend_of_markers(ax: Axes, used: set[str]) -> None:
    """Explains the markers of the kinds that are used."""
    handles = [
        plt.Line2D([], [], marker=m, color=s, markeredgecolor=INK, linestyle="", markersize=7, label=k)
        for k, (s, _, m) in KINDS.items()
        if k in used
    ]
    ax.legend(handles=handles, loc="lower right")


def _byte_axis(ax: Axes) -> None:
    """Labels a logarithmic x axis with powers of 4 (4 KiB, 16 KiB …)."""
    low, high = ax.get_xlim()
    ticks = [4.0**k for k in range(40) if low <= 4.0**k <= high]
    if len(ticks) > 8:
        ticks = [t for t in ticks if round(np.log2(t)) % 4 == 0]
    ax.set_xticks(ticks, [bytes_text(t) for t in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="x")


@styled
def stream_strip(stream: Stream, ax: Axes | None = None) -> Axes:
    """Draws a stream from its first byte to its last, to scale, with the section that each part belongs to."""
    parts = [
        (offset, size, "vmdesc" if section is None else section.idstr, "vmdesc" if section is None else _kind(section))
        for section, offset, size, what in _parts(stream)
        if section is not None or what == "vmdesc"
    ]
    total = len(stream.view)
    ax = axes_of(ax, 9, 3.0)
    labelled: list[tuple[float, str]] = []
    for offset, size, name, kind in parts:
        shade, hatch, _ = KINDS[kind]
        ax.add_patch(Rectangle((offset, 0), size, 1, facecolor=shade, edgecolor=INK, linewidth=0.4, hatch=hatch))
        if size > 0.15 * total:
            ink = PAPER if kind == "guest memory" else INK
            text = cut(name, max(4, int(size / total * 90)))
            ax.text(offset + size / 2, 0.5, text, ha="center", va="center", color=ink)
        elif size > 0.0015 * total:
            labelled.append((offset + size / 2, name))
    for x, (middle, name) in zip(spread([m for m, _ in labelled], 0.035 * total), labelled, strict=True):
        ax.plot([middle, middle, x, x], [1, 1.08, 1.3, 1.38], color=INK, linewidth=0.6)
        ax.text(x, 1.42, cut(name, 24), rotation=40, fontsize=8.5, ha="left", va="bottom", rotation_mode="anchor")
    ax.set_xlim(0, total)
    ax.set_ylim(0, 3.5 if labelled else 1)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    used = [k for k in KINDS if any(kind == k for *_, kind in parts)]
    ax.set_xlabel("offset in the stream, in bytes")
    ax.set_title(f"Which section lies where: {cut(stream.machine or 'a stream', 40)}")
    handles = [Patch(facecolor=KINDS[k][0], hatch=KINDS[k][1], edgecolor=INK, label=k) for k in used]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.3), ncols=len(used), borderaxespad=0)
    return ax


@styled
def section_bytes(
    stream: Stream, section: Section | str, ax: Axes | None = None, *, start: int = 0, stop: int | None = None
) -> Axes:
    """Draws the payload of a section row by row, with the boundaries of its fields.

    Neighbouring fields differ in shade; an array or struct counts as one field. A few hundred bytes are shown as hex
    digits, more of them as dots where they are not zero.

    Parameters
    ----------
    start, stop : which part of the payload to show, in bytes from its start.

    Raises ValueError for an empty section or range.
    """
    which = stream.section(section) if isinstance(section, str) else section
    stop = which.payload_size if stop is None else min(stop, which.payload_size)
    if start >= stop:
        raise ValueError(f"section {which.label} has no bytes from {start} to {stop}")
    data = bytes(stream.view[which.payload_offset + start : which.payload_offset + stop])
    # (name, first byte shown, first byte behind it, whole size)
    fields = [
        (name, max(at, start) - start, min(at + size, stop) - start, size)
        for name, at, size in _groups(stream, which)
        if at < stop and at + size > start
    ]
    width = _row_width(len(data))
    rows = -(-len(data) // width)
    ax = axes_of(ax, 10, 1.2 + max(0.16 * rows, 0.5) * (1.6 if width <= 16 else 1))
    _shade(ax, [(first, last) for _, first, last, _ in fields], rows, width)
    _digits(ax, data, width)
    _boundaries(ax, [first for _, first, _, _ in fields], width)
    starts: dict[int, list[str]] = {}
    for name, first, _, size in fields:
        starts.setdefault(first // width, []).append(f"{name} ({size})")
    for row, names in starts.items():
        ax.text(width * 1.015, row + 0.5, listed(names, 70), va="center", fontsize=8.5, clip_on=False)
    step = max(1, -(-rows // 16))
    ax.set_yticks(np.arange(0, rows, step) + 0.5, [f"+0x{start + r * width:x}" for r in range(0, rows, step)])
    ax.tick_params(axis="y", length=0)
    ax.set_xticks([0, width // 2, width])
    ax.spines[:].set_visible(False)
    ax.set_xlabel(f"byte in a row of {width}")
    ax.set_ylabel("offset in the payload")
    dots = "" if width <= _DIGITS else "; dots: bytes that are not zero"
    ax.set_title(f"Section {cut(which.label, 40)}: {len(data):,} bytes, fields with their sizes{dots}")
    return ax


_DIGITS = 32  # rows of up to so many bytes are shown as hex digits


def _row_width(size: int) -> int:
    """Returns how many bytes a row takes, so that there are at most 44 rows."""
    return next(w for w in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 1 << 30) if -(-size // w) <= 44)


def _shade(ax: Axes, fields: Sequence[tuple[int, int]], rows: int, width: int) -> None:
    """Fills the bytes of the fields, given by first and last, with two shades in turn."""
    shades = np.full(rows * width, np.nan)
    for number, (first, last) in enumerate(fields):
        shades[first:last] = number % 2
    ax.imshow(
        shades.reshape(rows, width),
        cmap=ListedColormap(["#e9eef1", "#b9c6cf"]),
        aspect="auto",
        interpolation="nearest",
        extent=(0, width, rows, 0),
        vmin=0,
        vmax=1,
    )


def _digits(ax: Axes, data: bytes, width: int) -> None:
    """Writes each byte in hex or, in wide rows, marks the bytes that are not zero."""
    if width > _DIGITS:
        full = np.flatnonzero(np.frombuffer(data, np.uint8))
        ax.plot(full % width + 0.5, full // width + 0.5, "s", color=INK, markersize=1.8)
        return
    size = 9.5 if width <= 16 else 7.5
    for i, value in enumerate(data):
        at = i % width + 0.5, i // width + 0.52
        ax.text(*at, f"{value:02x}", ha="center", va="center", family="monospace", fontsize=size, color=INK)


def _groups(stream: Stream, section: Section) -> list[tuple[str, int, int]]:
    """Returns (name, offset in the payload, size) of fields and subsection headers; arrays and structs count as one."""
    if not section.described:
        leaves = [(leaf.path, leaf.offset - section.payload_offset, leaf.size) for leaf in section.leaves]
        return _joined(leaves or [("opaque", 0, section.payload_size)])
    layout = stream.layout(section)
    tiles = list(zip(layout.paths, layout.offset.tolist(), layout.length.tolist(), strict=True))
    tiles += [(f"▸ {header[2:-4].decode('utf-8', 'replace')}", at, len(header)) for at, header in layout.subsections]
    return _joined(sorted(tiles, key=lambda tile: tile[1]))


def _joined(tiles: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Joins neighbours of one array or struct."""
    groups: list[tuple[str, int, int]] = []
    for path, at, size in tiles:
        name = path.split("[")[0] if not path.startswith("▸") else path
        if groups and groups[-1][0] == name and not name.startswith("▸"):
            groups[-1] = (name, groups[-1][1], groups[-1][2] + size)
        else:
            groups.append((name, at, size))
    return groups


def _boundaries(ax: Axes, starts: Sequence[int], width: int) -> None:
    """Draws a line before each field, along the row above and below where the field begins within a row."""
    for at in starts:
        row, column = divmod(at, width)
        ax.plot([column, column], [row, row + 1], color=INK, linewidth=1.1)
        if column:
            ax.plot([column, width], [row, row], color=INK, linewidth=0.6)
            ax.plot([0, column], [row + 1, row + 1], color=INK, linewidth=0.6)
        elif row:
            ax.plot([0, width], [row, row], color=INK, linewidth=0.6)
