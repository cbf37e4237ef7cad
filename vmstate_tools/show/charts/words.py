"""Charts of the CPU's words in many streams, and of two values of a word bit by bit."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from vmstate_tools.facts import flags
from vmstate_tools.show.charts.style import DARK, INK, LIGHT, MID, PAPER, axes_of, cut, spread, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_WROTE = "QEMU release that wrote the stream"


def word_table(cpu: pd.DataFrame, word: str, by: str = "release") -> pd.DataFrame:
    """Returns a frame of bool, a row per flag in the order of its bits, a column per value of `by`: is the flag set?

    `cpu` are rows of `Collection.cpu`. Where the streams of one column have different words (two machine types, two
    models), each distinct word gets a numbered column of its own. Streams that do not carry the word are left out.
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


@styled
def cpu_words(
    cpu: pd.DataFrame, word: str = "insns_flags2", ax: Axes | None = None, *, by: str = "release", changed: bool = False
) -> Axes:
    """Draws a flag word by release: a row per flag, a column per release, filled where the flag is set.

    A flag that came with a release is marked +, one that went −.

    Parameters
    ----------
    cpu : rows of `Collection.cpu`, best of one CPU model and machine type.
    changed : show only the flags that are not the same in all columns.

    Raises ValueError where no stream carries the word.
    """
    table = word_table(cpu, word, by)
    if table.empty:
        raise ValueError(f"none of these streams carries {word}")
    if changed:
        table = table[table.any(axis=1) & ~table.all(axis=1)]
    rows, columns = table.shape
    ax = axes_of(ax, max(6.5, 2.8 + 0.62 * columns), 1.3 + 0.2 * max(rows, 1))
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
    ax.set_xticks(np.arange(columns) + 0.5, [cut(c, 16) for c in table.columns], rotation=0 if columns < 14 else 60)
    ax.set_yticks(np.arange(rows) + 0.5, list(table.index))
    ax.set_yticks(np.arange(rows + 1), minor=True)
    ax.grid(which="minor", axis="y")
    ax.tick_params(which="both", length=0)
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_ylabel("flag")
    ax.set_xlabel(f"{_WROTE if by == 'release' else by}   (filled: set,  + came,  − went)")
    ax.spines[:].set_visible(False)
    ax.set_title(f"{word}{_of(cpu)}")
    return ax


def _of(cpu: pd.DataFrame) -> str:
    """Returns ` of MODEL` for a title where all rows have the same model, else nothing."""
    models = cpu["model"].dropna().str.lower().unique().tolist() if "model" in cpu else []
    return f" of {cut(models[0], 30)}" if len(models) == 1 and models[0] else ""


def word_distances(cpu: pd.DataFrame, by: str = "release") -> pd.DataFrame:
    """Returns the number of bits that differ in insns_flags and insns_flags2, for each pair of values of `by`.

    `cpu` are rows of `Collection.cpu`. Where a value of `by` has several distinct words, the last counts.
    """
    known = cpu[cpu["insns_flags"].notna() & cpu["insns_flags2"].notna()]
    words = {name: (int(row["insns_flags"]), int(row["insns_flags2"])) for name, row in known.set_index(by).iterrows()}
    names = sorted(words, key=lambda n: flags.release_key(str(n))) if by == "release" else list(words)
    rows = [[sum((a ^ b).bit_count() for a, b in zip(words[x], words[y], strict=True)) for y in names] for x in names]
    return pd.DataFrame(rows, index=pd.Index(names, name=by), columns=pd.Index(names, name=by), dtype="int64")


