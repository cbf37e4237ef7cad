"""The look of every chart: shades, fonts, and how long names are shortened."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ParamSpec

import matplotlib as mpl
from matplotlib import pyplot as plt

from vmstate_tools.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

P = ParamSpec("P")

INK, DARK, MID, LIGHT, PAPER = "#111111", "#3f5364", "#8b9daa", "#d5dde2", "#ffffff"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Gives charts the look of this package while the context lasts; use it for charts of your own as well."""
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
    # The backend of a notebook is loaded with the first figure and switches this on; leave it on.
    mpl.interactive(interactive)


def styled(draw: Callable[P, Axes]) -> Callable[P, Axes]:
    """Decorates a function that draws a chart, so that it draws in the style of this package."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with style():
            return draw(*args, **kwargs)

    return drawn


def axes_of(ax: Axes | None, width: float, height: float) -> Axes:
    """Returns the given Axes, or new ones in a figure of this width and height in inches."""
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def cut(text: str, length: int) -> str:
    """Returns text of at most `length` characters, without control characters; `…` stands for what is left out."""
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def spread(places: Sequence[float], apart: float) -> list[float]:
    """Returns the places, each moved right where it is less than `apart` from the one before."""
    out: list[float] = []
    for place in places:
        out.append(max(place, out[-1] + apart) if out else place)
    return out


def listed(names: Sequence[str], length: int) -> str:
    """Returns as many of the names as fit into `length` characters, and how many more there are."""
    for n in range(len(names), 0, -1):
        text = ", ".join(names[:n]) + (f" and {len(names) - n} more" if n < len(names) else "")
        if len(text) <= length or n == 1:
            return cut(text, length)
    return ""
