"""What a set of streams shows, as text for a mailing list and as HTML."""

from __future__ import annotations

import base64
import io
import os
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from vmstate_tools import __version__, flags
from vmstate_tools.errors import VmstateError, printable
from vmstate_tools.frames import CPU_WORDS, Collection, load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 72  # columns of a mail
_WORDS = [name for name in CPU_WORDS if name != "pvr"]
_UNKNOWN = "not said"


@dataclass
class WordStep:
    """The CPU words that streams of one release carry. `added` and `removed`: flags against the step before."""

    release: str
    words: dict[str, int | None]
    streams: int
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)  # words that are no flags and changed

    @property
    def changed(self) -> bool:
        return bool(self.added or self.removed or self.other)


@dataclass
class WordHistory:
    """One CPU model on one machine type, release by release."""

    model: str
    machine: str
    steps: list[WordStep]

    @property
    def label(self) -> str:
        return f"{self.model} on {self.machine}"

    @property
    def changed(self) -> bool:
        return any(step.changed for step in self.steps)

    @property
    def varying(self) -> list[str]:
        """The words that are not the same in all steps."""
        return [word for word in _WORDS if len({step.words[word] for step in self.steps}) > 1]

    @property
    def constant(self) -> dict[str, int | None]:
        return {word: self.steps[0].words[word] for word in _WORDS if word not in self.varying}


@dataclass
class Findings:
    """What a report says, before it is put into words."""

    releases: list[dict[str, Any]]  # release, streams, machines, models, smallest and largest size, undescribed bytes
    streams: int
    with_words: int
    cpus: int
    histories: list[WordHistory]
    errors: list[dict[str, Any]]
    page_sizes: list[int]
    containers: list[str]
    undescribed: int
    without_vmdesc: int

    @property
    def changed(self) -> list[WordHistory]:
        return [h for h in self.histories if h.changed]

    @property
    def same(self) -> list[WordHistory]:
        return [h for h in self.histories if not h.changed]


def findings(collection: Collection) -> Findings:
    """The facts of a report."""
    streams, cpu = collection.streams, collection.cpu
    histories = [h for h in _histories(cpu) if len({step.release for step in h.steps}) > 1]
    return Findings(
        releases=_releases(streams),
        streams=len(streams),
        with_words=int(cpu.loc[cpu["insns_flags"].notna(), "file"].nunique()),
        cpus=int(cpu["insns_flags"].notna().sum()),
        histories=histories,
        errors=[{str(k): v for k, v in row.items()} for row in collection.errors.to_dict("records")],
        page_sizes=sorted(int(v) for v in streams["page_size"].dropna().unique()),
        containers=sorted(str(v) for v in streams["container"].unique()),
        undescribed=int(streams["opaque"].sum()),
        without_vmdesc=int((streams["vmdesc_size"] == 0).sum()),
    )


def _order(release: str) -> tuple[int, ...]:
    return flags.release_key(release) if release != _UNKNOWN else ()


def _named(frame: pd.DataFrame, column: str) -> pd.Series:
    """A text column, `not said` where it is absent or empty."""
    if column not in frame:
        return pd.Series(_UNKNOWN, index=frame.index, dtype="str")
    text = frame[column].astype("str")
    return text.mask(text.isna() | text.isin(["", "nan", "None"]), _UNKNOWN)


