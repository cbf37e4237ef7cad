"""What each policy would do with the loads that are refused for the CPU's words."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmstate_tools.compat.policy import POLICIES, Policy, noticed
from vmstate_tools.facts import flags
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.show.reports.pairs import Pair, about_words


@dataclass
class Option:
    """What one policy would do.

    `elsewhere` are pairs that pass the words and are stopped by something else. `lacking` are pairs that load although
    the destination's CPU lacks flags that the guest could use, with the names of the flags.
    """

    name: str
    says: str
    loads: list[Pair] = field(default_factory=list)
    elsewhere: list[Pair] = field(default_factory=list)
    refused: list[Pair] = field(default_factory=list)
    lacking: list[tuple[Pair, list[str]]] = field(default_factory=list)


def options(found: Sequence[Pair]) -> list[Option]:
    """Returns every policy with what becomes of the pairs whose first obstacle is a word; empty without such pairs."""
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
    """Returns the flags that the destination's CPU lacks and whose loss a guest could notice.

    Which ones a guest could notice is said by `compat.policy.noticed`.
    """
    names: dict[str, None] = {}
    for obstacle in pair.verdict.reasons:
        word = WORD_OF_FIELD.get(obstacle.field or "") if about_words(obstacle) else None
        if word in flags.WORDS:
            lost = obstacle.stream_value & ~obstacle.destination_value & noticed(word, accel)
            names |= dict.fromkeys(flags.decode(word, lost))
    return list(names)


def first_line(policy: Policy) -> str:
    """Returns the first line of a policy's docstring: what the policy does."""
    return (inspect.getdoc(type(policy)) or "").partition("\n")[0]
