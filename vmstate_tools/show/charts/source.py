"""Charts of QEMU's source: which descriptions changed in which release, and the fields of one description."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch, Rectangle

from vmstate_tools.facts import source
from vmstate_tools.facts.breaks import refused_by_version
from vmstate_tools.facts.device_history import LOADS, REFUSED, Change, Form, changes, forms, forms_of
from vmstate_tools.release import Release
from vmstate_tools.show.charts.history import presence_row, release_axis
from vmstate_tools.show.charts.style import DARK, INK, LIGHT, MID, PAPER, axes_of, cut, listed, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What became of streams at a step, best first: how it is shaded, signed and named in the legend.
_LOOKS = (
    (LIGHT, "", "unchanged"),
    (PAPER, "=", "changed, loads both ways"),
    (MID, "?", "depends, or is not known"),
    (MID, "v", "refused by version"),
    (DARK, "!", "same version, does not load"),
)


def _look(change: Change) -> int:
    verdicts = {change.forward, change.back}
    if change.broken:
        return 3 if refused_by_version(change) else 4
    if REFUSED in verdicts:
        return 3
    return 1 if verdicts == {LOADS} else 2


def _between(since: str | None, until: str | None) -> list[str]:
    return [r for r in source.releases() if Release(r).within(since, until)]


@styled
def description_raster(
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    since: str | None = None,
    until: str | None = None,
    most: int = 60,
) -> Axes:
    """Draws descriptions by releases: shade and sign say what became of streams where a description changed.

    Parameters
    ----------
    names : the descriptions to draw, in this order; by default the `most` that broke or changed most often.
    since, until : the first and the last release to show.

    Raises
    ------
    CatalogError : the tables are missing, or no description has one of the names.
    ValueError : no description of these changed.
    """
    releases = _between(since, until)
    found: dict[str, dict[str, int]] = {name: {} for name in names or ()}
    for each in names if names is not None else [None]:
        for change in changes(each):
            if change.release in releases:
                row = found.setdefault(change.name, {})
                row[change.release] = max(row.get(change.release, 0), _look(change))
    if names is None:
        found = dict(sorted(found.items(), key=lambda item: _often(item[1]))[:most])
    if not any(found.values()):
        raise ValueError("no description of these changed in these releases")
    ax = axes_of(ax, 11, 1.6 + 0.2 * len(found))
    edges = release_axis(ax, releases, dates=False)
    for y, (name, steps) in enumerate(found.items()):
        held = _held(name)
        for x, release in enumerate(releases):
            if source.place(release) in held:
                shade, sign, _ = _LOOKS[steps.get(release, 0)]
                edge = INK if steps.get(release) == 1 else PAPER
                ax.add_patch(Rectangle((edges[x], y + 0.08), 1, 0.84, facecolor=shade, edgecolor=edge, linewidth=0.4))
                ink = PAPER if shade == DARK else INK
                ax.text(x + 0.5, y + 0.53, sign, ha="center", va="center", fontsize=7.5, color=ink)
    _label_rows(ax, list(found), "description")
    handles = [
        Patch(facecolor=shade, edgecolor=INK, linewidth=0.4, label=f"{sign} {said}".strip())
        for shade, sign, said in _LOOKS
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, fontsize=8)
    ax.set_title("Descriptions of devices, by what a change did to streams")
    return ax


def _often(steps: dict[str, int]) -> tuple[int, int]:
    return -sum(look == 4 for look in steps.values()), -len(steps)


def _held(name: str) -> set[int]:
    places = ((source.place(f.since), source.place(f.until) if f.until else len(source.releases())) for f in _all(name))
    return {at for first, last in places for at in range(first, last + 1)}


def _all(name: str) -> list[Form]:
    return forms_of(name) if name else [form for each in forms().values() for form in each]


def _label_rows(ax: Axes, names: Sequence[str], what: str) -> None:
    ax.set_ylim(len(names), 0)
    ax.set_yticks(np.arange(len(names)) + 0.5, [cut(name, 32) for name in names])
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.set_ylabel(what)


@styled
def field_history(
    name: str,
    ax: Axes | None = None,
    *,
    target: str = "",
    since: str | None = None,
    until: str | None = None,
    changed: bool = False,
) -> Axes:
    """Draws the fields of a description by releases: + where a field came, − where it went, * where it changed.

    Below the fields, its subsections. At the right, what is in the newest release shown: type, number, test.

    Parameters
    ----------
    target : the system emulator (`ppc64`), where descriptions of one name differ; by default the first there is.
    changed : show only what is not the same in all releases.

    Raises
    ------
    CatalogError : the tables are missing.
    ValueError : no description has that name in these releases, or nothing of it changed.
    """
    releases = _between(since, until)
    in_release = {release: _form_in(name, release, target) for release in releases}
    rows: dict[str, dict[str, str]] = {}
    for release, form in in_release.items():
        for label, said in _members(form) if form is not None else ():
            rows.setdefault(label, {})[release] = said
    if changed:
        rows = {k: v for k, v in rows.items() if len(v) < len(releases) or len(set(v.values())) > 1}
    if not rows:
        raise ValueError(f"{name}: no description of that name in these releases, or nothing of it changed")
    ax = axes_of(ax, 11, 1.1 + 0.19 * len(rows))
    edges = release_axis(ax, releases, dates=False)
    for y, row in enumerate(rows.values()):
        presence_row(ax, y, [release in row for release in releases], edges)
        for x, (old, new) in enumerate(itertools.pairwise(releases), 1):
            if old in row and new in row and row[old] != row[new]:
                ax.text(edges[x] + 0.5, y + 0.58, "*", ha="center", va="center", fontsize=9, color=INK)
        ax.text(edges[-1] + 0.1, y + 0.53, listed([list(row.values())[-1]], 48), va="center", fontsize=7.5)
    _label_rows(ax, list(rows), "field")
    ax.set_title(f"Fields of {cut(name, 30)}" + (f" ({target})" if target else ""))
    return ax


def _form_in(name: str, release: str, target: str) -> Form | None:
    at = source.place(release)
    held = [
        form for form in forms_of(name)
        if source.place(form.since) <= at and (not form.until or at <= source.place(form.until))
    ]  # fmt: skip
    fitting = [form for form in held if not target or not form.targets or target in form.targets.split()]
    return fitting[0] if fitting else None


def _members(form: Form) -> list[tuple[str, str]]:
    """Returns label and what there is to say of each field and subsection, numbered where a name is there twice."""
    found: dict[str, str] = {}
    for field in form.fields:
        label, number = field["name"], 2
        while label in found:
            label, number = f"{field['name']} #{number}", number + 1
        many = field["num_member"] or (field["num"] if field["num"] not in ("", "0") else "")
        test = f" if {field['test']}" if field["test"] else ""
        since = f" since version {field['version']}" if field["version"] not in ("", "0") else ""
        found[label] = (field["type"] or field["vmsd"] or field["info"]) + (f"[{many}]" if many else "") + test + since
    found.update(dict.fromkeys(form.subsections, "subsection"))
    return list(found.items())
