"""What each way of treating the CPU's words does to every pair of releases, and who is hurt by it.

Only the words are looked at (`catalog.WORDS`), as the catalog has them for each release: no stream is needed, and so
KVM and every CPU can be asked. `vt.matrix` asks the same of whole streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import pandas as pd

from vmstate_tools.analysis import cpu_history as breaks
from vmstate_tools.compat import POLICIES, Policy
from vmstate_tools.compat.policy import Context, Equal, named, noticed
from vmstate_tools.facts import catalog, flags
from vmstate_tools.facts.flags import release_key
from vmstate_tools.vmstate.description import FieldDescription

#: The first release with the fix that was shipped (commit 16a2497bd4): those before compare, and no fix reaches them.
FIXED = "2.7.1"

#: What a policy makes of a pair, against releases that all compare.
EFFECTS = {
    "as before": "loads, as with a check in every release",
    "repaired": "loads only with the policy, and the guest finds all that it could notice",
    "let through": "loads only with the policy, but the destination lacks a flag that the guest could notice",
    "refused, rightly": "refused, and the destination lacks a flag that the guest could notice",
    "refused, needlessly": "refused, though the destination lacks nothing that the guest could notice",
    "broken": "refused only because of the policy",
}

Words = Mapping[str, int]


def pairs(
    machine: str,
    cpus: Sequence[str],
    policy: Policy | str,
    accel: str = "tcg",
    since: str | None = FIXED,
    target_ulong: int = 8,
    releases: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Every pair of releases that have a machine type: do the words stop the load, and would the guest miss anything?

    Parameters
    ----------
    machine, cpus : machine type and CPU models of both sides.
    policy : a `Policy` or its name.
    accel : of both sides, "tcg" or "kvm".
    since : the first release that follows the policy, those before compare every word (see `compat.policy.Equal`);
        None: all do.
    target_ulong : bytes, 4 for qemu-system-ppc, whose words are taken to be those of qemu-system-ppc64.
    releases : only these; None: those of `breaks.releases`.

    Returns
    -------
    a row per CPU, source and destination: cpu, accel, policy, source, destination, direction (forward, backward, same);
    loads; stopped_by: the words that stop it (list), `length` where the destination reads another number of bytes;
    lacks: flags that the source's CPU has, the destination's has not, and the guest could notice
    (`compat.policy.noticed`; list); effect: a key of `EFFECTS`.
    """
    rule = named(policy)
    assert rule is not None
    wanted = breaks.releases(machine=machine) if releases is None else list(releases)
    visible = {w: noticed(w, accel, hypervisor=not machine.startswith("pseries")) for w in flags.WORDS}
    fields = {word: _field(word, target_ulong) for word in catalog.WORDS}
    rows = []
    for cpu in cpus:
        sides = {r: side for r in wanted if (side := _side(rule, cpu, r, accel, machine, since, target_ulong))}
        for (source, one), (destination, other) in product(sides.items(), repeat=2):
            stopped_by = ["length"] if other.short else []
            for word, field in fields.items() if not stopped_by else ():
                if other.policy.check(field, one.sent[word], other.has[word], other.context(word, one.pvr)) is not None:
                    stopped_by.append(word)
            missing = {w: one.has[w] & ~other.has[w] & seen for w, seen in visible.items()}
            lacks = [name for w, bits in missing.items() if bits for name in _names(w, bits)]
            loads = not stopped_by
            effect = _effect(loads, one.own == other.own, bool(lacks))
            direction = _direction(source, destination)
            rows.append((cpu, accel, rule.name, source, destination, direction, loads, stopped_by, lacks, effect))
    names = ["cpu", "accel", "policy", "source", "destination", "direction", "loads", "stopped_by", "lacks", "effect"]
    return pd.DataFrame(rows, columns=names).astype({"effect": pd.CategoricalDtype(list(EFFECTS))})


@dataclass
class _Side:
    """One release with one CPU: what follows from it alone. `short`: it reads another number of bytes."""

    policy: Policy
    context: Callable[[str, int], Context]
    pvr: int
    own: Words
    has: Words
    sent: Words
    short: bool


def _side(
    rule: Policy, cpu: str, release: str, accel: str, machine: str, since: str | None, target_ulong: int
) -> _Side | None:
    own = breaks.running(cpu, release, accel, machine)
    if own is None:
        return None
    policy = rule if since is None or release_key(release) >= release_key(since) else Equal()
    pvr = catalog.model(cpu, release).pvr

    @cache
    def context(word: str, stream_pvr: int) -> Context:
        return Context(word, f"env.{word}", release, machine, accel, pvr, stream_pvr, target_ulong)

    has = {word: policy.has(word, value, pvr, context(word, pvr)) for word, value in own.items()}
    sent = {word: policy.on_the_way_out(word, value) for word, value in has.items()}
    fields = {word: _field(word, target_ulong) for word in own}
    short = any(policy.size_of(f, context(word, pvr)) != f.size for word, f in fields.items())
    return _Side(policy, context, pvr, own, has, sent, short)


@cache
def _names(word: str, bits: int) -> list[str]:
    return flags.decode(word, bits)


def _field(word: str, target_ulong: int) -> FieldDescription:
    """The field of a word as 1.6 to 2.7.0 describe it (target-ppc/machine.c: `vmstate_ppc_cpu`)."""
    size = {"msr_mask": target_ulong, "nb_BATs": 4}.get(word, 8)
    return FieldDescription(f"env.{word}", f"uint{8 * size} equal", size)


@cache
def _direction(source: str, destination: str) -> str:
    one, other = release_key(source), release_key(destination)
    return "same" if one == other else "forward" if one < other else "backward"


def _effect(loads: bool, before: bool, lacks: bool) -> str:
    if before:
        return "as before" if loads else "broken"
    if loads:
        return "let through" if lacks else "repaired"
    return "refused, rightly" if lacks else "refused, needlessly"


def compare(
    machine: str,
    cpus: Sequence[str],
    policies: Iterable[Policy | str] = tuple(POLICIES),
    accels: Sequence[str] = ("tcg", "kvm"),
    since: str | None = FIXED,
    target_ulong: int = 8,
    releases: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The policies side by side: how many pairs of releases each effect has.

    Returns
    -------
    a row per policy, accelerator and direction (forward, backward): the keys of `EFFECTS` as columns, and hurt: the
    CPUs with a pair that is let through, refused needlessly or broken (list).
    """
    found = pd.concat(
        [pairs(machine, cpus, p, a, since, target_ulong, releases) for p, a in product(policies, accels)],
        ignore_index=True,
    )
    found = found[found["direction"] != "same"]
    by = ["policy", "accel", "direction"]
    counts = pd.DataFrame(
        {effect: (found["effect"] == effect).groupby([found[c] for c in by], sort=False).sum() for effect in EFFECTS}
    )
    bad = found[found["effect"].isin(["let through", "refused, needlessly", "broken"])]
    hurt = bad.groupby(by, sort=False)["cpu"].agg(lambda cpus: list(dict.fromkeys(cpus)))
    counts["hurt"] = [hurt.get(key, []) for key in counts.index]
    return counts


def table(found: pd.DataFrame, cpu: str | None = None) -> pd.DataFrame:
    """Sources × destinations of `pairs`, in cells the effect; of one CPU, where there are several."""
    one = found if cpu is None else found[found["cpu"] == cpu]
    order = sorted({*one["source"], *one["destination"]}, key=release_key)
    cells = one.astype({"effect": object}).pivot_table("effect", "source", "destination", aggfunc="first")
    return cells.reindex(index=order, columns=order)
