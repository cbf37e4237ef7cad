"""The look of every chart: shades, fonts, and how names are shortened."""

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


def styled(draw: Callable[P, Axes]) -> Callable[P, Axes]:
    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Axes:
        with style():
            return draw(*args, **kwargs)

    return drawn


def axes_of(ax: Axes | None, width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height))[1] if ax is None else ax


def cut(text: str, length: int) -> str:
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def spread(places: Sequence[float], apart: float) -> list[float]:
    """The places, moved right where they are less than `apart` from the one before."""
    out: list[float] = []
    for place in places:
        out.append(max(place, out[-1] + apart) if out else place)
    return out


def listed(names: Sequence[str], length: int) -> str:
    """As many of the names as fit, and how many more there are."""
    for n in range(len(names), 0, -1):
        text = ", ".join(names[:n]) + (f" and {len(names) - n} more" if n < len(names) else "")
        if len(text) <= length or n == 1:
            return cut(text, length)
    return ""
