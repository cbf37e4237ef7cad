"""Where releases disagree on a CPU's words, by which commit, and what the check in the CPU section makes of it.

Of all that can stop a load, only the four words (`catalog.WORDS`) are looked at here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise

import pandas as pd

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, flags
from vmstate_tools.facts.flags import release_key

#: The first release whose CPU section checked the words (commit a90db1584a).
FIRST = "1.6.0"

Words = dict[str, int]


def releases(since: str = FIRST, until: str | None = None, machine: str | None = None) -> list[str]:
    """Every release x.y.0, and the stable ones that changed the CPU section, its masks or a family's words.

    Parameters
    ----------
    since, until : the first and the last; None: the newest.
    machine : only releases that have this machine type.
    """
    masks = {row["since"] for row in catalog.table("masks")}
    low, high = release_key(since), release_key(until) if until else (1 << 30,)
    found = []
    for row in catalog.table("releases"):
        release = row["release"]
        own = release in (row["families_as"], row["fields_as"]) or release in masks
        wanted = row["kind"] == "release" or (row["kind"] == "stable" and own)
        if (
            wanted
            and low <= release_key(release) <= high
            and (machine is None or catalog.has_machine(machine, release))
        ):
            found.append(release)
    return found


def running(cpu: str, release: str, accel: str | None = "tcg", machine: str | None = None) -> Words | None:
    """The words of a running CPU (`catalog.words`); None where the release has no such CPU.

    Raises
    ------
    CatalogError : unknown release or accelerator.
    """
    release = catalog.resolve(release)
    try:
        catalog.family(cpu, release)
    except CatalogError:
        return None
    return catalog.words(cpu, release, accel, machine)._asdict()


def servers(release: str) -> list[str]:
    """Families of 64-bit server CPUs, those a pseries machine takes: both PPC_64B and PPC_SEGMENT_64B are set."""
    need = flags.encode("insns_flags", ["PPC_64B", "PPC_SEGMENT_64B"])
    words = {name: catalog.words(name, release, None) for name in catalog.families(release)}
    return [name for name, found in words.items() if found.insns_flags & need == need]


def steps(
    accel: str | None = None,
    machine: str | None = None,
    since: str = FIRST,
    until: str | None = None,
    host: Iterable[str] = (),
) -> pd.DataFrame:
    """The release steps in which a strict check of the words breaks a CPU family.

    A family is followed by its models: one that moved to another family is compared with itself.

    Parameters
    ----------
    accel, machine : as for `catalog.words`; None, None: the classes' own words.
    since, until : first and last release, of those x.y.0.
    host : flags that both sides take from one and the same host, whatever the class says: under KVM with
        `-cpu host` those of `catalog.host_flags`. They are left out of the comparison.

    Returns
    -------
    a row per step and family: release (the first that differs), before, family, family_before, models (list),
    words (list of those that differ), added, removed (flag names), commits (list of {commit, date, subject}).
    """
    columns = [
        "release",
        "before",
        "family",
        "family_before",
        "models",
        "words",
        "added",
        "removed",
        "commits",
    ]
    names = [r for r in releases(since, until) if r.endswith(".0") and r.count(".") == 2]
    ignored = {word: flags.encode(word, [n for n in host if flags.describe(n).word == word]) for word in flags.WORDS}
    rows = []
    for old, new in pairwise(names):
        models: dict[tuple[str, str], list[str]] = {}
        before = {model.name.lower(): model for model in catalog.models(old)}
        for model in catalog.models(new):
            if model.name.lower() in before:
                models.setdefault((before[model.name.lower()].family, model.family), []).append(model.name)
        for (was, now), members in sorted(models.items()):
            a = _without(catalog.words(was, old, accel, machine)._asdict(), ignored)
            b = _without(catalog.words(now, new, accel, machine)._asdict(), ignored)
            if a == b:
                continue
            causes = catalog.causes(new, a, b, {was, now}, members if was != now else (), accel, machine)
            rows.append(
                (
                    new,
                    old,
                    now,
                    was,
                    members,
                    [word for word in catalog.WORDS if a[word] != b[word]],
                    [n for word in flags.WORDS for n in flags.decode(word, b[word] & ~a[word], new)],
                    [n for word in flags.WORDS for n in flags.decode(word, a[word] & ~b[word], old)],
                    catalog.commits_of(causes),
                )
            )
    return pd.DataFrame(rows, columns=columns)


def _without(words: Words, ignored: Words) -> Words:
    return {word: value & ~ignored.get(word, 0) for word, value in words.items()}


def classes(
    accel: str | None = "tcg",
    machine: str | None = None,
    cpus: Sequence[str] | None = None,
    since: str = FIRST,
    until: str | None = None,
    sent: bool = False,
) -> pd.DataFrame:
    """Which releases agree: families × releases, cells with equal numbers in a row stand for equal words.

    Parameters
    ----------
    cpus : families, models or aliases, the index; None: all families there ever were.
    sent : compare what a stream of `machine` carries instead of what the running CPU has.

    Returns
    -------
    frame of Int64, classes numbered from 0 in order of appearance; NA where the release lacks the CPU, the
    machine type or, with `sent`, sends no words.
    """
    names = releases(since, until, machine if sent else None)
    if cpus is None:
        cpus = sorted({family for release in names for family in catalog.families(release)}, key=str.lower)
    value: Callable[[str, str], Words | None]
    if sent:
        if machine is None:
            raise CatalogError("what a stream carries depends on the machine type: name one")
        value = lambda cpu, release: _sent(cpu, release, machine, accel or "tcg") or None  # noqa: E731
    else:
        value = lambda cpu, release: running(cpu, release, accel, machine)  # noqa: E731
    rows = []
    for cpu in cpus:
        seen: dict[tuple[int, ...], int] = {}
        row = []
        for release in names:
            words = value(cpu, release)
            row.append(None if words is None else seen.setdefault(tuple(words.values()), len(seen)))
        rows.append(row)
    return pd.DataFrame(rows, index=pd.Index(cpus, name="cpu"), columns=pd.Index(names, name="release"), dtype="Int64")


def _sent(cpu: str, release: str, machine: str, accel: str) -> Words | None:
    if running(cpu, release, accel, machine) is None:
        return None
    return catalog.stream_words(release, machine, cpu, accel)


@cache
def treatment(release: str, machine: str) -> dict[str, str]:
    """Word → how a CPU section of that release and machine type treats it (equal, plain …); only those it has."""
    frame = catalog.section_fields(release, machine)
    frame = frame[(frame["vmsd"] == "cpu") & frame["present"].eq(True)]
    words = frame["name"].str.rsplit(".", n=1).str[-1].str.removeprefix("mig_")
    return {word: how for word, how in zip(words, frame["treatment"], strict=True) if word in catalog.WORDS}


def pairs(
    machine: str, cpus: Sequence[str], accel: str = "tcg", since: str = FIRST, until: str | None = None
) -> pd.DataFrame:
    """Every pair of releases that have a machine type: would the words stop a load, and what did the fix change?

    Returns
    -------
    a row per CPU, source and destination: cpu, source, destination, direction (forward, backward, same);
    strict: whether the running CPUs' words are equal, so that a check without any fix would pass; shipped: what
    the releases as they are do with the words: `equal`, `differ` (checked; the load stops where they differ),
    `ignored` (read and dropped), `layout` (one side has the words in its CPU section, the other does not: the
    load stops), `not sent`; words: those that differ where checked; loads; effect of what was shipped:
    `as before`, `repaired`, `still refused`, `broken` (refused only because of it).
    """
    names = releases(since, until, machine)
    rows = []
    for cpu in cpus:
        own = {release: running(cpu, release, accel, machine) for release in names}
        sent = {release: _sent(cpu, release, machine, accel) for release in names}
        there = [release for release in names if own[release] is not None]
        for source in there:
            for destination in there:
                order = release_key(destination) > release_key(source)
                direction = "same" if source == destination else "forward" if order else "backward"
                shipped, words = _meet(sent[source] or {}, own[destination] or {}, treatment(destination, machine))
                strict, loads = own[source] == own[destination], shipped in ("equal", "ignored", "not sent")
                effect = ("broken", "as before") if strict else ("still refused", "repaired")
                rows.append((cpu, source, destination, direction, strict, shipped, words, loads, effect[loads]))
    return pd.DataFrame(
        rows,
        columns=["cpu", "source", "destination", "direction", "strict", "shipped", "words", "loads", "effect"],
    )


def meet(
    machine: str, cpu: str, source: str, destination: str, accel: str = "tcg", cpu_there: str | None = None
) -> tuple[str, list[str]]:
    """What a destination does with the words of a stream: `shipped` and `words` of `pairs`.

    Parameters
    ----------
    source, destination : releases; the nearest one before answers for one that is not catalogued.
    cpu_there : the destination's CPU, where it is another.

    Raises
    ------
    CatalogError : a release lacks the CPU.
    """
    source, destination = (catalog.resolve(release, nearest=True) for release in (source, destination))
    sent = catalog.stream_words(source, machine, cpu, accel)
    own = catalog.words(cpu_there or cpu, destination, accel, machine)._asdict()
    return _meet(sent, own, treatment(destination, machine))


def _meet(sent: Words, own: Words, treated: dict[str, str]) -> tuple[str, list[str]]:
    if sent.keys() != treated.keys():
        return "layout", []
    if not sent:
        return "not sent", []
    checked = [word for word, how in treated.items() if how == "equal"]
    if not checked:
        return "ignored", []
    differ = [word for word in checked if sent[word] != own[word]]
    return ("differ" if differ else "equal"), differ


def grid(found: pd.DataFrame, cpu: str) -> pd.DataFrame:
    """Sources × destinations of one CPU of `pairs`: `shipped`; neighbouring releases that behave alike are one.

    A checked word that differs is named; `(broken)`: a check without any fix would have passed.
    """
    one = found[found["cpu"] == cpu]
    cells = [
        (f"differ: {', '.join(words)}" if words else shipped) + (" (broken)" if effect == "broken" else "")
        for words, shipped, effect in zip(one["words"], one["shipped"], one["effect"], strict=True)
    ]
    order = list(dict.fromkeys(one["source"]))
    table = one.assign(cell=cells).pivot_table("cell", "source", "destination", aggfunc="first").loc[order, order]
    return _merged(_merged(table).T).T


def _merged(table: pd.DataFrame) -> pd.DataFrame:
    """Neighbouring rows that are equal become one, named by the first and the last."""
    runs: list[list[str]] = []
    for name in map(str, table.index):
        if runs and list(table.loc[name]) == list(table.loc[runs[-1][0]]):
            runs[-1].append(name)
        else:
            runs.append([name])
    merged = table.loc[[run[0] for run in runs]]
    merged.index = pd.Index(
        [run[0] if len(run) == 1 else f"{run[0]} … {run[-1]}" for run in runs], name=table.index.name
    )
    return merged


#: From whom a flag's instructions can be run on, the widest first.
WHO = ("program", "system", "hypervisor", "nobody")


def effects(found: pd.DataFrame) -> pd.DataFrame:
    """Who could notice the flags of `steps`: a row per step, family and flag.

    Returns
    -------
    release, family, flag, change (+ or −), tcg: who in a TCG guest can run what the flag allows (`program`: any
    program, `system`: the operating system, `hypervisor`: nobody in a pseries guest, `nobody`: it changes nothing
    that can be run); what: those instructions; kvm: what of it QEMU itself shows to a guest under KVM, where the host
    runs the instructions ("": nothing). NA where `data/catalog/effects.csv` does not say.
    """
    known = {row["name"]: row for row in catalog.table("effects")}
    rows = []
    for row in found.to_dict("records"):
        for change, names in (("+", row["added"]), ("−", row["removed"])):
            for name in names:
                about = next((known[part] for part in name.split("/") if part in known), {})
                rows.append(
                    (row["release"], row["family"], name, change, *(about.get(key) for key in ("tcg", "what", "kvm")))
                )
    frame = pd.DataFrame(rows, columns=["release", "family", "flag", "change", "tcg", "what", "kvm"])
    return frame.astype({"tcg": pd.CategoricalDtype(list(WHO), ordered=True)})
