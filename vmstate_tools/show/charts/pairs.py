"""Charts of pairs of releases: what becomes of a stream, by source and destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.collections import PatchCollection
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from vmstate_tools.facts.flags import short
from vmstate_tools.show.charts.style import INK, PAPER, axes_of, cut, styled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.path import Path


class Look(NamedTuple):
    """A Look says how a cause is drawn: the letter in its cells, its colour (by lightness, too) and its hatch."""

    letter: str
    colour: str
    hatch: str = ""


#: Causes with a look of their own; any other cause gets the next colour of `_MORE`.
LOOKS = {
    "loads": Look("", PAPER),
    "as before": Look("", PAPER),
    "repaired": Look("+", "#cfe6f5"),
    "let through": Look("L", "#e8743b", "////"),
    "refused, rightly": Look("r", "#d5dde2"),
    "refused, needlessly": Look("n", "#8b9daa"),
    "broken": Look("x", "#7b1e3a"),
    "cpu": Look("C", "#7b1e3a"),
    "start": Look("–", "#eceff1", "...."),
    "configuration": Look("F", "#b8c9a0", "\\\\"),
    "globalstate": Look("G", "#f3dc7a"),
    "spapr": Look("S", "#e8a33b", "////"),
    "spapr_iommu": Look("I", "#5b86b5"),
    "spapr_pci": Look("P", "#3f7f6e", "xx"),
}
_MORE = ("#c9b3d9", "#a6d0c8", "#d9c3a5", "#93a3bd")


def looks_of(causes: list[str]) -> dict[str, Look]:
    """Returns a look for each cause; a cause that `LOOKS` does not know gets the first free letter of its name."""
    found: dict[str, Look] = {}
    for cause in causes:
        look = LOOKS.get(cause)
        if look is None:
            taken = {look.letter for look in (*LOOKS.values(), *found.values())}
            letter = next((c for c in cut(cause, 60).upper() if c.isalnum() and c not in taken), "?")
            unknown = sum(cause not in LOOKS for cause in found)
            look = Look(letter, _MORE[unknown % len(_MORE)], ("", "oo", "++")[unknown // len(_MORE) % 3])
        found[cause] = look
    return found


@styled
def pair_matrix(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    title: str,
    legend: Mapping[str, str] | None = None,
    mark: pd.DataFrame | None = None,
) -> Axes:
    """Draws a heat map of pairs of releases: a cell per source (row) and destination (column), coloured by cause.

    Each cause has a letter, a colour and a hatch; the letters alone are enough in grey.

    Parameters
    ----------
    table : causes (str), index and columns are releases; None or NaN where there is no such pair.
    title : should say whether the outcomes are real or predicted.
    legend : cause → its text in the legend; by default its name.
    mark : a frame of bool of the same shape: which cells to frame.
    """
    order = list(LOOKS)
    cells = table.astype(object).where(table.notna(), None).to_numpy(dtype=object)
    counts = Counter(str(cause) for cause in cells.ravel() if cause is not None)
    looks = looks_of(sorted(counts, key=lambda c: (order.index(c) if c in order else len(order), c)))
    rows, columns = cells.shape
    ax = axes_of(ax, 2.2 + 0.36 * max(columns, 8), 1.9 + 0.3 * rows + 0.2 * len(looks))
    for cause, look in looks.items():
        _cells_of(ax, cause, look, np.argwhere(np.equal(cells, cause)))
    if mark is not None:
        framed = [Rectangle((x + 0.06, y + 0.06), 0.88, 0.88) for y, x in np.argwhere(mark.to_numpy()).tolist()]
        ax.add_collection(PatchCollection(framed, facecolor="none", edgecolor=INK, linewidth=2))
    _pair_axes(ax, table)
    ax.set_title(title)
    handles = [
        Patch(
            facecolor=look.colour,
            hatch=look.hatch,
            edgecolor=INK,
            label=f"{look.letter or ' '}  {cut((legend or {}).get(cause, cause), 90)} ({counts[cause]})",
        )
        for cause, look in looks.items()
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.02), borderaxespad=0, fontsize=8.5)
    return ax


def _cells_of(ax: Axes, cause: str, look: Look, places: np.ndarray) -> None:
    """Draws the cells of one cause; `places` has a row (y, x) for each."""
    # One artist for all cells of a cause, and letters as markers: hundreds of texts take seconds to lay out.
    boxes = [Rectangle((x, y), 1, 1) for y, x in places.tolist()]
    hatch = look.hatch or None
    ax.add_collection(PatchCollection(boxes, facecolor=look.colour, edgecolor=INK, linewidth=0.4, hatch=hatch))
    if not look.letter:
        return
    ys, xs = places.T + 0.5
    if look.hatch:
        ax.plot(xs, ys, "s", color=look.colour, markersize=9, label=f"_{cause}")
    ink = PAPER if _dark(look.colour) else INK
    ax.plot(xs, ys, linestyle="", marker=_glyph(look.letter), color=ink, markersize=6.5, label=f"_{cause}")


def _pair_axes(ax: Axes, table: pd.DataFrame) -> None:
    """Labels the axes with the releases, destinations at the top and sources at the left."""
    rows, columns = table.shape
    ax.set_xlim(-0.02, columns + 0.02)
    ax.set_ylim(rows + 0.02, -0.02)
    turned = 90 if columns > 10 else 0
    ax.set_xticks(np.arange(columns) + 0.5, [cut(short(str(c)), 14) for c in table.columns], rotation=turned)
    ax.set_yticks(np.arange(rows) + 0.5, [cut(short(str(c)), 14) for c in table.index])
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel("destination")
    ax.set_ylabel("source")


def _glyph(letter: str) -> Path:
    """Returns the outline of a letter, centred, to be used as a marker."""
    outline = TextPath((0, 0), letter, size=10)
    box = outline.get_extents()
    return Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2).transform_path(outline)


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.3 * red + 0.59 * green + 0.11 * blue < 120
