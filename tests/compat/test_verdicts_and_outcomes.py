"""Verdicts against what real destinations did: data/outcomes/load_matrix.csv, row by row.

A row on which a verdict differs must stand in data/compat/explained.csv with the reason; one that stands there
without differing fails too.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections import defaultdict
from typing import NamedTuple

import captures as real
import pytest

import vmstate_tools as vt
from vmstate_tools.compat import Destination, Verdict, check
from vmstate_tools.data import data_path

SOURCES = ("reference", "dump", "catalog")
LEAST = {
    "here": {"reference": 100, "dump": 50, "catalog": 700},
    "collection": {"reference": 900, "dump": 1000, "catalog": 1000},
}

# What the destination says names the section it blames.
BLAME = re.compile(r"device '([^']+)'|section or instance '([^']+)'|for '([^']+)' v")


class Row(NamedTuple):
    arch: str
    machine: str
    cpu_dst: str
    dst_version: str
    config: str
    dst_extra: str
    loaded: bool
    stderr: str
    stream: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.stream, self.dst_version, self.cpu_dst, self.dst_extra

    @property
    def blamed(self) -> str | None:
        match = BLAME.search(self.stderr)
        return next((g for g in match.groups() if g), None) if match else None


def devices(arguments: str) -> list[tuple[str, str]]:
    """The options that make the sections and RAM blocks."""
    words = shlex.split(arguments)
    options = {"-device", "-m", "-smp", "-drive", "-global", "-nic", "-netdev", "-net", "-vga", "-object"}
    return sorted((w, words[i + 1]) for i, w in enumerate(words[:-1]) if w in options)


@pytest.fixture(scope="session")
def verdicts(captures):
    manifest = captures.manifest
    with data_path("outcomes", "load_matrix.csv").open(newline="") as file:
        rows = [
            Row(*(r[n] for n in Row._fields[:6]), r["vmstate_loaded"] == "True", r["stderr"], r["stream"])
            for r in csv.DictReader(file)
            if r["stream"] in manifest
        ]
    references = defaultdict(list)
    for name, r in manifest.items():
        if name.endswith(".mig.zst"):
            references[r["release"], r["arch"], r["machine"], r["cpu"]].append(name)

    def reference(row: Row) -> str | None:
        """A capture of the destination with the same machine, CPU, options and devices, run or not."""
        wanted = "htmoff" if row.dst_extra else ""
        for name in references[row.dst_version, row.arch, row.machine, row.cpu_dst]:
            config = manifest[name]["config"]
            same = re.sub("^ran-?", "", config) == re.sub("^ran-?|-?htmoff$", "", row.config) + (
                "-htmoff" if wanted and re.sub("^ran-?|-?htmoff$", "", row.config) else wanted
            )
            if same and devices(manifest[name]["arguments"]) == devices(manifest[row.stream]["arguments"]):
                return name
        return None

    made: dict[tuple, Destination | None] = {}

    def destination(source: str, row: Row) -> Destination | None:
        told = (row.dst_version, row.machine, row.cpu_dst or None, "tcg")
        options = dict([row.dst_extra.split("=")]) if row.dst_extra else {}
        options |= dict(re.findall(r"-global (migration\.[\w-]+)=(\w+)", manifest[row.stream]["arguments"]))
        if source == "reference":
            name = reference(row)
            if name is None:
                return None
            if (source, name) not in made:
                made[source, name] = Destination.from_stream(captures.path(name), *told, options)
            return made[source, name]
        key = (source, told, tuple(options.items()))
        if key not in made:
            made[key] = Destination(*told, options)
            if source == "dump":
                names = (
                    f"{row.dst_version}-{row.machine}.json.zst",
                    f"{row.dst_version}-{row.arch}-{row.machine}.json.zst",
                )
                found = [captures.dumps / n for n in names if (captures.dumps / n).exists()]
                made[key] = made[key].with_dump(found[0]) if found else None
        return made[key]

    by_stream = defaultdict(list)
    for row in rows:
        by_stream[row.stream].append(row)
    out: dict[str, list[tuple[Row, Verdict]]] = {source: [] for source in SOURCES}
    for name, group in by_stream.items():
        with vt.open(captures.path(name)) as stream:
            for row in group:
                for source in SOURCES:
                    to = destination(source, row)
                    if to is not None:
                        out[source].append((row, check(stream, to)))
    return out


@pytest.fixture(scope="session")
def explained():
    with data_path("compat", "explained.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        s: {(r["stream"], r["dst_version"], r["cpu_dst"], r["dst_extra"]) for r in rows if r["source"] == s}
        for s in SOURCES
    }


@pytest.mark.parametrize("source", SOURCES)
def test_loads_or_not(verdicts, captures, explained, source, record_property):
    pairs = verdicts[source]
    known = {key for key in explained[source] if key in {row.key for row, _ in pairs}}
    wrong = {row.key: f"{row.loaded=} {row.stderr[-120:]} :: {v.first}" for row, v in pairs if v.loads != row.loaded}
    record_property("agreement", f"{len(pairs) - len(wrong)}/{len(pairs)}")
    print(f"\n{source}: {len(pairs) - len(wrong)} of {len(pairs)} rows agree")
    assert len(pairs) > LEAST[captures.name][source]
    assert {k: w for k, w in wrong.items() if k not in known} == {}
    assert known <= wrong.keys(), "explained, but agrees"
    assert captures is real.HERE or known == explained[source]


@pytest.mark.parametrize("source", SOURCES)
def test_blames_the_section_that_the_destination_blames(verdicts, source):
    wrong = [
        (row.key, row.blamed, str(v.first))
        for row, v in verdicts[source]
        if not row.loaded and not v.loads and row.blamed and row.blamed != v.first.section
    ]
    assert wrong == []


def test_every_row_has_a_verdict(verdicts, captures):
    with data_path("outcomes", "load_matrix.csv").open(newline="") as file:
        rows = sum(row["stream"] in captures.manifest for row in csv.DictReader(file))
    assert len(verdicts["catalog"]) == rows >= {"here": 700, "collection": 2608}[captures.name]


def test_other_machines_and_releases(captures):
    """data/outcomes/more_loads.csv: ppc boards, x86 and Arm machines, into releases without a capture among them."""
    with data_path("outcomes", "more_loads.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["stream"] in captures.manifest]
    wrong, explained = set(), set()
    for row in rows:
        destination = Destination(row["dst_version"], row["machine"], row["cpu_dst"] or None, "tcg")
        if "cap-htm=off" in row["dst_extra"] or row["config"].endswith("htmoff"):
            destination.options["cap-htm"] = "off"
        if "minimal" in row["config"] or "no-" in row["config"]:
            continue  # the destination had options that the table does not tell
        key = (row["stream"], row["dst_version"])
        if row["not_predicted"]:
            explained.add(key)
        if check(captures.path(row["stream"]), destination).loads != (row["vmstate_loaded"] == "True"):
            wrong.add(key)
    assert wrong == explained
    assert len(rows) > {"here": 20, "collection": 400}[captures.name]
