"""How the report on the known case says its facts: the functions that its templates call."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import pandas as pd

from vmstate_tools.analysis.policies_compared import EFFECTS
from vmstate_tools.facts import catalog
from vmstate_tools.facts.flags import short
from vmstate_tools.show.reports import mail
from vmstate_tools.show.reports.case_2016 import ACCELERATORS, FIXED, MACHINE, NEW, OLD, ROUTES, Facts
from vmstate_tools.show.reports.phrases import count, listed, word_text

_VERSION = version("vmstate-tools")

# Effect (of `policies_compared.EFFECTS`) → what a cell of the tables of options says.
CELLS = {
    "as before": "loads",
    "repaired": "repaired",
    "let through": "THROUGH",
    "refused, rightly": "refused",
    "refused, needlessly": "needless",
    "broken": "BROKEN",
}


def verdict(found: Facts) -> list[str]:
    """Returns three paragraphs: what breaks and why, what real QEMUs did, what the options achieve."""
    words = list(dict.fromkeys(w for steps in found.steps.values() for row in steps["words"] for w in row))
    under = listed([accel.upper() for accel, steps in found.steps.items() if len(steps)])
    whole = [f for f in found.cpus if f not in found.broken]
    first = (
        f"A pseries guest with a CPU of the families {listed(found.broken)} migrates neither from QEMU {OLD} to {NEW} "
        f"nor back, under {under}: the section 'cpu' carries {listed(words)} as fields that must equal the "
        f"destination's own, and {count(len(found.commits), 'commit')} of {NEW[:3]} changed them. "
        f"{listed(whole)} are not affected."
    )
    refused, loaded = found.real[found.real["refused"] > 0], found.real[found.real["loads"] > 0]
    stopped = listed(sorted(set(refused["stopped_at"])))
    tried = found.real["loads"].sum() + found.real["refused"].sum()
    second = (
        f"Real loads say the same. Of {tried} loads between the two releases, pseries under TCG and the same CPU on "
        f"both sides, {refused['refused'].sum()} were refused, the last field read being {stopped}; "
        f"{loaded['loads'].sum()} loaded, all of {listed(sorted(set(loaded['cpu'])))}."
    )
    return [first, second, options_verdict(found)]


def options_verdict(found: Facts) -> str:
    """Says which options repair loads into a fixed release and out of it, and which of them break some."""
    table = found.options.set_index(["source", "destination"])
    into = table.loc[[route for route in ROUTES if route[1] == FIXED]]
    out = table.loc[[route for route in ROUTES if route[0] == FIXED]]
    good, back = [], []
    for name in found.says:
        forward, backward = into[into["policy"] == name]["effect"], out[out["policy"] == name]["effect"]
        if forward.isin(["as before", "repaired"]).all():
            good.append(name)
        if (backward == "repaired").any():
            broken = int((backward == "broken").sum() + (forward == "broken").sum())
            back.append(f"{name} ({(backward == 'repaired').sum()} repaired, {broken} broken)")
    text = f"Nothing that a {FIXED} could do helps {OLD} and {NEW} among themselves. "
    text += f"Into {FIXED} everything loads, and no guest misses what it could notice, under: {listed(good)}. "
    return text + f"Out of {FIXED}, to releases that still compare, something is repaired under: {listed(back)}."


def same(found: Facts) -> str:
    """Says whether TCG and KVM have the same steps."""
    one, other = (found.steps[accel][["family", "words", "added", "removed"]] for accel in ACCELERATORS)
    return "The same under both." if one.equals(other) else "TCG and KVM differ."


def signed(row: Any) -> list[str]:
    """Returns the flags of a step, each with + or - before it."""
    return [*(f"+{name}" for name in row.added), *(f"-{name}" for name in row.removed)]


def words(found: Facts) -> str:
    """Returns a table of the words that changed, before and after, by family."""
    rows = []
    for family, releases in found.words.items():
        changed = [w for w in catalog.WORDS if len({values[w] for values in releases.values()}) > 1]
        for word in changed:
            rows.append([family, word, *(word_text(word, values[word]) for values in releases.values())])
    return mail.columns(["family", "word", OLD, NEW], rows)


def real(found: Facts) -> str:
    """Returns a table of real loads by direction and CPU."""
    rows = [
        [f"{r.source} -> {r.destination}", r.cpu, r.loads, r.refused, r.stopped_at] for r in found.real.itertuples()
    ]
    return mail.columns(["from -> to", "CPU", ">loaded", ">refused", "last field read"], rows)


def effects(found: Facts) -> list[str]:
    """Returns a line for each flag that the step added or removed: who can run what it allows, and what that is."""
    return [
        f"{'+' if row.change == '+' else '-'}{row.flag} ({row.family}), {row.tcg}: {row.what}"
        for row in found.effects.itertuples()
    ]


def earlier(found: Facts) -> str:
    """Introduces the steps before NEW at which a comparison of the words fails."""
    steps, releases = len(earlier_lines(found)), found.earlier["release"].nunique()
    return (
        f"Before {NEW}, {count(releases, 'release')} changed a word of one of these families while the words were "
        f"compared ({count(steps, 'step')} of a family, under TCG):"
    )


def earlier_lines(found: Facts) -> list[str]:
    """Returns a line for each release and family; families that share their models are named once."""
    lines = (f"{row.release} {row.family}: {' '.join(signed(row))}" for row in found.earlier.itertuples())
    return list(dict.fromkeys(lines))


def option_tables(found: Facts) -> list[tuple[str, pd.DataFrame]]:
    """Returns a table of options × routes for each family and accelerator, equal tables once; cells are of `CELLS`."""
    tables: list[tuple[list[str], pd.DataFrame]] = []
    for family, cpu in found.cpus.items():
        for accel in ACCELERATORS:
            some = found.options[(found.options["cpu"] == cpu) & (found.options["accel"] == accel)]
            cells = some.set_index(["policy", "source", "destination"])["effect"].astype("str")
            table = pd.DataFrame(
                {f"{short(a)}->{short(b)}": [CELLS[cells[name, a, b]] for name in found.says] for a, b in ROUTES},
                index=list(found.says),
            )
            for names, known in tables:
                if known.equals(table):
                    names.append(f"{family} {accel.upper()}")
                    break
            else:
                tables.append(([f"{family} {accel.upper()}"], table))
    return [(listed(names), table) for names, table in tables]


def option_table(table: pd.DataFrame) -> str:
    """Returns one table of options for a mail."""
    return mail.columns(["option", *table.columns], [[name, *cells] for name, *cells in table.itertuples()])


def option_note() -> str:
    """Says what an option stands for in the tables."""
    return (
        f"Each option is taken as what a {FIXED} does, on {MACHINE}; {OLD} and {NEW} stay as they are. The words alone "
        "are looked at, as the catalog has them for each release and accelerator."
    )


def unused(found: Facts) -> str:
    """Says what real QEMUs did with streams in which the words are declared unused."""
    tried = found.unused
    fields = sorted(set(tried["fail_field"].str.partition("=")[0]))
    return (
        f"Tried with a real {NEW} in which the words are VMSTATE_UNUSED: QEMU sends zeros for them, and of "
        f"{count(len(tried), 'load')} of what it wrote into {listed(sorted(set(tried['dst_version'])))} as released "
        f"({listed(sorted(set(tried['cpu'])))}), {int(tried['loads'].sum())} loaded; refused at {listed(fields)}."
    )


def legend() -> Iterable[str]:
    """Returns a line for each word that stands in the cells of the tables of options."""
    return (f"{cell}: {EFFECTS[effect]}." for effect, cell in CELLS.items())


def tcg(found: Facts) -> str:
    """Compares the claim that TCG stays broken with unused words with what releases that ignore the words did."""
    loaded = found.shipped.loc[found.shipped["message"] == "", "loads"].sum()
    others = found.shipped[found.shipped["message"] != ""]
    in_cpu = int(others.loc[others["in_cpu"], "loads"].sum())
    why = [f"{count(n, 'load')}: {text}" for text, n in zip(others["message"], others["loads"].tolist(), strict=True)]
    table = found.options[(found.options["policy"] == "ignore") & (found.options["accel"] == "tcg")]
    table = table.set_index(["source", "destination"])
    into = table.loc[[route for route in ROUTES if route[1] == FIXED]]
    lost = sorted({name for names in into["lacks"] for name in names})
    later = table.loc[[route for route in ROUTES if route[0] == FIXED]]
    missed = [f"{cpu} {' '.join(names)}" for cpu, names in zip(later["cpu"], later["lacks"], strict=True) if names]
    text = (
        "It was said that with the words unused TCG would stay broken. Releases from 2.8 on ignore them. Of "
        f"{count(int(found.shipped['loads'].sum()), 'real load')} under TCG of pseries streams from releases that "
        f"compare the words into releases that ignore them, {loaded} loaded and {in_cpu} failed in the section 'cpu'. "
        f"The others failed before it: {'; '.join(why)}. "
    )
    text += (
        f"Moving forward a guest loses {listed(lost)}."
        if lost
        else "Moving forward a TCG guest loses no flag that it could notice."
    )
    if missed:
        text += f" Moving back it may: {listed(list(dict.fromkeys(missed)))}."
    return text


def method() -> str:
    """Says where the facts come from, and what was not tried."""
    return (
        f"By vmstate_tools {_VERSION} from its bundled data alone: data/catalog (each release's flags, CPU "
        "families, fields and commits, read from QEMU's source), data/outcomes (what real QEMUs did with real streams, "
        "under TCG). What is said of KVM follows from the source; no load under KVM was tried. To repeat it:"
    )
