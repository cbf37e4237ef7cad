"""Questions of 03-insns-flags-history, which asks `cpu_history`; here the words are compared release by release."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from course import question, same
from vmstate_tools.facts import catalog, flags


def _words(cpu: str) -> dict[str, catalog.Words]:
    """Returns release → the words of a CPU class, for the releases that have the class."""
    releases = sorted(
        (row["release"] for row in catalog.table("releases") if row["kind"] == "release"), key=flags.release_key
    )
    return {r: catalog.words(cpu, r, None) for r in releases if cpu in catalog.families(r)}


@question("03-power9")
def _(answer: Any) -> bool | str:
    """The row POWER9 of `classes`: a release counts if its number is not the one before it."""
    words = _words("POWER9")
    changed = {b for a, b in pairwise(words) if words[a] != words[b]}
    wrong = [(changed | {next(iter(words))}, "In its first release a family is new, and has not changed.")]
    return same(answer, changed, wrong)


@question("03-way-back")
def _(answer: Any) -> bool | str:
    """What a stream of pseries-2.6 carries must be what 2.6.0 has: `cpu_history.pairs`, as above."""
    cpu, machine = "POWER5+_v2.1", "pseries-2.6"
    own = catalog.stream_words("2.6.0", machine, cpu)
    releases = [row["release"] for row in catalog.table("releases") if row["kind"] == "release"]
    releases = sorted((r for r in releases if catalog.has_machine(machine, r)), key=flags.release_key)
    equal = [r for r in releases if catalog.stream_words(r, machine, cpu) == own]
    wrong = [(r, "From there it does, but also from a newer one.") for r in equal[:-1]]
    wrong += [(r, "What that release sends is not what 2.6.0 has.") for r in releases if r not in equal]
    return same(answer, equal[-1], wrong)


@question("03-commit")
def _(answer: Any) -> bool | str:
    """`cpu_history.steps()` has that release and family, with the subjects of its commits."""
    (bit,) = {int(row["value"], 16) for row in catalog.table("flags") if row["name"] == "PPC_POPCNTB"}
    rows = [
        row
        for row in catalog.table("changes")
        if (row["release"], row["kind"], row["item"], row["word"]) == ("7.0.0", "family", "POWER5P", "insns_flags")
    ]
    came = {row["commit"]: int(row["after"], 16) & ~int(row["before"], 16) & bit for row in rows}
    (commit,) = [c for c, flag in came.items() if flag]
    digits = answer.strip().lower()
    if any(c.startswith(digits) for c in came if c != commit and digits):
        return "That one brought another flag."
    return commit.startswith(digits) if len(digits) >= 10 else "Ten digits of it at least."
