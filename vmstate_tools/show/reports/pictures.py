"""The charts of the reports, as images that a page holds within itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib import pyplot as plt

from vmstate_tools.facts import flags
from vmstate_tools.frames.collection import Collection
from vmstate_tools.show.charts import cpu_words, release_pairs, word_bits
from vmstate_tools.show.reports.case_2016 import Facts
from vmstate_tools.show.reports.cpu_words import WordHistory, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def of_words(collection: Collection, changed: Sequence[WordHistory]) -> dict[tuple[str, str], list[dict[str, str]]]:
    """Returns (model, machine type) → charts: the changed flags of each word, then the releases in pairs.

    A chart is a dict of `url`, the image, and `text`, which says what it shows.
    """
    cpu = collection.cpu
    model, machine = named(cpu, "model").str.lower(), named(cpu, "machine")
    charts: dict[tuple[str, str], list[dict[str, str]]] = {}
    for history in changed:
        rows = cpu[(model == history.model) & (machine == history.machine)]
        rows = rows.assign(release=named(rows, "release"))
        drawn = charts[history.model, history.machine] = []
        for word in ("insns_flags", "insns_flags2"):
            if word in history.varying:
                url = picture(cpu_words(rows, word, changed=True))
                drawn.append({"url": url, "text": f"{history.label}: flags of {word} that changed, by release"})
        if {"insns_flags", "insns_flags2"} & set(history.varying):
            text = f"{history.label}: number of flags that differ between two releases"
            drawn.append({"url": picture(release_pairs(rows)), "text": text})
    return charts


def of_case(found: Facts) -> list[dict[str, str]]:
    """Returns charts of the words before and after, bit by bit, for each family that breaks."""
    drawn = []
    for family, releases in found.words.items():
        (old, before), (new, after) = releases.items()
        for word in flags.WORDS:
            if before[word] != after[word]:
                title = f"{family}: {word} in {old} and in {new}"
                drawn.append(
                    {"url": picture(word_bits(before[word], after[word], word, names=(old, new))), "text": title}
                )
    return drawn


def picture(ax: Axes) -> str:
    """Returns a chart as the data URL of an SVG. A browser runs no script in an SVG that is shown as an image."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "vmstate"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()
