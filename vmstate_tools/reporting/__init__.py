"""What a set of streams shows, as text for a mailing list and as HTML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from vmstate_tools import __version__, catalog, flags
from vmstate_tools.compat.verdict import STAGES, show
from vmstate_tools.errors import CatalogError, VmstateError, printable
from vmstate_tools.frames import Collection, load
from vmstate_tools.reporting import mail, pictures
from vmstate_tools.reporting.options import Option, options
from vmstate_tools.reporting.pairs import Case, Cause, Pair, causes, grids, pairs, what
from vmstate_tools.reporting.words import UNKNOWN, WORDS, WordHistory, histories, named, order

Format = Literal["text", "html", "mbox"]


@dataclass
class Findings:
    """What a report says, before it is put into words."""

    releases: list[dict[str, Any]]  # release, streams, machines, models, smallest and largest size, undescribed bytes
    streams: int
    with_words: int
    cpus: int
    histories: list[WordHistory]
    pairs: list[Pair]
    causes: list[Cause]
    options: list[Option]
    errors: list[dict[str, Any]]
    undescribed: int
    without_vmdesc: int
    commands: dict[str, str]  # file -> QEMU's command line, of the manifest

    @property
    def changed(self) -> list[WordHistory]:
        return [h for h in self.histories if h.changed]

    @property
    def same(self) -> list[WordHistory]:
        return [h for h in self.histories if not h.changed]

    @property
    def refused(self) -> list[Pair]:
        return [pair for pair in self.pairs if not pair.verdict.loads]

    @property
    def tried(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.real is not None]


def findings(collection: Collection, to: Sequence[str] = (), progress: bool | None = None) -> Findings:
    """The facts of a report."""
    streams, cpu = collection.streams, collection.cpu
    found = pairs(collection, to, progress)
    return Findings(
        releases=_releases(streams),
        streams=len(streams),
        with_words=int(cpu.loc[cpu["insns_flags"].notna(), "file"].nunique()),
        cpus=int(cpu["insns_flags"].notna().sum()),
        histories=[h for h in histories(cpu) if len({step.release for step in h.steps}) > 1],
        pairs=found,
        causes=causes(found),
        options=options(found),
        errors=[{str(k): v for k, v in row.items()} for row in collection.errors.to_dict("records")],
        undescribed=int(streams["opaque"].sum()),
        without_vmdesc=int((streams["vmdesc_size"] == 0).sum()),
        commands=dict(zip(streams["file"], named(streams, "arguments"), strict=True)),
    )


def _releases(streams: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for release, group in streams.groupby(named(streams, "release"), sort=False):
        sizes = group["stream_size"].astype("int64")
        rows.append(
            {
                "release": str(release),
                "streams": len(group),
                "machines": int(named(group, "machine").nunique()),
                "models": int(named(group, "cpu").str.lower().nunique()),
                "smallest": int(sizes.min()),
                "largest": int(sizes.max()),
                "undescribed": int(group["opaque"].sum()),
            }
        )
    return sorted(rows, key=lambda row: order(row["release"]))


# -- putting it into words ------------------------------------------------------------------------------------------


def report(
    streams: Collection | str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    format: Format = "text",  # noqa: A002 - the word users know
    *,
    to: Sequence[str] = (),
    title: str = "QEMU migration streams",
    progress: bool | None = None,
    **headers: Any,
) -> str:
    """Which of a set of streams their neighbours' writers would refuse, and why, as one document.

    Streams of one configuration (by the manifest beside them: machine type, CPU model, config) and several releases are
    held against each other: what a release wrote shows what it expects.

    Parameters
    ----------
    streams : what `load` takes, or what it returned.
    format : 'text', plain ASCII of at most 72 columns; 'mbox', the same as the draft of a mail; 'html', one
        self-contained page with charts.
    to : releases that each stream is held against as well, as the catalog knows them.
    title : the document's heading, the mail's subject.
    headers : for 'mbox': sender, to_addresses, cc, in_reply_to, quote, date: see `reporting.mail.draft`.

    Raises VmstateError where there is no stream at all, ValueError for another format.
    """
    return render(streams, [format], to=to, title=title, progress=progress, **headers)[0]


def render(
    streams: Collection | str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    formats: Sequence[Format],
    *,
    to: Sequence[str] = (),
    title: str = "QEMU migration streams",
    progress: bool | None = None,
    **headers: Any,
) -> list[str]:
    """One `report` in several formats."""
    for form in formats:
        if form not in ("text", "html", "mbox"):
            raise ValueError(f"format={form!r}: 'text', 'html' or 'mbox'")
    collection = streams if isinstance(streams, Collection) else load(streams, fields=False, progress=progress)
    if not len(collection) and not len(collection.errors):
        raise VmstateError("no streams to report on")
    found = findings(collection, to, progress)
    context = {"title": title, "found": found, "grids": grids(found.pairs, found.causes), "words": WORDS}
    return [_document("report", form, title, context, collection, headers) for form in formats]


def _document(
    template: str, form: Format, title: str, context: dict[str, Any], collection: Collection | None, headers: Any
) -> str:
    if form == "html":
        charts = pictures.of_words(collection, context["found"].changed) if collection is not None else {}
        return str(environment(True).get_template(f"{template}.html.j2").render(**context, charts=charts))
    text = mail.plain(environment(False).get_template(f"{template}.txt.j2").render(**context))
    return mail.draft(text, title, **headers) if form == "mbox" else text


def environment(html: bool) -> Any:
    """What the templates are rendered with: Jinja2, strict, escaping for HTML, with the filters and functions below."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("vmstate_tools"),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {"wrap": mail.wrap, "number": "{:,}".format, "plain": lambda v: printable(str(v))}
    for function in (
        word_text,
        listed,
        step_table,
        constants,
        release_table,
        size_note,
        error_line,
        method,
        verdict,
        grid_table,
        routes,
        behind,
        commits,
        meanings,
        option_table,
        commands,
        value_text,
    ):
        made.globals[function.__name__] = function
    made.globals |= {"stages": STAGES}
    return made


