"""The facts of a report on a set of streams, before they are put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vmstate_tools.frames.collection import Collection
from vmstate_tools.show.reports.cpu_words import WordHistory, histories, named, order
from vmstate_tools.show.reports.options import Option, options
from vmstate_tools.show.reports.pairs import Cause, Pair, causes, pairs


@dataclass
class Findings:
    """Everything that a report on a set of streams says, as numbers and names."""

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
    """Returns the facts of a report; `to` names further releases to check each stream against."""
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
    """Returns a row for each release that wrote some of the streams, in the order of releases."""
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
