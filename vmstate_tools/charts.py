"""matplotlib over streams and frames: each function draws on one Axes and returns it.

What tells things apart is shade, hatch and text, never hue: a chart printed in grey says the same.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, NullLocator

from vmstate_tools import flags
from vmstate_tools.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vmstate_tools.stream import Section, Stream

P = ParamSpec("P")

INK, DARK, MID, LIGHT, PAPER = "#111111", "#3f5364", "#8b9daa", "#d5dde2", "#ffffff"

# What a byte of a stream is for: (shade, hatch, marker).
KINDS = {
    "guest memory": (DARK, "", "o"),
    "device state": (MID, "", "s"),
    "framing": (PAPER, "////", "^"),
    "vmdesc": (LIGHT, "....", "D"),
    "undescribed": (PAPER, "xxxx", "X"),
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of every chart here; use as a context for own charts beside them."""
    with mpl.rc_context(
        {
            "figure.dpi": 110,
            "savefig.dpi": 150,
            "figure.constrained_layout.use": True,
            "font.size": 9.5,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": INK,
            "axes.axisbelow": True,
            "grid.color": LIGHT,
            "grid.linewidth": 0.8,
            "hatch.color": DARK,
            "hatch.linewidth": 0.7,
            "legend.frameon": False,
            "text.parse_math": False,  # a name from a stream may hold a $
        }
    ):
        try:
            yield
        finally:
            interactive = mpl.is_interactive()
    # A notebook's backend, loaded with the first figure, switches this on: not to be undone.
    mpl.interactive(interactive)


def _styled(draw: Callable[P, Axes]) -> Callable[P, Axes]:
    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with style():
            return draw(*args, **kwargs)

    return drawn


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def _cut(text: str, length: int) -> str:
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def bytes_text(size: float) -> str:
    """A size for an axis: 512, 4 KiB, 256 MiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"


# -- one stream -----------------------------------------------------------------------------------------------------


def stream_bytes(stream: Stream) -> pd.DataFrame:
    """Where the bytes of a stream go, in file order of first appearance: columns what, kind (of `KINDS`), bytes.

    RAM is split by kind of record, framing is taken together, every other section is one row.
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
    """(section, offset, size, what) in file order; a section only where its payload stands."""
    payloads = {s.payload_offset: s for s in stream.sections}
    coverage = stream.coverage(fields=False)
    for offset, size, what in zip(*(coverage[c].tolist() for c in ("offset", "size", "what")), strict=True):
        yield payloads[offset] if what in ("ram", "payload") else None, offset, size, what


def _kind(section: Section) -> str:
    return {"ram": "guest memory", "opaque": "undescribed"}.get(section.how, "device state")


