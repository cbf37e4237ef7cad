"""What each policy would make of the pairs that are refused for the CPU's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vmstate_tools import catalog
from vmstate_tools.compat.policy import POLICIES
from vmstate_tools.reporting.pairs import Pair, about_words

# Who can run what a flag allows, of those that a guest is (data/catalog/effects.csv, column tcg).
_GUEST = ("program", "system")


@dataclass
class Option:
    """One policy. `lacking`: pairs it lets load though the destination's CPU lacks flags that a guest could use."""

    name: str
    says: str
    loads: list[Pair] = field(default_factory=list)
    elsewhere: list[Pair] = field(default_factory=list)  # past the words, stopped by something else
    refused: list[Pair] = field(default_factory=list)
    lacking: list[tuple[Pair, list[str]]] = field(default_factory=list)


def options(found: Sequence[Pair]) -> list[Option]:
    """Every policy over the pairs of which the words are the first obstacle; empty where there are none."""
    stuck = [pair for pair in found if pair.verdict.first is not None and about_words(pair.verdict.first)]
    out = []
    for name, make in POLICIES.items() if stuck else ():
        option = Option(name, (make().__doc__ or make().__class__.__mro__[1].__doc__ or "").partition("\n")[0])
        for pair in stuck:
            verdict = pair.under[name]
            if verdict.loads:
                option.loads.append(pair)
                if lost := noticeable(pair):
                    option.lacking.append((pair, lost))
            elif any(about_words(obstacle) for obstacle in verdict.reasons):
                option.refused.append(pair)
            else:
                option.elsewhere.append(pair)
        out.append(option)
    return out


def noticeable(pair: Pair) -> list[str]:
    """Flags of the stream's CPU that the destination's lacks and a guest under TCG could use, by effects.csv."""
    who = {row["name"]: row["tcg"] for row in catalog.table("effects")}
    missing = dict.fromkeys(
        name for obstacle in pair.verdict.reasons if about_words(obstacle) for name in obstacle.flags_only_in_stream
    )
    return [name for name in missing if any(who.get(part) in _GUEST for part in name.split("/"))]
