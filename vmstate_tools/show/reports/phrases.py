"""The sentences and tables of a report on a set of streams: the functions that its templates call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd

from vmstate_tools.compat.verdict import Obstacle, show
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, flags
from vmstate_tools.facts.commits import short as short_commit
from vmstate_tools.facts.flags import short
from vmstate_tools.show.reports import mail
from vmstate_tools.show.reports.cpu_words import UNKNOWN, WORDS, WordHistory
from vmstate_tools.show.reports.findings import Findings
from vmstate_tools.show.reports.pairs import Case, Pair, what

_VERSION = version("vmstate-tools")


def word_text(word: str, value: int | None) -> str:
    """Returns a word as a report shows it: in hex, the count of BATs in decimal."""
    return "not sent" if value is None else str(value) if word == "nb_bats" else f"0x{value:016x}"


def value_text(value: Any) -> str:
    """Returns a value of an obstacle: numbers in hex, and small ones in decimal as well."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value} (0x{value:x})" if 9 < abs(value) <= 0xFFFF else str(value) if abs(value) < 10 else hex(value)
    return show(value)


def count(n: int, one: str, many: str | None = None) -> str:
    """Returns `1 stream`, `2 streams`; `many` is the plural where it is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(items: Sequence[Any]) -> str:
    """Returns `a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def verdict(found: Findings) -> list[str]:
    """Returns the first paragraphs: how many pairs load, what stops the others, and what real QEMUs did."""
    out = []
    if found.pairs:
        refused = len(found.refused)
        text = (
            f"Of {count(len(found.pairs), 'pair')} of a stream and a release to load it, "
            f"{len(found.pairs) - refused} would load and {refused} would be refused."
        )
        if found.causes:
            most = [f"{cause.what} ({count(len(cause.pairs), 'pair')})" for cause in found.causes[:3]]
            text += f" What stops {'most' if len(found.causes) > 3 else 'them'}: {listed(most)}."
        out.append(text)
        agree = sum(pair.real == pair.verdict.loads for pair in found.tried)
        if found.tried:
            out.append(
                f"This is predicted, not tried. Of {count(len(found.tried), 'pair')} it is known what real QEMUs did: "
                f"in {agree} it was the same."
            )
        else:
            out.append("This is predicted, not tried: of none of these pairs it is known what real QEMUs do.")
    else:
        out.append("No two of the streams have the same configuration and different releases: no load is predicted.")
    releases = [r["release"] for r in found.releases if r["release"] != UNKNOWN]
    text = f"{count(found.streams, 'stream')} could be read, {len(found.errors)} could not."
    if releases:
        several = f"{len(releases)} releases of QEMU, {releases[0]} to {releases[-1]}"
        text += f" They come from {several if len(releases) > 1 else f'QEMU {releases[0]}'}."
    if found.with_words:
        text += (
            f" The CPU's sanity-check words ({listed(WORDS)}) are in {found.with_words} of them, "
            f"of {count(found.cpus, 'CPU')}."
        )
    else:
        text += f" In none of them the CPU's sanity-check words ({listed(WORDS)}) could be read."
    if found.histories:
        text += (
            f" {count(len(found.histories), 'combination')} of CPU model and machine type came from more than one "
            f"release; in {len(found.changed)} of these the words are not the same in all releases."
        )
    return [*out, text]


def grid_table(table: pd.DataFrame) -> str:
    """Returns a table of letters for a mail: releases that wrote in rows, releases that read in columns."""
    heads = [short(release) for release in table.columns]
    rows = [[short(str(release)), *cells] for release, *cells in table.itertuples()]
    return mail.columns(["", *heads], rows, indent=4)


def routes(found: Sequence[Pair]) -> list[str]:
    """Returns a line `cpu on machine: 2.5, 2.6 -> 2.7` for each configuration among the pairs."""
    lines = []
    for group in dict.fromkeys(pair.group for pair in found):
        to: dict[str, list[str]] = {}
        for pair in found:
            if pair.group == group:
                to.setdefault(short(pair.source or UNKNOWN), []).append(short(pair.destination))
        alike: dict[tuple[str, ...], list[str]] = {}
        for source, destinations in to.items():
            alike.setdefault(tuple(destinations), []).append(source)
        lines.append(f"{group}: " + "; ".join(f"{', '.join(s)} -> {', '.join(d)}" for d, s in alike.items()))
    return lines


def lacking(found: Findings) -> list[tuple[str, str, list[str]]]:
    """Returns (options, flags, routes): what loads under these options although these flags are lost."""
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for option in found.options:
        by: dict[str, list[Pair]] = {}
        for pair, names in option.lacking:
            by.setdefault(", ".join(names), []).append(pair)
        for names_text, some in by.items():
            alike.setdefault((names_text, tuple(routes(some))), []).append(option.name)
    return [(listed(options_), names, list(lines)) for (names, lines), options_ in alike.items()]


def behind(case: Case) -> list[str]:
    """Returns a line for each further obstacle that every pair of a case has behind its first."""
    further: dict[str, list[Obstacle]] = {}
    for pair in case.pairs:
        for name, o in {what(o): o for o in pair.verdict.reasons[1:]}.items():
            further.setdefault(name, []).append(o)
    out = []
    for name, same in further.items():
        if len(same) == len(case.pairs):
            sides = (("+", [o.flags_only_in_stream for o in same]), ("-", [o.flags_only_in_destination for o in same]))
            signed = [f"{sign}{n}" for sign, lists in sides for n in lists[0] if all(n in each for each in lists)]
            out.append(f"{name} ({', '.join(signed)})" if signed else name)
    return out


def commits(hashes: Sequence[str]) -> list[str]:
    """Returns `4e0806110c ("subject") 2016-06-07` for each commit."""
    known = {row["commit"]: f' ("{row["subject"]}") {row["date"]}' for row in catalog.table("changes")}
    return [short_commit(name) + known.get(name, "") for name in hashes]


def meanings(found: Findings) -> list[tuple[str, str, str]]:
    """Returns (name, facility, meaning) of each flag that the causes name."""
    names = dict.fromkeys(
        part
        for cause in found.causes
        for case in cause.cases
        for name in (*case.obstacle.flags_only_in_stream, *case.obstacle.flags_only_in_destination)
        for part in name.split("/")
    )
    out = []
    for name in sorted(names):
        try:
            flag = flags.describe(name)
        except CatalogError:
            continue
        out.append((name, flag.facility, flag.meaning))
    return out


def option_note(found: Findings) -> str:
    """Introduces the table of options."""
    first = found.options[0]
    n = len(first.loads) + len(first.elsewhere) + len(first.refused)
    over = f"the {n} pairs" if n > 1 else "the one pair"
    return f"What if the words were treated otherwise? Each option over {over} that a word stops first:"


def option_table(found: Findings) -> str:
    """Returns the table of options, a row for each policy and the number of pairs that it lets load."""
    heads = ["option", ">loads", ">stopped elsewhere", ">refused", ">flag lacking"]
    rows = [[o.name, len(o.loads), len(o.elsewhere), len(o.refused), len(o.lacking)] for o in found.options]
    return mail.columns(heads, rows)


def step_table(history: WordHistory, words: Sequence[str]) -> str:
    """Returns the table of some words of a history, release by release."""
    rows = [[s.release, *(word_text(w, s.words[w]) for w in words), s.streams] for s in history.steps]
    return mail.columns(["release", *words, ">streams"], rows)


def constants(history: WordHistory) -> str:
    """Names the words of a history that never change."""
    words = [f"{word} {word_text(word, value)}" for word, value in history.constant.items()]
    return f"In all of them: {', '.join(words)}."


def release_table(found: Findings) -> str:
    """Returns the table of the releases that wrote the streams."""
    names = ["streams", "machines", "models", "smallest", "largest", "undescribed"]
    rows = [[r["release"], *(f"{r[name]:,}" for name in names)] for r in found.releases]
    return mail.columns(["release", *(f">{name}" for name in names)], rows)


def size_note(found: Findings) -> str:
    """Says what the sizes mean, and how many bytes nothing describes."""
    note = "Sizes in bytes, of the stream itself, decompressed where it was compressed."
    if found.undescribed:
        had = "had no description of its own" if found.without_vmdesc == 1 else "had no descriptions of their own"
        note += (
            f" {found.undescribed:,} bytes lie in sections that nothing describes; "
            f"{count(found.without_vmdesc, 'stream')} {had}."
        )
    return note


def error_line(error: dict[str, Any]) -> str:
    """Says in one line why a file could not be read: where, what, and what was expected."""
    parts = [] if pd.isna(error["offset"]) else [f"offset {error['offset']}"]
    parts += [] if pd.isna(error["section"]) else [f"section {error['section']}"]
    expected = "" if pd.isna(error["expected"]) else f"; expected {error['expected']}"
    return f"{', '.join(parts)}{': ' if parts else ''}{error['message']}{expected}"


def method(found: Findings) -> str:
    """Says what the verdicts rest on."""
    text = (
        f"Read by vmstate_tools {_VERSION} from the streams alone: each section by the description that its stream "
        "carries, or by a built-in one. Release and CPU model are what the manifest.csv beside the streams says; the "
        "machine type is what the stream says, or else the manifest."
    )
    if any(pair.reference for pair in found.pairs):
        text += (
            " A destination is known by the stream that it wrote itself with the same machine type, CPU model and "
            "configuration: that shows the versions and fields it expects and the values it compares."
        )
    if any(pair.reference is None for pair in found.pairs):
        text += " Where there is none, a destination is known by release, machine type and CPU model alone."
    return text


def commands(found: Findings) -> list[str]:
    """Returns the commands that repeat the first refusal: how its streams were made, and how it was checked."""
    pair = next(iter(found.causes[0].cases[0].pairs), None) if found.causes else None
    if pair is None:
        return []
    out = []
    for release, file in ((pair.source, pair.file), (pair.destination, pair.reference)):
        arguments = found.commands.get(file or "", UNKNOWN)
        if arguments != UNKNOWN:
            out.append(f"QEMU {release}: {arguments}")
    files = [os.path.relpath(file) for file in (pair.file, pair.reference) if file]
    known = ["--reference", files[1]] if pair.reference else [f"--machine {pair.machine}", f"--cpu {pair.cpu}"]
    parts = ["vmstate check", files[0], f"--to {pair.destination}", *known]
    return [*out, *(f"{'' if i == 0 else '    '}{part} \\" for i, part in enumerate(parts[:-1])), f"    {parts[-1]}"]