def word_text(word: str, value: int | None) -> str:
    """A word as a report shows it: hex, the count of BATs as a number."""
    return "not sent" if value is None else str(value) if word == "nb_bats" else f"0x{value:016x}"


def value_text(value: Any) -> str:
    """A value of an obstacle: numbers in hex and, where small, decimal as well."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value} (0x{value:x})" if 9 < abs(value) <= 0xFFFF else str(value) if abs(value) < 10 else hex(value)
    return show(value)


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(items: Sequence[Any]) -> str:
    """`a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def verdict(found: Findings) -> list[str]:
    """What comes first, in paragraphs: how many pairs load, what stops the others, and what real QEMUs did."""
    out = []
    if found.pairs:
        refused = len(found.refused)
        text = (
            f"Of {_count(len(found.pairs), 'pair')} of a stream and a release to load it, "
            f"{len(found.pairs) - refused} would load and {refused} would be refused."
        )
        if found.causes:
            most = [f"{cause.what} ({_count(len(cause.pairs), 'pair')})" for cause in found.causes[:3]]
            text += f" What stops most: {listed(most)}."
        out.append(text)
        agree = sum(pair.real == pair.verdict.loads for pair in found.tried)
        if found.tried:
            out.append(
                f"This is predicted, not tried. Of {_count(len(found.tried), 'pair')} it is known what real QEMUs did: "
                f"in {agree} it was the same."
            )
        else:
            out.append("This is predicted, not tried: of none of these pairs it is known what real QEMUs do.")
    else:
        out.append("No two of the streams have the same configuration and different releases: no load is predicted.")
    releases = [r["release"] for r in found.releases if r["release"] != UNKNOWN]
    text = f"{_count(found.streams, 'stream')} could be read, {len(found.errors)} could not."
    if releases:
        span = f", {releases[0]} to {releases[-1]}" if len(releases) > 1 else ""
        text += f" They come from {_count(len(releases), 'QEMU release')}{span}."
    if found.with_words:
        text += (
            f" {found.with_words} of them hold the CPU's sanity-check words ({listed(WORDS)}), "
            f"of {_count(found.cpus, 'CPU')}."
        )
    else:
        text += f" In none of them the CPU's sanity-check words ({listed(WORDS)}) could be read."
    if found.histories:
        text += (
            f" {_count(len(found.histories), 'combination')} of CPU model and machine type came from more than one "
            f"release; in {len(found.changed)} of these the words are not the same in all releases."
        )
    return [*out, text]


def grid_table(table: pd.DataFrame) -> str:
    """A table of letters for a mail: releases that wrote in rows, releases that read in columns."""
    heads = [_short(release) for release in table.columns]
    rows = [[_short(str(release)), *cells] for release, *cells in table.itertuples()]
    return mail.columns(["", *heads], rows, indent=4)


def _short(release: str) -> str:
    return release.removesuffix(".0") if release.count(".") == 2 else release


def routes(case: Case) -> list[str]:
    """`cpu on machine: 2.5, 2.6 -> 2.7` for each group of a case."""
    return [
        f"{group}: " + "; ".join(f"{', '.join(map(_short, s))} -> {', '.join(map(_short, d))}" for s, d in by.items())
        for group, by in case.routes.items()
    ]


def behind(case: Case) -> list[str]:
    """What would have stopped the load next, at every pair of a case: one line each."""
    first, *others = case.pairs
    alike = {what(o) for o in first.verdict.reasons[1:]}.intersection(
        *({what(o) for o in pair.verdict.reasons[1:]} for pair in others)
    )
    out = {}
    for o in first.verdict.reasons[1:]:
        text = what(o)
        if text in alike and text not in out:
            names = [*(f"+{n}" for n in o.flags_only_in_stream), *(f"-{n}" for n in o.flags_only_in_destination)]
            out[text] = f"{text}{' (' if names else ''}{', '.join(names)}{')' if names else ''}"
    return list(out.values())


def commits(hashes: Sequence[str]) -> list[str]:
    """`4e0806110c8b ("subject") 2016-06-07` for each commit."""
    known = {row["commit"][:12]: row for row in catalog.table("changes")}
    return [
        f'{name[:12]} ("{known[name[:12]]["subject"]}") {known[name[:12]]["date"]}' if name[:12] in known else name[:12]
        for name in hashes
    ]


def meanings(found: Findings) -> list[tuple[str, str, str]]:
    """Each flag that the causes name: its name, facility, meaning."""
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


def option_table(found: Findings) -> str:
    heads = ["option", ">loads", ">stopped elsewhere", ">refused", ">flag lacking"]
    rows = [[o.name, len(o.loads), len(o.elsewhere), len(o.refused), len(o.lacking)] for o in found.options]
    return mail.columns(heads, rows)


def step_table(history: WordHistory, words: Sequence[str]) -> str:
    rows = [[s.release, *(word_text(w, s.words[w]) for w in words), s.streams] for s in history.steps]
    return mail.columns(["release", *words, ">streams"], rows)


def constants(history: WordHistory) -> str:
    words = [f"{word} {word_text(word, value)}" for word, value in history.constant.items()]
    return f"In all of them: {', '.join(words)}."


def release_table(found: Findings) -> str:
    names = ["streams", "machines", "models", "smallest", "largest", "undescribed"]
    rows = [[r["release"], *(f"{r[name]:,}" for name in names)] for r in found.releases]
    return mail.columns(["release", *(f">{name}" for name in names)], rows)


def size_note(found: Findings) -> str:
    note = "Sizes in bytes, of the stream itself, decompressed where it was compressed."
    if found.undescribed:
        had = "had no description of its own" if found.without_vmdesc == 1 else "had no descriptions of their own"
        note += (
            f" {found.undescribed:,} bytes lie in sections that nothing describes; "
            f"{_count(found.without_vmdesc, 'stream')} {had}."
        )
    return note


def error_line(error: dict[str, Any]) -> str:
    parts = [] if pd.isna(error["offset"]) else [f"offset {error['offset']}"]
    parts += [] if pd.isna(error["section"]) else [f"section {error['section']}"]
    expected = "" if pd.isna(error["expected"]) else f"; expected {error['expected']}"
    return f"{', '.join(parts)}{': ' if parts else ''}{error['message']}{expected}"


def method(found: Findings) -> str:
    text = (
        f"Read by vmstate_tools {__version__} from the streams alone: each section by the description that its stream "
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
    """Commands that repeat the first refusal: how its streams were made, and how it was checked."""
    pair = next(iter(found.causes[0].cases[0].pairs), None) if found.causes else None
    if pair is None:
        return []
    out = []
    for release, file in ((pair.source, pair.file), (pair.destination, pair.reference)):
        arguments = found.commands.get(file or "", UNKNOWN)
        if arguments != UNKNOWN:
            out.append(f"QEMU {release}: {arguments}")
    files = [os.path.relpath(file) for file in (pair.file, pair.reference) if file]
    known = f"--reference {files[1]}" if pair.reference else f"--machine {pair.machine} --cpu {pair.cpu}"
    return [*out, f"vmstate check {files[0]} \\", f"    --to {pair.destination} \\", f"    {known}"]