@styled
def release_pairs(cpu: pd.DataFrame, ax: Axes | None = None, *, by: str = "release") -> Axes:
    """Draws in how many flags each pair of releases differs for a CPU; the cell is blank where all are equal.

    `cpu` are rows of `Collection.cpu`, of one CPU model and machine type.
    """
    table = word_distances(cpu, by)
    n = len(table)
    ax = axes_of(ax, max(5.0, 2.2 + 0.55 * n), 1.6 + 0.42 * n)
    cells = table.to_numpy()
    for y in range(n):
        for x in range(n):
            shade = PAPER if cells[y, x] == 0 else LIGHT if cells[y, x] <= cells.max() / 2 else MID
            ax.add_patch(Rectangle((x, y), 1, 1, facecolor=shade, edgecolor=INK, linewidth=0.5))
            if cells[y, x]:
                ax.text(x + 0.5, y + 0.52, str(cells[y, x]), ha="center", va="center")
    ax.set_xlim(-0.02, n + 0.02)
    ax.set_ylim(n + 0.02, -0.02)
    ax.set_xticks(np.arange(n) + 0.5, list(table.columns))
    ax.set_yticks(np.arange(n) + 0.5, list(table.index))
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.spines[:].set_visible(False)
    ax.set_ylabel(_WROTE if by == "release" else by)
    ax.set_xlabel("number of flags that differ; blank: none")
    ax.xaxis.set_label_position("top")
    ax.set_title(f"Flags by pairs of {by}s{_of(cpu)}")
    return ax


@styled
def word_bits(
    a: int,
    b: int,
    word: str = "insns_flags2",
    ax: Axes | None = None,
    *,
    names: tuple[str, str] = ("a", "b"),
    release: str | None = None,
) -> Axes:
    """Draws two values of a word bit by bit, the highest at the left; bits that differ are framed and named.

    Parameters
    ----------
    names : the labels of the two values.
    release : the release whose names of the bits to take; by default those of any release.
    """
    differ = [bit for bit in range(63, -1, -1) if (a ^ b) >> bit & 1]
    labels = [f"{'+' if b >> bit & 1 else '−'} {cut(flags.decode(word, 1 << bit, release)[0], 24)}" for bit in differ]
    unit = 0.19  # inches of a row
    below = 4 + max(map(len, labels)) * 0.08 / unit if labels else 3.2
    ax = axes_of(ax, 11, (below + 1.2) * unit + 0.4)
    place = {bit: 63 - bit + (63 - bit) // 4 * 0.5 for bit in range(64)}
    for y, value in enumerate((a, b)):
        top = y * 1.25
        for bit, x in place.items():
            here, other = bool(value >> bit & 1), bit in differ
            shade = (DARK if other else MID) if here else PAPER
            edge, wide = (INK, 1.4) if other else (LIGHT, 0.6)
            ax.add_patch(Rectangle((x, top), 1, 1, facecolor=shade, edgecolor=edge, linewidth=wide, zorder=2 + other))
        for digit in range(16):
            text = f"{value >> 4 * (15 - digit) & 15:x}"
            at = top - 0.18 if y == 0 else top + 1.2
            ax.text(digit * 4.5 + 2, at, text, ha="center", va="bottom" if y == 0 else "top")
    ends = [place[bit] + 0.5 for bit in differ]
    # Apart enough to read, and moved back left where they run out at the right.
    places = spread(ends, 1.1)
    places = [71.5 - x for x in reversed(spread([max(71.5 - x, 0.3) for x in reversed(places)], 1.1))]
    for x, end, label in zip(places, ends, labels, strict=True):
        ax.plot([end, end, x, x], [2.25, 3.2, 3.65, 3.85], color=INK, linewidth=0.7)
        ax.text(x, 4, label, rotation=-90, ha="center", va="top", fontsize=8.5)
    ax.set_xlim(-0.2, 71.7)
    ax.set_ylim(below, -1.2)
    ax.set_xticks([])
    ax.set_xlabel("bits 63 to 0, as hex digits")
    ax.set_ylabel(word)
    ax.set_yticks([0.5, 1.75], [cut(n, 24) for n in names])
    ax.tick_params(axis="y", length=0)
    ax.spines[:].set_visible(False)
    count = f"{len(differ)} bits differ" if len(differ) != 1 else "one bit differs"
    ax.set_title(f"{word}: {count if differ else 'equal'}")
    return ax