def _releases(streams: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for release, group in streams.groupby(_named(streams, "release"), sort=False):
        sizes = group["stream_size"].astype("int64")
        rows.append(
            {
                "release": str(release),
                "streams": len(group),
                "machines": int(_named(group, "machine").nunique()),
                "models": int(_named(group, "cpu").str.lower().nunique()),
                "smallest": int(sizes.min()),
                "largest": int(sizes.max()),
                "undescribed": int(group["opaque"].sum()),
            }
        )
    return sorted(rows, key=lambda row: _order(row["release"]))


def _histories(cpu: pd.DataFrame) -> Iterable[WordHistory]:
    known = cpu[cpu["insns_flags"].notna()]
    keys = [_named(known, "model").str.lower().rename("model"), _named(known, "machine").rename("machine")]
    for (model, machine), group in known.groupby(keys, sort=True):
        steps: list[WordStep] = []
        releases = _named(group, "release")
        for release in sorted(releases.unique(), key=_order):
            for words, same in group[releases == release].groupby(_WORDS, sort=False, dropna=False):
                values = dict(zip(_WORDS, (None if pd.isna(v) else int(v) for v in words), strict=True))
                step = WordStep(release, values, int(same["file"].nunique()))
                if steps:
                    _compare(steps[-1], step)
                steps.append(step)
        yield WordHistory(str(model), str(machine), steps)


def _compare(before: WordStep, now: WordStep) -> None:
    for difference in flags.diff(before.words, now.words).values():
        now.added += difference.added
        now.removed += difference.removed
    if before.words["nb_bats"] != now.words["nb_bats"]:
        now.other.append("nb_bats")


# -- putting it into words ------------------------------------------------------------------------------------------


def report(
    streams: Collection | str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    format: Literal["text", "html"] = "text",  # noqa: A002 - the word users know
    *,
    title: str = "QEMU migration streams",
) -> str:
    """What streams there are, what their CPU words are by release and what changed, as one document.

    Parameters
    ----------
    streams : what `load` takes, or what it returned.
    format : 'text', plain ASCII of at most 72 columns, for a mail; 'html', one self-contained page with charts.
    title : the document's heading.

    Raises VmstateError where there is no stream at all, ValueError for another format.
    """
    if format not in ("text", "html"):
        raise ValueError(f"format={format!r}: 'text' or 'html'")
    collection = streams if isinstance(streams, Collection) else load(streams, fields=False)
    if not len(collection) and not len(collection.errors):
        raise VmstateError("no streams to report on")
    found = findings(collection)
    context = {"title": title, "found": found, "summary": _summary(found), "words": _WORDS}
    if format == "html":
        return _environment(True).get_template("report.html.j2").render(**context, charts=_charts(collection, found))
    text = _environment(False).get_template("report.txt.j2").render(**context)
    return "\n".join(line.rstrip() for line in text.encode("ascii", "backslashreplace").decode().splitlines()) + "\n"


def _environment(html: bool) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vmstate_tools"),
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"wrap": _wrap, "number": "{:,}".format, "plain": lambda v: printable(str(v))}
    for function in (word_text, listed, step_table, constants, release_table, size_note, error_line, method):
        environment.globals[function.__name__] = function
    return environment


def word_text(word: str, value: int | None) -> str:
    """A word as a report shows it: hex, the count of BATs as a number."""
    return "not sent" if value is None else str(value) if word == "nb_bats" else f"0x{value:016x}"


