"""Where releases disagree on a CPU's words, by which commit, and what the check in the CPU section makes of it.

Of all that can stop a load, only the four words (`catalog.WORDS`) are looked at here. Everything is asked of the
catalog; no stream is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise, product

import pandas as pd

from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, flags
from vmstate_tools.facts.cpu_section import treatments
from vmstate_tools.release import Release

#: The first release whose CPU section checked the words (commit a90db1584a).
FIRST = "1.6.0"

Words = dict[str, int]


def releases(since: str = FIRST, until: str | None = None, machine: str | None = None) -> list[str]:
    """Returns every release x.y.0, and the stable ones that changed the CPU section, its masks or a family's words.

    Parameters
    ----------
    since, until : the first and the last; None: the newest.
    machine : only releases that have this machine type.
    """
    masks = {row["since"] for row in catalog.table("masks")}
    found = []
    for row in catalog.table("releases"):
        release = row["release"]
        changed = release in (row["families_as"], row["fields_as"]) or release in masks
        wanted = row["kind"] == "release" or (row["kind"] == "stable" and changed)
        if wanted and Release(release).within(since, until):
            found.append(release)
    return [release for release in found if machine is None or catalog.has_machine(machine, release)]


def running(cpu: str, release: str, accel: str | None = "tcg", machine: str | None = None) -> Words | None:
    """Returns the words of a running CPU (`catalog.words`); None where the release has no such CPU.

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
    """Returns the families of 64-bit server CPUs, which pseries machines take: PPC_64B and PPC_SEGMENT_64B are set."""
    need = flags.encode("insns_flags", ["PPC_64B", "PPC_SEGMENT_64B"])
    words = {name: catalog.words(name, release, None) for name in catalog.families(release)}
    return [name for name, found in words.items() if found.insns_flags & need == need]


_STEPS = ["release", "before", "family", "family_before", "models", "words", "added", "removed", "commits"]


def steps(
    accel: str | None = None,
    machine: str | None = None,
    since: str = FIRST,
    until: str | None = None,
    host: Iterable[str] = (),
) -> pd.DataFrame:
    """Returns the steps from release to release in which a strict check of the words breaks a CPU family.

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
    names = [r for r in releases(since, until) if Release(r).numbers[2:] == (0,)]
    ignored = {word: flags.encode(word, [n for n in host if flags.describe(n).word == word]) for word in flags.WORDS}
    rows = []
    for old, new in pairwise(names):
        for (was, now), models in sorted(_moves(old, new).items()):
            a = _without(catalog.words(was, old, accel, machine)._asdict(), ignored)
            b = _without(catalog.words(now, new, accel, machine)._asdict(), ignored)
            if a != b:
                causes = catalog.causes(new, a, b, {was, now}, models if was != now else (), accel, machine)
                differing = [word for word in catalog.WORDS if a[word] != b[word]]
                changed = _names(b, a, new), _names(a, b, old), catalog.commits_of(causes)
                rows.append((new, old, now, was, models, differing, *changed))
    return pd.DataFrame(rows, columns=_STEPS)


def _moves(old: str, new: str) -> dict[tuple[str, str], list[str]]:
    """Returns the models that both releases have, by the family they are of in the old one and in the new."""
    before = {model.name.lower(): model for model in catalog.models(old)}
    found: dict[tuple[str, str], list[str]] = {}
    for model in catalog.models(new):
        if model.name.lower() in before:
            found.setdefault((before[model.name.lower()].family, model.family), []).append(model.name)
    return found


def _names(words: Words, others: Words, release: str) -> list[str]:
    """Returns the names of the flags that only the first words have."""
    return [n for word in flags.WORDS for n in flags.decode(word, words[word] & ~others[word], release)]


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
    """Returns which releases agree: families × releases; in a row, equal numbers stand for equal words.

    Parameters
    ----------
    cpus : families, models or aliases, the index; None: all families there ever were.
    sent : compare what a stream of `machine` carries instead of what the running CPU has.

    Returns
    -------
    frame of Int64, classes numbered from 0 in order of appearance; NA where the release lacks the CPU, the
    machine type or, with `sent`, sends no words.

    Raises
    ------
    CatalogError : `sent` without `machine`, unknown release or accelerator.
    """
    names = releases(since, until, machine if sent else None)
    if cpus is None:
        cpus = sorted({family for release in names for family in catalog.families(release)}, key=str.lower)
    if not sent:
        rows = [_numbered(running(cpu, release, accel, machine) for release in names) for cpu in cpus]
    elif machine is None:
        raise CatalogError("what a stream carries depends on the machine type: name one")
    else:
        rows = [_numbered(_sent(cpu, release, machine, accel or "tcg") or None for release in names) for cpu in cpus]
    return pd.DataFrame(rows, index=pd.Index(cpus, name="cpu"), columns=pd.Index(names, name="release"), dtype="Int64")


def _numbered(found: Iterable[Words | None]) -> list[int | None]:
    """Returns the same number for the same words."""
    seen: dict[tuple[int, ...], int] = {}
    return [None if words is None else seen.setdefault(tuple(words.values()), len(seen)) for words in found]


def _sent(cpu: str, release: str, machine: str, accel: str) -> Words | None:
    if running(cpu, release, accel, machine) is None:
        return None
    return catalog.stream_words(release, machine, cpu, accel)


def pairs(
    machine: str, cpus: Sequence[str], accel: str = "tcg", since: str = FIRST, until: str | None = None
) -> pd.DataFrame:
    """Returns every pair of releases with a machine type: would the words stop a load, and what did the fix change?

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
        for source, destination in product(there, repeat=2):
            treated = treatments(destination, machine)
            shipped, words = _meet(sent[source] or {}, own[destination] or {}, treated)
            strict, loads = own[source] == own[destination], shipped in ("equal", "ignored", "not sent")
            effect = ("broken", "as before") if strict else ("still refused", "repaired")
            way = direction(source, destination)
            rows.append((cpu, source, destination, way, strict, shipped, words, loads, effect[loads]))
    columns = ["cpu", "source", "destination", "direction", "strict", "shipped", "words", "loads", "effect"]
    return pd.DataFrame(rows, columns=columns)


@cache
def direction(source: str, destination: str) -> str:
    """Returns `forward` for a move to a newer release, `backward` for one to an older, else `same`."""
    one, other = Release(source), Release(destination)
    return "same" if one == other else "forward" if one < other else "backward"


def meet(
    machine: str, cpu: str, source: str, destination: str, accel: str = "tcg", cpu_there: str | None = None
) -> tuple[str, list[str]]:
    """Returns what a destination does with the words of a stream: `shipped` and `words` as in `pairs`.

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
    return _meet(sent, own, treatments(destination, machine))


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
    """Returns `shipped` of one CPU of `pairs`, sources × destinations; neighbouring releases that behave alike are one.

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
    """Returns a table in which neighbouring rows that are equal are one, named by the first and the last."""
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
    """Returns who could notice the flags of `steps`: a row per step, family and flag.

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
