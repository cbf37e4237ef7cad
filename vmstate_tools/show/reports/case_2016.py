"""The facts of a known case: in September 2016 pseries guests did not migrate between QEMU 2.6 and 2.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from vmstate_tools.analysis import cpu_history, policies_compared
from vmstate_tools.analysis.outcomes import recorded
from vmstate_tools.compat.policy import POLICIES
from vmstate_tools.data import data_path
from vmstate_tools.facts import catalog, flags
from vmstate_tools.show.reports.options import SAYS

MACHINE = "pseries-2.6"
OLD, NEW, FIXED = "2.6.0", "2.7.0", policies_compared.FIXED
ACCELERATORS = ("tcg", "kvm")

# A fix in FIXED can change what is loaded into FIXED and what FIXED sends, but nothing between OLD and NEW.
ROUTES = ((OLD, FIXED), (NEW, FIXED), (FIXED, OLD), (FIXED, NEW))


@dataclass
class Facts:
    """Facts are what is known of the case, before it is put into words.

    cpus : family → one CPU model of it. The families of servers that both releases have, the model listed last.
    steps : accelerator → `cpu_history.steps` from OLD to NEW.
    words : family → release → word → value, under TCG.
    real : real loads between OLD and NEW, a row for each direction and CPU: source, destination, cpu, loads, refused,
        stopped_at.
    earlier : the steps before NEW after which a comparison of the words fails, under TCG.
    effects : `cpu_history.effects` of the steps.
    options : `policies_compared.pairs` of every policy and accelerator, over OLD, NEW and a FIXED that follows the
        policy.
    shipped : real loads of streams from releases that compare the words into releases that ignore them, a row for each
        message: message ('' where it loaded), in_cpu, loads.
    unused : real loads of what a NEW with the words declared unused wrote: cpu, dst_version, loads, fail_field.
    """

    cpus: dict[str, str]
    steps: dict[str, pd.DataFrame]
    words: dict[str, dict[str, dict[str, int]]]
    real: pd.DataFrame
    earlier: pd.DataFrame
    effects: pd.DataFrame
    options: pd.DataFrame
    shipped: pd.DataFrame
    unused: pd.DataFrame

    @property
    def broken(self) -> list[str]:
        """Returns the families of pseries machines whose words differ between OLD and NEW."""
        return list(dict.fromkeys(f for steps in self.steps.values() for f in steps["family"] if f in self.cpus))

    @property
    def commits(self) -> list[str]:
        """Returns the hashes of the commits that changed the words, oldest first."""
        found = [c for steps in self.steps.values() for row in steps["commits"] for c in row]
        return list(dict.fromkeys(c["commit"] for c in sorted(found, key=lambda c: c["date"])))

    @property
    def says(self) -> dict[str, str]:
        """Returns policy → what it does, in one sentence."""
        return {name: SAYS[name] for name in POLICIES}


def facts() -> Facts:
    """Returns the facts of the case, read from `data/catalog` and `data/outcomes`."""
    servers = [family for family in cpu_history.servers(OLD) if family in cpu_history.servers(NEW)]
    cpus = {family: [m.name for m in catalog.models(OLD) if m.family == family][-1] for family in servers}
    steps = {}
    for accel in ACCELERATORS:
        found = cpu_history.steps(accel, "pseries", since=OLD, until=NEW)
        steps[accel] = found[found["family"].isin(servers)].reset_index(drop=True)
    earlier = cpu_history.steps("tcg", "pseries", until=OLD)
    return Facts(
        cpus=cpus,
        steps=steps,
        words={
            f: {r: catalog.words(f, r, "tcg", "pseries")._asdict() for r in (OLD, NEW)} for f in steps["tcg"]["family"]
        },
        real=_real(),
        earlier=earlier[earlier["family"].isin(servers)].reset_index(drop=True),
        effects=cpu_history.effects(steps["tcg"]),
        options=pd.concat(
            [
                policies_compared.pairs(MACHINE, list(cpus.values()), policy, accel, releases=[OLD, NEW, FIXED])
                for policy in POLICIES
                for accel in ACCELERATORS
            ],
            ignore_index=True,
        ),
        shipped=_shipped(),
        unused=pd.read_csv(data_path("outcomes", "unused", "back.csv")),
    )


def _loads() -> pd.DataFrame:
    """Returns the real loads of pseries streams into the same CPU model, with nothing else changed there."""
    rows = recorded()
    same = rows["cpu_src"].str.lower() == rows["cpu_dst"].str.lower()
    return rows[same & rows["machine"].str.startswith("pseries") & rows["dst_extra"].eq("")]


def _real() -> pd.DataFrame:
    """Returns the real loads between OLD and NEW, counted by direction and CPU."""
    rows = _loads()
    rows = rows[rows["src_version"].isin([OLD, NEW]) & rows["dst_version"].isin([OLD, NEW])]
    rows = rows[rows["src_version"] != rows["dst_version"]]
    rows = rows.assign(stopped_at=rows["fail_field"].str.partition("=")[0])
    out: list[dict[str, Any]] = []
    for (source, destination, cpu), group in rows.groupby(["src_version", "dst_version", "cpu_src"], sort=True):
        fields = sorted(set(group.loc[~group["loads"], "stopped_at"]) - {""})
        loads = int(group["loads"].sum())
        out.append(
            {
                "source": source,
                "destination": destination,
                "cpu": cpu,
                "loads": loads,
                "refused": len(group) - loads,
                "stopped_at": ", ".join(fields),
            }
        )
    return pd.DataFrame(out)


def _shipped() -> pd.DataFrame:
    """Returns real loads of streams from releases that compare the words into releases that ignore them."""
    rows = _loads()
    key = flags.release_key
    rows = rows[[key(s) <= key(NEW) < key(d) for s, d in zip(rows["src_version"], rows["dst_version"], strict=True)]]
    cause = rows["stderr"].str.split(" | ", regex=False).str[0].str.removeprefix("qemu-system-ppc64: ")
    in_cpu = rows["stderr"].str.contains("device 'cpu'", regex=False)
    rows = rows.assign(message=cause.where(~rows["loads"], ""), in_cpu=in_cpu & ~rows["loads"])
    return rows.groupby(["message", "in_cpu"]).size().rename("loads").reset_index()
