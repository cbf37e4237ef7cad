"""What each policy would do with the loads that are refused for the CPU's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vmstate_tools.compat.policy import POLICIES, noticed
from vmstate_tools.facts import flags
from vmstate_tools.facts.cpu_section import WORD_OF_FIELD
from vmstate_tools.show.reports.pairs import Pair, about_words

# What each policy is, in the report's words.
SAYS = {
    "equal": "Every word must equal the destination's, as QEMU 1.6 to 2.7.0 had it (commit a90db1584a).",
    "unused": "`VMSTATE_UNUSED` in place of the words: skipped, not read.",
    "unused-right-size": "`VMSTATE_UNUSED` in place of the words: skipped, not read.",
    "ignore": "Read and forget, as 2.7.1 and 2.8 shipped it (commit 16a2497bd4).",
    "subset": "Migrate, then refuse in post_load only if the stream has a flag that the destination lacks.",
    "kvm-filter": "Under KVM only flags that the guest can see must be equal: the host runs its instructions. "
    "TCG compares all.",
    "mask": "The sender masks what was added since 2.6, as shipped (16a2497bd4, bce009645b).",
    "shipped": "What 2.7.1 shipped, both parts of 16a2497bd4: mask on the way out, ignore on the way in.",
    "machine-gated": "The words go with the machine type: a CPU has those of the release that brought it, "
    "and both are compared.",
}


@dataclass
class Option:
    """An Option is what one policy would do.

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
    for name in POLICIES if stuck else ():
        option = Option(name, SAYS[name])
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
