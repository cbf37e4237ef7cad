"""Charts of the catalog: how flag words changed from release to release."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from vmstate_tools.facts import catalog, flags
from vmstate_tools.facts.commits import short as short_commit
from vmstate_tools.facts.flags import short
from vmstate_tools.show.charts.style import DARK, INK, LIGHT, MID, PAPER, axes_of, cut, listed, spread, styled
from vmstate_tools.show.letters import letters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The number of the class in each release, None where there is no such CPU; and the label of the row.
Pattern = tuple[int | None, ...]
ClassRow = tuple[Pattern, str]


@styled
def flag_history(
    family: str,
    word: str = "insns_flags2",
    ax: Axes | None = None,
    *,
    accel: str | None = None,
    machine: str | None = None,
    since: str = "1.6.0",
    until: str | None = None,
    changed: bool = False,
    dates: bool = False,
) -> Axes:
    """Draws one family's flag word through the releases: a row per flag, a column per release, commits at the right.

    A flag that came is dark and marked +, one that went is marked −.

    Parameters
    ----------
    accel, machine : as for `catalog.words`; by default the word is that of the CPU class.
    since, until : the first and the last release to show.
    changed : show only flags that are not the same in all releases.
    dates : place the columns at the dates of the releases, instead of at equal distances.

    Raises CatalogError for an unknown family, ValueError where no flag is left to show.
    """
    history = catalog.history(family, accel, machine)
    keys = history["release"].map(flags.release_key)
    last = flags.release_key(until) if until else max(keys)
    history = history[[flags.release_key(since) <= key <= last for key in keys]]
    values = [int(v) for v in history[word]]
    bits = [b for b in range(64) if any(v >> b & 1 for v in values)]
    if changed:
        bits = [b for b in bits if not all(v >> b & 1 for v in values)]
    if not bits:
        raise ValueError(
            f"{word} of {family} never changes" if changed and any(values) else f"{word} of {family} is empty"
        )
    releases = history["release"].tolist()
    ax = axes_of(ax, 11, 0.19 * len(bits) + (1.3 if dates else 1.1))
    edges = release_axis(ax, releases, dates)
    for y, bit in enumerate(bits):
        presence_row(ax, y, [bool(value >> bit & 1) for value in values], edges)
    _notes_at_the_right(ax, [*map(_flag_commits(history, word, accel, machine).get, bits)], edges)
    # By the name it had when it came: later releases reuse bits of msr_mask for other CPUs.
    first = [next(r for r, v in zip(releases, values, strict=True) if v >> bit & 1) for bit in bits]
    names = [flags.decode(word, 1 << bit, release)[0] for bit, release in zip(bits, first, strict=True)]
    ax.set_ylim(len(bits), 0)
    ax.set_yticks(np.arange(len(bits)) + 0.5, [cut(name, 24) for name in names])
    ax.tick_params(axis="y", length=0, labelsize=8.5)
    ax.set_ylabel("flag")
    where = (f" under {accel.upper()}" if accel else "") + (f" on {cut(machine, 20)}" if machine else "")
    ax.set_title(f"{word} of {cut(history['family'].iloc[-1], 20)}{where}", pad=34 if dates else 10)
    return ax


def presence_row(ax: Axes, y: int, present: Sequence[bool], edges: Sequence[float]) -> None:
    """Draws a row: a box for each release that has it, and a sign where it came or went."""
    for x, here in enumerate(present):
        left, wide = edges[x], edges[x + 1] - edges[x]
        turned = x > 0 and here != present[x - 1]
        if here:
            shade = DARK if turned else MID
            ax.add_patch(Rectangle((left, y + 0.1), wide, 0.8, facecolor=shade, edgecolor=PAPER, linewidth=0.4))
        elif turned:
            ax.add_patch(Rectangle((left, y + 0.1), wide, 0.8, facecolor=PAPER, edgecolor=INK, linewidth=0.8))
        if turned:
            sign, ink = ("+", PAPER) if here else ("−", INK)
            ax.text(left + wide / 2, y + 0.53, sign, ha="center", va="center", fontsize=8, color=ink)


def _notes_at_the_right(ax: Axes, notes: Sequence[list[str] | None], edges: Sequence[float]) -> None:
    """Writes the changes of each row beside it."""
    at = edges[-1] + 0.008 * (edges[-1] - edges[0])
    for y, note in enumerate(notes):
        if note:
            ax.text(at, y + 0.53, listed(note, 56), va="center", fontsize=7.5)


def _flag_commits(history: pd.DataFrame, word: str, accel: str | None, machine: str | None) -> dict[int, list[str]]:
    """Returns bit → its changes, each as sign, release and commit."""
    found: dict[int, list[str]] = {}
    rows = history[["release", "family", *catalog.WORDS]].to_dict("records")
    for old, new in itertools.pairwise(rows):
        before, after = ({w: int(row[w]) for w in catalog.WORDS} for row in (old, new))
        causes = catalog.causes(new["release"], before, after, {new["family"]}, (), accel, machine)
        for bit in range(64):
            if (before[word] ^ after[word]) >> bit & 1:
                sign = "+" if after[word] >> bit & 1 else "−"
                by = [short_commit(c["commit"]) for c in causes if c["word"] == word and c["bits"] >> bit & 1]
                found.setdefault(bit, []).append(" ".join([f"{sign}{short(new['release'])}", *by]))
    return found


def release_axis(ax: Axes, releases: Sequence[str], dates: bool) -> list[float]:
    """Labels the x axis with releases and returns the edges of their columns.

    The columns have equal widths or, with `dates`, reach from the date of a release to the date of the next.
    """
    if dates:
        when = [
            pd.Timestamp(row["date"])
            for name in releases
            for row in catalog.table("releases")
            if row["release"] == name
        ]
        days = [(w - pd.Timestamp(2000, 1, 1)).days / 365.25 + 2000 for w in when]
        # Stable releases may be later than the next x.y.0: no width below a month.
        edges = spread([*days, days[-1] + 0.35], 1 / 12)
        years = range(int(np.ceil(edges[0])), int(edges[-1]) + 1)
        ax.set_xticks(list(years), [str(y) for y in years], rotation=90 if len(years) > 18 else 0)
        apart = (edges[-1] - edges[0]) / 60
        shown = -np.inf
        for name, at, to in zip(releases, edges, edges[1:], strict=False):
            if (at + to) / 2 - shown > apart:
                shown = (at + to) / 2
                ax.annotate(
                    short(name), (shown, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
                    rotation=90, ha="center", va="bottom", fontsize=7.5,
                )  # fmt: skip
        ax.set_xlabel("date of the release")
        ax.tick_params(axis="x", length=3)
    else:
        edges = [float(x) for x in range(len(releases) + 1)]
        ax.set_xticks(np.arange(len(releases)) + 0.5, [short(r) for r in releases], rotation=90, fontsize=8)
        ax.xaxis.tick_top()
        ax.tick_params(axis="x", length=0)
        ax.xaxis.set_label_position("top")
        ax.set_xlabel("release")
    ax.set_xlim(edges[0], edges[-1])
    ax.spines[:].set_visible(False)
    return edges


@styled
def equality_classes(table: pd.DataFrame, ax: Axes | None = None, *, dates: bool = False, title: str = "") -> Axes:
    """Draws which releases agree on a CPU's words: cells of a row with the same letter hold equal words.

    CPUs with the same pattern share a row; those that never change come last.

    Parameters
    ----------
    table : what `cpu_history.classes` returns.
    dates : place the columns at the dates of the releases, instead of at equal distances.
    """
    rows = _class_rows(table)
    ax = axes_of(ax, 11, 1.0 + 0.27 * len(rows))
    edges = release_axis(ax, [str(c) for c in table.columns], dates)
    for y, (pattern, _) in enumerate(rows):
        start = 0
        for number, same in itertools.groupby(pattern):
            stop = start + len(list(same))
            if number is not None:
                left, wide = edges[start], edges[stop] - edges[start]
                shade = (LIGHT, PAPER, MID)[number % 3]
                ax.add_patch(Rectangle((left, y + 0.08), wide, 0.84, facecolor=shade, edgecolor=INK, linewidth=0.7))
                ax.text(left + wide / 2, y + 0.53, letters(number), ha="center", va="center", fontsize=8.5)
            start = stop
    ax.set_ylim(len(rows), 0)
    ax.set_yticks(np.arange(len(rows)) + 0.5, [label for _, label in rows])
    ax.tick_params(axis="y", length=0, labelsize=8.5)
    ax.set_ylabel("CPU")
    ax.set_title(title or "Releases with equal words have one letter", pad=34 if dates else 10)
    return ax


def _class_rows(table: pd.DataFrame) -> list[ClassRow]:
    """Returns a row for each pattern, the patterns with most classes first; all constant CPUs share the last row."""
    groups: dict[Pattern, list[str]] = {}
    for cpu, row in zip(table.index, table.to_numpy(dtype=object), strict=True):
        groups.setdefault(tuple(None if pd.isna(v) else int(v) for v in row), []).append(str(cpu))
    classes = {pattern: len({v for v in pattern if v is not None}) for pattern in groups}
    ordered = sorted(groups, key=lambda pattern: -classes[pattern])
    rows = [(pattern, listed(groups[pattern], 30)) for pattern in ordered if classes[pattern] > 1]
    constant = [pattern for pattern in ordered if classes[pattern] == 1]
    if constant:
        merged = tuple(0 if any(p[x] is not None for p in constant) else None for x in range(table.shape[1]))
        count = sum(len(groups[pattern]) for pattern in constant)
        rows.append((merged, f"{count} more, never changed" if rows else f"{count}, never changed"))
    return rows
