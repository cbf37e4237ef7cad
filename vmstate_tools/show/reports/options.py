"""What each policy would make of the pairs that are refused for the CPU's words."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmstate_tools.compat.policy import POLICIES, Policy, noticed
from vmstate_tools.compat.rules import SANITY
from vmstate_tools.facts import flags
from vmstate_tools.show.reports.pairs import Pair, about_words


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
    stuck = [pair for pair in found if pair.under]
    out = []
    for name, make in POLICIES.items() if stuck else ():
        option = Option(name, first_line(make()))
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


def noticeable(pair: Pair, accel: str = "tcg") -> list[str]:
    """Flags of the stream's CPU that the destination's lacks and a guest could notice (`compat.policy.noticed`)."""
    names: dict[str, None] = {}
    for obstacle in pair.verdict.reasons:
        word = SANITY.get(obstacle.field or "") if about_words(obstacle) else None
        if word in flags.WORDS:
            lost = obstacle.stream_value & ~obstacle.destination_value & noticed(word, accel)
            names |= dict.fromkeys(flags.decode(word, lost))
    return list(names)


def first_line(policy: Policy) -> str:
    """What a policy is, in the words of its docstring's first line, or its parent's."""
    return (inspect.getdoc(type(policy)) or "").partition("\n")[0]