def _wrap(text: str, indent: int = 0, hang: int = 0) -> str:
    """Text broken into lines of a mail; `hang` more columns of indent from the second line on."""
    return textwrap.fill(
        " ".join(printable(text).split()),
        WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang),
        break_on_hyphens=False,
    )


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(items: Sequence[Any]) -> str:
    """`a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def _summary(found: Findings) -> str:
    """The verdict: how much there is, and in how much of it the words changed."""
    releases = [r["release"] for r in found.releases if r["release"] != _UNKNOWN]
    sentences = [f"{_count(found.streams, 'stream')} could be read, {len(found.errors)} could not."]
    if releases:
        span = f", {releases[0]} to {releases[-1]}" if len(releases) > 1 else ""
        sentences.append(f"They come from {_count(len(releases), 'QEMU release')}{span}.")
    if found.with_words:
        sentences.append(
            f"{found.with_words} of them hold the CPU's sanity-check words ({listed(_WORDS)}), "
            f"of {_count(found.cpus, 'CPU')}."
        )
    else:
        sentences.append(f"In none of them the CPU's sanity-check words ({listed(_WORDS)}) could be read.")
    if found.histories:
        sentences.append(
            f"{_count(len(found.histories), 'combination')} of CPU model and machine type came from more than one "
            f"release; in {len(found.changed)} of these the words are not the same in all releases."
        )
    return " ".join(sentences)


def step_table(history: WordHistory, words: Sequence[str]) -> str:
    rows = [[s.release, *(word_text(w, s.words[w]) for w in words), s.streams] for s in history.steps]
    return _columns(["release", *words, ">streams"], rows)


def constants(history: WordHistory) -> str:
    words = [f"{word} {word_text(word, value)}" for word, value in history.constant.items()]
    return f"In all of them: {', '.join(words)}."


def release_table(found: Findings) -> str:
    names = ["streams", "machines", "models", "smallest", "largest", "undescribed"]
    rows = [[r["release"], *(f"{r[name]:,}" for name in names)] for r in found.releases]
    return _columns(["release", *(f">{name}" for name in names)], rows)


def size_note(found: Findings) -> str:
    note = "Sizes in bytes, of the stream itself, decompressed where it was compressed."
    if found.undescribed:
        note += (
            f" {found.undescribed:,} bytes lie in sections that nothing describes; "
            f"{_count(found.without_vmdesc, 'stream')} had no description of its own."
            if found.without_vmdesc == 1
            else f" {found.undescribed:,} bytes lie in sections that nothing describes; "
            f"{found.without_vmdesc} streams had no description of their own."
        )
    return note


def error_line(error: dict[str, Any]) -> str:
    parts = [] if pd.isna(error["offset"]) else [f"offset {error['offset']}"]
    parts += [] if pd.isna(error["section"]) else [f"section {error['section']}"]
    expected = "" if pd.isna(error["expected"]) else f"; expected {error['expected']}"
    return f"{', '.join(parts)}{': ' if parts else ''}{error['message']}{expected}"


def method(found: Findings) -> str:
    return (
        f"Read by vmstate_tools {__version__} from the streams alone: each section by the description that its stream "
        "carries, or by a built-in one. The words are fields of the section 'cpu'. Release and CPU model are what the "
        "manifest.csv beside the streams says; the machine type is what the stream says, or else the manifest. A "
        "change is told against the release before, of those for which there is a stream."
    )


def _columns(heads: Sequence[str], rows: Iterable[Sequence[Any]], indent: int = 2) -> str:
    """A table in plain text: heads called `>…` are numbers. A first column too wide for the line is cut."""
    cells = [[h.lstrip(">") for h in heads], *([printable(str(v)) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    widths[0] = max(4, min(widths[0], WIDTH - indent - sum(widths[1:]) - 2 * (len(heads) - 1)))
    lines = []
    for row in cells:
        first = row[0] if len(row[0]) <= widths[0] else row[0][: widths[0] - 3] + "..."
        shown = [
            v.rjust(w) if h.startswith(">") else v.ljust(w)
            for h, v, w in zip(heads, [first, *row[1:]], widths, strict=True)
        ]
        lines.append(" " * indent + "  ".join(shown).rstrip())
    return "\n".join(lines)


# -- charts ---------------------------------------------------------------------------------------------------------


def _charts(collection: Collection, found: Findings) -> dict[tuple[str, str], list[dict[str, str]]]:
    """For each history with a change: its changed flags by word, then the releases by pairs."""
    from vmstate_tools.charts import cpu_words, release_pairs

    cpu = collection.cpu
    model, machine = _named(cpu, "model").str.lower(), _named(cpu, "machine")
    charts: dict[tuple[str, str], list[dict[str, str]]] = {}
    for history in found.changed:
        rows = cpu[(model == history.model) & (machine == history.machine)]
        rows = rows.assign(release=_named(rows, "release"))
        drawn = charts[history.model, history.machine] = []
        for word in ("insns_flags", "insns_flags2"):
            if word in history.varying:
                url = _picture(cpu_words(rows, word, changed=True))
                drawn.append({"url": url, "text": f"{history.label}: flags of {word} that changed, by release"})
        if {"insns_flags", "insns_flags2"} & set(history.varying):
            text = f"{history.label}: number of flags that differ between two releases"
            drawn.append({"url": _picture(release_pairs(rows)), "text": text})
    return charts


def _picture(ax: Axes) -> str:
    """A chart as the data URL of an SVG; as an image it can do nothing but show."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    figure = ax.get_figure(root=True)
    assert figure is not None
    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "vmstate"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(out.getvalue()).decode()
