"""Which release would load which of a set of streams, and what stops the others."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from vmstate_tools.analysis.outcomes import recorded
from vmstate_tools.compat import Destination, Verdict, check
from vmstate_tools.compat.policy import POLICIES
from vmstate_tools.compat.verdict import Obstacle
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.facts.flags import release_key
from vmstate_tools.frames.collection import Collection
from vmstate_tools.show.letters import letters
from vmstate_tools.show.reports.cpu_words import named
from vmstate_tools.stream.stream import open_stream

# Streams that agree in these have the same configuration: the writer of one is a destination for the others.
_SAME = ("arch", "machine", "cpu", "config")


@dataclass(frozen=True)
class Pair:
    """A stream and a release to load it into, with the verdict. `cpu` is in lower case.

    `reference` is the stream that shows what the destination expects, None where only the catalog does. `real` says
    whether such a QEMU loaded this very stream, None where `data/outcomes` does not know. `under` has the verdict
    under each policy, where a word is the first obstacle.
    """

    file: str
    source: str
    destination: str
    machine: str
    cpu: str
    config: str
    verdict: Verdict
    reference: str | None = None
    real: bool | None = None
    under: Mapping[str, Verdict] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Returns the configuration in words: `CPU on machine type (config)`."""
        return f"{self.cpu or 'default CPU'} on {self.machine}" + (f" ({self.config})" if self.config else "")


@dataclass
class Case:
    """The pairs that are stopped by one obstacle with the same values on both sides."""

    obstacle: Obstacle
    pairs: list[Pair] = field(default_factory=list)


@dataclass
class Cause:
    """A field, section or rule that stops loads; `letter` stands for it in the tables."""

    letter: str
    what: str
    cases: list[Case]

    @property
    def pairs(self) -> list[Pair]:
        return [pair for case in self.cases for pair in case.pairs]


def pairs(collection: Collection, to: Sequence[str] = (), progress: bool | None = None) -> list[Pair]:
    """Returns every stream paired with each release that wrote another of its configuration, and with each of `to`.

    Only streams whose release the manifest names are paired with others; a release is not paired with itself. Where
    several streams of one release have the same configuration, only the first is taken. Raises StreamError.
    """
    streams = collection.streams
    names = {name: named(streams, name, "") for name in ("file", "release", *_SAME)}
    table = pd.DataFrame(names).assign(cpu=lambda frame: frame["cpu"].str.lower())
    jobs = [group.drop_duplicates("release") for _, group in table.groupby(list(_SAME), sort=True)]
    found = []
    for group in tqdm(jobs, desc="pairs of releases", unit="group", leave=False, disable=progress is False):
        if to or (len(group) > 1 and group["release"].ne("").any()):
            found += list(_of_group(group, to))
    return found


def _of_group(group: pd.DataFrame, to: Sequence[str]) -> Iterator[Pair]:
    """Yields the pairs of the streams of one configuration."""
    rows: list[Any] = sorted(group.itertuples(index=False), key=lambda row: release_key(row.release or "0"))
    with contextlib.ExitStack() as stack:
        streams = {row.file: stack.enter_context(open_stream(row.file)) for row in rows}
        known: dict[str, tuple[Destination, str | None]] = {}
        for release in to:
            known[release] = Destination(release, rows[0].machine or None, rows[0].cpu or None), None
        for row in rows if any(row.release for row in rows) else ():
            if row.release:
                own = Destination.from_stream(streams[row.file], row.release, row.machine or None, row.cpu or None)
                known[row.release] = own, row.file
        for row in rows:
            for release in sorted(known, key=release_key):
                destination, reference = known[release]
                if release == row.release:
                    continue
                real = _outcomes().get((row.file.rpartition("streams/")[2], release, row.cpu))
                verdict = check(streams[row.file], destination)
                stuck = verdict.first is not None and about_words(verdict.first)
                under = {name: check(streams[row.file], destination, name) for name in POLICIES if stuck}
                who = row.machine, row.cpu, row.config
                yield Pair(row.file, row.release, release, *who, verdict, reference, real, under)


def about_words(obstacle: Obstacle) -> bool:
    """Returns whether the obstacle is the value of one of the CPU's sanity-check words, not its presence."""
    return obstacle.section == "cpu" and obstacle.field in WORD_OF_FIELD and obstacle.stage in ("F", "H")


@functools.cache
def _outcomes() -> dict[tuple[str, str, str], bool]:
    """Returns (file of the bundled streams, release, CPU) → whether such a QEMU loaded it."""
    rows = recorded()
    rows = rows[rows["dst_extra"].eq("") | rows["config"].str.endswith("htmoff")]
    keys = zip(rows["stream"], rows["dst_version"], rows["cpu_dst"].str.lower(), strict=True)
    return dict(zip(keys, rows["loads"], strict=True))


def causes(found: Sequence[Pair]) -> list[Cause]:
    """Returns what stops the refused pairs, each pair under its first obstacle; what stops most comes first."""
    kinds: dict[str, dict[tuple[Any, ...], Case]] = {}
    for pair in found:
        first = pair.verdict.first
        if first is not None:
            key = (first.message, repr(first.stream_value), repr(first.destination_value))
            cases = kinds.setdefault(what(first), {})
            cases.setdefault(key, Case(first)).pairs.append(pair)
    order = sorted(kinds.items(), key=lambda item: (-sum(len(c.pairs) for c in item[1].values()), item[0]))
    return [Cause(letters(i), name, list(cases.values())) for i, (name, cases) in enumerate(order)]


def what(obstacle: Obstacle) -> str:
    """Returns the cause in a few words: what is looked at, and what is wrong with it."""
    if obstacle.section is None:
        return obstacle.kind if obstacle.field is None else f"{obstacle.field}: {obstacle.kind}"
    place = obstacle.section if obstacle.field in (None, obstacle.section) else f"{obstacle.section} {obstacle.field}"
    return f"{place}: {obstacle.kind}"


def grids(found: Sequence[Pair], named: Sequence[Cause]) -> dict[str, pd.DataFrame]:
    """Returns a frame of texts for each configuration: rows are releases that wrote, columns releases that would read.

    A cell is '.' where the stream loads, else the letter of the cause, and '' where there is no such pair.
    """
    stopped = {(pair.file, pair.destination): cause.letter for cause in named for pair in cause.pairs}
    tables: dict[str, pd.DataFrame] = {}
    for group in dict.fromkeys(pair.group for pair in found):
        mine = [pair for pair in found if pair.group == group]
        rows = dict.fromkeys(pair.source or "not said" for pair in mine)
        columns = sorted({pair.destination for pair in mine}, key=release_key)
        table = pd.DataFrame("", index=list(rows), columns=columns)
        for pair in mine:
            table.loc[pair.source or "not said", pair.destination] = stopped.get((pair.file, pair.destination), ".")
        tables[group] = table
    return tables
