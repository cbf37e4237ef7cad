"""What a stream is framed with, and since which release: `data/fingerprint/framing.csv`."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from vmstate_tools.facts.commits import shortened
from vmstate_tools.facts.tables import rows
from vmstate_tools.format.framing import COMMAND_NAMES
from vmstate_tools.release import Release


class FramingFact(NamedTuple):
    """A FramingFact is a thing that a stream may have; `since`, `until`: the series that write it ("": open)."""

    what: str
    since: str
    until: str
    source: str


@cache
def facts() -> dict[str, FramingFact]:
    """Returns the facts by name: `footer`, `configuration page_bits`, `command SWITCHOVER_START` …"""
    return {
        row["fact"]: FramingFact(row["what"], row["since"], row["until"], shortened(row["source"]))
        for row in rows("fingerprint", "framing")
    }


def command(number: int) -> FramingFact:
    """Returns what is known of a command by its number; most came together with the first, in 2.5."""
    return facts().get(f"command {COMMAND_NAMES.get(number)}", facts()["command"])


def since(fact: str) -> Release:
    """Returns the first release that knows a thing."""
    return Release(facts()[fact].since)
