"""Questions of 02-many-streams, which asks streams; the other way is the catalog, from QEMU's source."""

from __future__ import annotations

import csv
from itertools import pairwise
from typing import Any

import vmstate_tools as vt
from course import question, same
from vmstate_tools.data import data_path


def _sent(release: str, machine: str) -> dict[str, int]:
    return vt.catalog.stream_words(release, machine, "POWER7_v2.3")


@question("02-steps")
def _(answer: Any) -> bool | str:
    """A release counts if one of its four words is not what the stream of the release before it has."""
    with data_path("streams", "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if (r["machine"], r["config"]) == ("pseries-2.1", "")]
    releases = {r["release"] for r in rows if r["cpu"].lower() == "power7_v2.3"}
    order = sorted(releases, key=vt.flags.release_key)
    changed = {b for a, b in pairwise(order) if _sent(a, "pseries-2.1") != _sent(b, "pseries-2.1")}
    first = {r for r in order if _sent(r, "pseries-2.1") != _sent(order[0], "pseries-2.1")}
    return same(answer, changed, [(first, "Each with the one before it, not all with the first.")])


@question("02-back")
def _(answer: Any) -> bool | str:
    """Compare the words in their order; the flags are those that only one of the two has."""
    new, old = _sent("2.8.0", "pseries-2.6"), _sent("2.6.0", "pseries-2.6")
    word = next(word for word in old if old[word] != new[word])
    names = set(vt.flags.decode(word, old[word] ^ new[word]))
    got_word, got_names = answer
    right = same(got_names, names)
    return same(got_word.removeprefix("env."), word) and right


@question("02-other-reason")
def _(answer: Any) -> bool | str:
    """The column fail_field of that load, as section:field."""
    with data_path("outcomes", "load_matrix.csv").open(newline="", encoding="utf-8") as file:
        (row,) = [
            r
            for r in csv.DictReader(file)
            if (r["src_version"], r["dst_version"], r["machine"]) == ("2.8.0", "2.6.0", "pseries-2.6")
            and r["cpu_src"] == r["cpu_dst"] == "POWER8_v2.0"
            and r["config"] == r["dst_extra"] == ""
        ]
    where = row["fail_field"].partition("=")[0]
    wrong = [("cpu:env.insns_flags", "The words of POWER8 are equal in 2.6.0 and 2.8.0.")]
    return same(str(answer).partition("=")[0], where, wrong)
