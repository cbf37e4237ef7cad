"""Questions of 05-policy-lab."""

from __future__ import annotations

from typing import Any

from course import question, same
from vmstate_tools.facts import catalog, flags


@question("05-subset")
def _(answer: Any) -> bool | str:
    """Look at the columns repaired (forward), let through and broken (both directions) of the rows under tcg."""
    return same(answer, {"subset"})


@question("05-lost")
def _(answer: Any) -> bool | str:
    """It is the flag that 2.7 added and that is not for a hypervisor: `lacks` in `policies_compared.pairs`."""
    old, new = (catalog.words("POWER7", r, "tcg", "pseries-2.6") for r in ("2.6.0", "2.7.0"))
    who = {row["name"]: row["tcg"] for row in catalog.table("effects")}
    names = flags.decode("insns_flags", new.insns_flags & ~old.insns_flags)
    return same(answer, {name for name in names if who[name] in ("program", "system")})


@question("05-bytes")
def _(answer: Any) -> bool | str:
    """Two words of 8 bytes each, of which 4 are skipped."""
    return same(answer, 2 * (8 - 4), [(4, "That is one word; there are two.")])