@_styled
def stream_map(stream: Stream, ax: Axes | None = None, most: int = 24) -> Axes:
    """What takes how many bytes of a stream, largest first, on a logarithmic scale: small sections stay visible.

    Beyond `most` rows the smallest are taken together.
    """
    table = stream_bytes(stream).query("bytes > 0").sort_values("bytes", ascending=False, kind="stable")
    total = int(table["bytes"].sum())
    rest = table.iloc[most - 1 :] if len(table) > most else table.iloc[:0]
    rows = list(table.iloc[: len(table) - len(rest)].itertuples(index=False, name=None))
    if len(rest):
        rows.append((f"{len(rest)} smaller sections together", "device state", int(rest["bytes"].sum())))
    ax = _axes(ax, 8, 1.1 + 0.24 * len(rows))
    smallest = min(size for _, _, size in rows)
    left = 10 ** np.floor(np.log10(smallest)) / 1.5
    for y, (_, kind, size) in enumerate(rows):
        shade, _, marker = KINDS[kind]
        ax.plot([left, size], [y, y], color=LIGHT, linewidth=1.2, zorder=1)
        ax.plot(size, y, marker, color=shade, markeredgecolor=INK, markersize=7, zorder=2)
        share = size / total
        text = f"{size:,}  ({share:.1%})" if share >= 0.001 else f"{size:,}"
        ax.annotate(text, (size, y), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
    ax.set_yticks(range(len(rows)), [_cut(what, 40) for what, _, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xscale("log")
    ax.set_xlim(left, max(size for _, _, size in rows) * 40)
    _byte_axis(ax)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"bytes, logarithmic scale (whole stream: {total:,} bytes)")
    ax.set_title(f"Where the bytes go: {_cut(stream.machine or 'a stream', 40)}")
    used = {kind for _, kind, _ in rows}
    handles = [
        plt.Line2D([], [], marker=m, color=s, markeredgecolor=INK, linestyle="", markersize=7, label=k)
        for k, (s, _, m) in KINDS.items()
        if k in used
    ]
    ax.legend(handles=handles, loc="lower right")
    return ax


def _byte_axis(ax: Axes) -> None:
    low, high = ax.get_xlim()
    ticks = [4.0**k for k in range(40) if low <= 4.0**k <= high]
    if len(ticks) > 8:
        ticks = [t for t in ticks if round(np.log2(t)) % 4 == 0]
    ax.set_xticks(ticks, [bytes_text(t) for t in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.grid(axis="x")


@_styled
def stream_strip(stream: Stream, ax: Axes | None = None) -> Axes:
    """A stream from its first byte to its last, to scale: which section lies where."""
    parts = [
        (offset, size, "vmdesc" if section is None else section.idstr, "vmdesc" if section is None else _kind(section))
        for section, offset, size, what in _parts(stream)
        if section is not None or what == "vmdesc"
    ]
    total = len(stream.source.view)
    ax = _axes(ax, 9, 2.6)
    labelled: list[tuple[float, str]] = []
    for offset, size, name, kind in parts:
        shade, hatch, _ = KINDS[kind]
        ax.add_patch(Rectangle((offset, 0), size, 1, facecolor=shade, edgecolor=INK, linewidth=0.4, hatch=hatch))
        if size > 0.15 * total:
            ink = PAPER if kind == "guest memory" else INK
            text = _cut(name, max(4, int(size / total * 90)))
            ax.text(offset + size / 2, 0.5, text, ha="center", va="center", color=ink)
        elif size > 0.0015 * total:
            labelled.append((offset + size / 2, name))
    for x, (middle, name) in zip(_spread([m for m, _ in labelled], 0.035 * total), labelled, strict=True):
        ax.plot([middle, middle, x, x], [1, 1.08, 1.3, 1.38], color=INK, linewidth=0.6)
        ax.text(x, 1.42, _cut(name, 24), rotation=40, fontsize=8.5, ha="left", va="bottom", rotation_mode="anchor")
    ax.set_xlim(0, total)
    ax.set_ylim(0, 2.9 if labelled else 1)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    used = [k for k in KINDS if any(kind == k for *_, kind in parts)]
    ax.set_xlabel("offset in the stream, in bytes")
    handles = [Patch(facecolor=KINDS[k][0], hatch=KINDS[k][1], edgecolor=INK, label=k) for k in used]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.3), ncols=len(used), borderaxespad=0)
    return ax


def _spread(places: Sequence[float], apart: float) -> list[float]:
    """The places, moved right where they are less than `apart` from the one before."""
    out: list[float] = []
    for place in places:
        out.append(max(place, out[-1] + apart) if out else place)
    return out


@_styled
def section_bytes(
    stream: Stream, section: Section | str, ax: Axes | None = None, *, start: int = 0, stop: int | None = None
) -> Axes:
    """The payload of a section, row by row, with its fields' boundaries; few bytes are shown as hex digits.

    Neighbouring fields differ in shade; arrays and structs count as one field; dots mark bytes that are not zero.
    `start` and `stop` are offsets in the payload: which part of it to show.

    Raises ValueError for an empty section or range.
    """
    which = stream.section(section) if isinstance(section, str) else section
    stop = which.payload_size if stop is None else min(stop, which.payload_size)
    if start >= stop:
        raise ValueError(f"section {which.label} has no bytes from {start} to {stop}")
    data = bytes(stream.source.view[which.payload_offset + start : which.payload_offset + stop])
    groups = [g for g in _groups(stream, which) if g[1] < stop and g[1] + g[2] > start]
    width = next(w for w in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 1 << 30) if -(-len(data) // w) <= 44)
    if len(data) <= 256:
        width = min(16, width) if len(data) > 8 else 8
    rows = -(-len(data) // width)
    ax = _axes(ax, 10, 1.2 + max(0.16 * rows, 0.5) * (1.6 if width <= 16 else 1))
    shades = np.full(rows * width, np.nan)
    for number, (_, at, size) in enumerate(groups):
        shades[max(at - start, 0) : min(at + size, stop) - start] = number % 2
    ax.imshow(
        shades.reshape(rows, width),
        cmap=ListedColormap(["#e9eef1", "#b9c6cf"]),
        aspect="auto",
        interpolation="nearest",
        extent=(0, width, rows, 0),
        vmin=0,
        vmax=1,
    )
    if width <= 32:
        for i, value in enumerate(data):
            ax.text(
                i % width + 0.5,
                i // width + 0.52,
                f"{value:02x}",
                ha="center",
                va="center",
                family="monospace",
                fontsize=9.5 if width <= 16 else 7.5,
                color=INK,
            )
    else:
        full = np.flatnonzero(np.frombuffer(data, np.uint8))
        ax.plot(full % width + 0.5, full // width + 0.5, "s", color=INK, markersize=1.8)
    _boundaries(ax, [max(at - start, 0) for _, at, _ in groups], width)
    starts: dict[int, list[str]] = {}
    for name, at, size in groups:
        starts.setdefault(max(at - start, 0) // width, []).append(f"{name} ({size})")
    for row, names in starts.items():
        ax.text(width * 1.015, row + 0.5, _listed(names, 70), va="center", fontsize=8.5, clip_on=False)
    step = max(1, -(-rows // 16))
    ax.set_yticks(np.arange(0, rows, step) + 0.5, [f"+0x{start + r * width:x}" for r in range(0, rows, step)])
    ax.tick_params(axis="y", length=0)
    ax.set_xticks([0, width // 2, width])
    ax.spines[:].set_visible(False)
    ax.set_xlabel(f"byte in a row of {width}")
    dots = "" if width <= 32 else "; dots: bytes that are not zero"
    ax.set_title(f"Section {_cut(which.label, 40)}: {len(data):,} bytes, fields with their sizes{dots}")
    return ax


def _listed(names: Sequence[str], length: int) -> str:
    """As many of the names as fit, and how many more there are."""
    for n in range(len(names), 0, -1):
        text = ", ".join(names[:n]) + (f" and {len(names) - n} more" if n < len(names) else "")
        if len(text) <= length or n == 1:
            return _cut(text, length)
    return ""


def _groups(stream: Stream, section: Section) -> list[tuple[str, int, int]]:
    """(name, offset in the payload, size) of fields, subsection headers included, arrays and structs taken together."""
    if section.description is None:
        leaves = [(leaf.path, leaf.offset - section.payload_offset, leaf.size) for leaf in section.leaves]
        return _joined(leaves or [("opaque", 0, section.payload_size)])
    layout = stream.layout(section)
    tiles = list(zip(layout.paths, layout.offset.tolist(), layout.length.tolist(), strict=True))
    tiles += [(f"▸ {header[2:-4].decode('utf-8', 'replace')}", at, len(header)) for at, header in layout.subsections]
    return _joined(sorted(tiles, key=lambda tile: tile[1]))


def _joined(tiles: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    groups: list[tuple[str, int, int]] = []
    for path, at, size in tiles:
        name = path.split("[")[0] if not path.startswith("▸") else path
        if groups and groups[-1][0] == name and not name.startswith("▸"):
            groups[-1] = (name, groups[-1][1], groups[-1][2] + size)
        else:
            groups.append((name, at, size))
    return groups


def _boundaries(ax: Axes, starts: Sequence[int], width: int) -> None:
    for at in starts:
        row, column = divmod(at, width)
        ax.plot([column, column], [row, row + 1], color=INK, linewidth=1.1)
        if column:
            ax.plot([column, width], [row, row], color=INK, linewidth=0.6)
            ax.plot([0, column], [row + 1, row + 1], color=INK, linewidth=0.6)
        elif row:
            ax.plot([0, width], [row, row], color=INK, linewidth=0.6)


# -- CPU words of many streams ----------------------------------------------------------------------------------------


_WROTE = "QEMU release that wrote the stream"


def word_table(cpu: pd.DataFrame, word: str, by: str = "release") -> pd.DataFrame:
    """Flags by column: index the flags' names in bit order, columns the values of `by`, cells whether the flag is set.

    `cpu` : rows of `Collection.cpu`. Where the words of one column differ (two machine types, two models), each
    distinct word gets its own column, numbered. Streams that do not carry the word are left out.
    """
    known = cpu[cpu[word].notna()]
    columns: dict[str, int] = {}
    names = sorted(known[by].unique(), key=flags.release_key) if by == "release" else list(known[by].unique())
    for name in names:
        distinct = [int(v) for v in known.loc[known[by] == name, word].unique()]
        for number, value in enumerate(distinct, 1):
            columns[name if len(distinct) == 1 else f"{name} ({number})"] = value
    union = functools.reduce(int.__or__, columns.values(), 0)
    rows = flags.decode(word, union)
    table = {column: [name in set(flags.decode(word, value)) for name in rows] for column, value in columns.items()}
    return pd.DataFrame(table, index=pd.Index(rows, name=word), dtype=bool)


@_styled
def cpu_words(
    cpu: pd.DataFrame, word: str = "insns_flags2", ax: Axes | None = None, *, by: str = "release", changed: bool = False
) -> Axes:
    """A flag word by release: a row per flag, a column per release, filled where the flag is set.

    A flag that came with a release is marked +, one that went −. `cpu`: rows of `Collection.cpu`, best of one CPU model
    and machine type. `changed`: only the flags that are not the same in all columns.

    Raises ValueError where no stream carries the word.
    """
    table = word_table(cpu, word, by)
    if table.empty:
        raise ValueError(f"none of these streams carries {word}")
    if changed:
        table = table[table.any(axis=1) & ~table.all(axis=1)]
    rows, columns = table.shape
    ax = _axes(ax, max(6.5, 2.8 + 0.62 * columns), 1.3 + 0.2 * max(rows, 1))
    cells = table.to_numpy()
    for y, x in zip(*np.nonzero(cells), strict=True):
        ax.add_patch(Rectangle((x + 0.08, y + 0.1), 0.84, 0.8, facecolor=MID, edgecolor="none"))
    for y in range(rows):
        for x in range(1, columns):
            if cells[y, x] != cells[y, x - 1]:
                came = bool(cells[y, x])
                ax.add_patch(
                    Rectangle((x + 0.08, y + 0.1), 0.84, 0.8, facecolor=DARK if came else PAPER, edgecolor=INK, lw=1.2)
                )
                ax.text(x + 0.5, y + 0.52, "+" if came else "−", ha="center", va="center", color=PAPER if came else INK)
    ax.set_xlim(0, columns)
    ax.set_ylim(rows, 0)
    ax.set_xticks(np.arange(columns) + 0.5, [_cut(c, 16) for c in table.columns], rotation=0 if columns < 14 else 60)
    ax.set_yticks(np.arange(rows) + 0.5, list(table.index))
    ax.set_yticks(np.arange(rows + 1), minor=True)
    ax.grid(which="minor", axis="y")
    ax.tick_params(which="both", length=0)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(f"{_WROTE if by == 'release' else by}   (filled: set,  + came,  − went)")
    ax.spines[:].set_visible(False)
    ax.set_title(word)
    return ax


def word_distances(cpu: pd.DataFrame, by: str = "release") -> pd.DataFrame:
    """Number of bits in which insns_flags and insns_flags2 of two columns differ; index and columns: values of `by`.

    Where a value of `by` has several distinct words, the last counts.
    """
    known = cpu[cpu["insns_flags"].notna() & cpu["insns_flags2"].notna()]
    words = {name: (int(row["insns_flags"]), int(row["insns_flags2"])) for name, row in known.set_index(by).iterrows()}
    names = sorted(words, key=lambda n: flags.release_key(str(n))) if by == "release" else list(words)
    rows = [[sum((a ^ b).bit_count() for a, b in zip(words[x], words[y], strict=True)) for y in names] for x in names]
    return pd.DataFrame(rows, index=pd.Index(names, name=by), columns=pd.Index(names, name=by), dtype="int64")


@_styled
def release_pairs(cpu: pd.DataFrame, ax: Axes | None = None, *, by: str = "release") -> Axes:
    """Which pairs of releases wrote the same flag words for a CPU: number of differing flags, blank where none.

    `cpu`: rows of `Collection.cpu`, of one CPU model and machine type.
    """
    table = word_distances(cpu, by)
    n = len(table)
    ax = _axes(ax, max(5.0, 2.2 + 0.55 * n), 1.6 + 0.42 * n)
    cells = table.to_numpy()
    for y in range(n):
        for x in range(n):
            shade = PAPER if cells[y, x] == 0 else LIGHT if cells[y, x] <= cells.max() / 2 else MID
            ax.add_patch(Rectangle((x, y), 1, 1, facecolor=shade, edgecolor=INK, linewidth=0.5))
            if cells[y, x]:
                ax.text(x + 0.5, y + 0.52, str(cells[y, x]), ha="center", va="center")
    ax.set_xlim(0, n)
    ax.set_ylim(n, 0)
    ax.set_xticks(np.arange(n) + 0.5, list(table.columns))
    ax.set_yticks(np.arange(n) + 0.5, list(table.index))
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.spines[:].set_visible(False)
    ax.set_xlabel("number of flags that differ; blank: none")
    ax.xaxis.set_label_position("top")
    ax.set_title(f"Streams of two {by}s")
    return ax
