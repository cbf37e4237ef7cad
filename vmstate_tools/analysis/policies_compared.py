"""What each way of treating the CPU's words does to every pair of releases, and who is hurt by it.

Only the words are looked at (`catalog.WORDS`), as the catalog has them for each release: no stream is needed, and so
KVM and every CPU can be asked. `vt.matrix` asks the same of whole streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import pandas as pd

from vmstate_tools.analysis import cpu_history
from vmstate_tools.compat import POLICIES, Policy
from vmstate_tools.compat.policy import Context, Equal, named, noticed
from vmstate_tools.facts import catalog, flags
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import FieldDescription

#: The first release with the fix that was shipped (commit 16a2497bd4): older ones compare, and no fix reaches them.
FIXED = "2.7.1"

#: What a policy makes of a pair, against releases that all compare → what that means.
EFFECTS = {
    "as before": "loads, as with a check in every release",
    "repaired": "loads only with the policy, and the guest finds all that it could notice",
    "let through": "loads only with the policy, but the destination lacks a flag that the guest could notice",
    "refused, rightly": "refused, and the destination lacks a flag that the guest could notice",
    "refused, needlessly": "refused, though the destination lacks nothing that the guest could notice",
    "broken": "refused only because of the policy",
}

Words = Mapping[str, int]


_PAIRS = ["cpu", "accel", "policy", "source", "destination", "direction", "loads", "stopped_by", "lacks", "effect"]


def pairs(
    machine: str,
    cpus: Sequence[str],
    policy: Policy | str,
    accel: str = "tcg",
    since: str | None = FIXED,
    target_ulong: int = 8,
    releases: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Returns every pair of releases with a machine type: do the words stop the load, would the guest miss anything?

    Parameters
    ----------
    machine, cpus : machine type and CPU models of both sides.
    policy : a `Policy` or its name.
    accel : of both sides, "tcg" or "kvm".
    since : the first release that follows the policy; older ones compare every word (see `compat.policy.Equal`).
        None: all follow it.
    target_ulong : bytes, 4 for qemu-system-ppc, whose words are taken to be those of qemu-system-ppc64.
    releases : only these; None: those of `cpu_history.releases`.

    Returns
    -------
    a row per CPU, source and destination: cpu, accel, policy, source, destination, direction (forward, backward, same);
    loads; stopped_by: the words that stop it (list), `length` where the destination reads another number of bytes;
    lacks: flags that the source's CPU has, the destination's has not, and the guest could notice
    (`compat.policy.noticed`; list); effect: a key of `EFFECTS`.

    Raises
    ------
    KeyError : there is no policy of that name.
    CatalogError : unknown release or accelerator.
    """
    rule = named(policy)
    assert rule is not None
    wanted = cpu_history.releases(machine=machine) if releases is None else list(releases)
    visible = {w: noticed(w, accel, hypervisor=not machine.startswith("pseries")) for w in flags.WORDS}
    scene = _Scene(rule, accel, machine, since, target_ulong)
    rows = []
    for cpu in cpus:
        sides = {release: side for release in wanted if (side := scene.side(cpu, release)) is not None}
        for (source, one), (destination, other) in product(sides.items(), repeat=2):
            stopped_by = scene.stopping(one, other)
            lacks = _lacking(one.has, other.has, visible)
            loads = not stopped_by
            effect = _effect(loads, one.own == other.own, bool(lacks))
            way = cpu_history.direction(source, destination)
            rows.append((cpu, accel, rule.name, source, destination, way, loads, stopped_by, lacks, effect))
    return pd.DataFrame(rows, columns=_PAIRS).astype({"effect": pd.CategoricalDtype(list(EFFECTS))})


@dataclass
class _Side:
    """A release with a CPU: what follows from it alone.

    Attributes
    ----------
    own, has, sent : the CPU's words as the release gives them, as the policy has them, and as a stream carries them.
    short : it reads another number of bytes than a stream has.
    """

    policy: Policy
    context: Callable[[str, int], Context]
    pvr: int
    own: Words
    has: Words
    sent: Words
    short: bool


@dataclass
class _Scene:
    """What all pairs have in common: the policy and the first release that follows it, accelerator and machine type."""

    rule: Policy
    accel: str
    machine: str
    since: str | None
    target_ulong: int

    @cached_property
    def fields(self) -> dict[str, FieldDescription]:
        """Returns the field of each word as 1.6 to 2.7.0 describe it (target-ppc/machine.c: `vmstate_ppc_cpu`)."""
        sizes = {word: {"msr_mask": self.target_ulong, "nb_BATs": 4}.get(word, 8) for word in catalog.WORDS}
        return {word: FieldDescription(f"env.{word}", f"uint{8 * size} equal", size) for word, size in sizes.items()}

    def side(self, cpu: str, release: str) -> _Side | None:
        """Returns what follows from a release and a CPU, None where the release has no such CPU."""
        own = cpu_history.running(cpu, release, self.accel, self.machine)
        if own is None:
            return None
        follows = self.since is None or Release(release) >= Release(self.since)
        policy = self.rule if follows else Equal()
        pvr = catalog.model(cpu, release).pvr

        @cache
        def context(word: str, stream_pvr: int) -> Context:
            here = release, self.machine, self.accel, pvr
            return Context(word, f"env.{word}", *here, stream_pvr, self.target_ulong)

        has = {word: policy.has(word, value, pvr, context(word, pvr)) for word, value in own.items()}
        sent = {word: policy.on_the_way_out(word, value) for word, value in has.items()}
        short = any(policy.size_of(f, context(word, pvr)) != f.size for word, f in self.fields.items())
        return _Side(policy, context, pvr, own, has, sent, short)

    def stopping(self, source: _Side, destination: _Side) -> list[str]:
        """Returns what stops the load: words, or `length` where the destination reads another number of bytes."""
        if destination.short:
            return ["length"]
        check, context = destination.policy.check, destination.context
        return [
            word
            for word, field in self.fields.items()
            if check(field, source.sent[word], destination.has[word], context(word, source.pvr)) is not None
        ]


def _lacking(source: Words, destination: Words, visible: Words) -> list[str]:
    """Returns the flags among the visible ones that only the source has."""
    missing = {word: source[word] & ~destination[word] & seen for word, seen in visible.items()}
    return [name for word, bits in missing.items() if bits for name in _names(word, bits)]


@cache
def _names(word: str, bits: int) -> list[str]:
    return flags.decode(word, bits)


def _effect(loads: bool, same: bool, lacks: bool) -> str:
    """Returns the effect; `same`: both CPUs have the same words, so that the load passes without a policy."""
    if same:
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
    """Returns the policies side by side: how many pairs of releases each effect has.

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
    """Returns the effect of each pair, sources × destinations; `cpu` chooses one where there are several."""
    one = found if cpu is None else found[found["cpu"] == cpu]
    order = sorted({*one["source"], *one["destination"]}, key=Release)
    cells = one.astype({"effect": object}).pivot_table("effect", "source", "destination", aggfunc="first")
    return cells.reindex(index=order, columns=order)
