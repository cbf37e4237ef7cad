"""Which PVR in a stream a ppc CPU of another one takes: `data/compat/pvr.csv` and `logical_pvr.csv`."""

from __future__ import annotations

import functools
from typing import NamedTuple

from vmstate_tools.facts.tables import rows


class Family(NamedTuple):
    """A Family of POWER has its PVR, the ISA levels it can run as, and the families whose PVR its class matches."""

    name: str
    pvr: int
    mask: int
    levels: frozenset[str]
    matches: frozenset[str]
    best_mask: int


@functools.cache
def families() -> tuple[Family, ...]:
    """Returns the families.

    Where in QEMU: target/ppc/cpu-models.h, `CPU_POWERPC_*_BASE`; cpu_init.c (translate_init.c), `pvr_match` and
    `pcr_supported`.
    """
    return tuple(
        Family(
            row["family"],
            int(row["pvr"], 16),
            int(row["mask"], 16),
            frozenset(row["levels"].split()),
            frozenset(row["matches"].split()),
            int(row["best_mask"] or "ffffffff", 16),
        )
        for row in rows("compat", "pvr")
    )


def family_of(pvr: int) -> Family | None:
    """Returns the family that a PVR belongs to, None where it is of none that is known."""
    return next((f for f in families() if pvr & f.mask == f.pvr), None)


@functools.cache
def isa_levels() -> dict[int, str]:
    """Returns, for each logical PVR, the ISA level that a CPU must have to run as it.

    Where in QEMU: target/ppc/compat.c, `compat_table`. Level 2.06+ needs what 2.06 needs.
    """
    return {int(row["pvr"], 16): row["level"] for row in rows("compat", "logical_pvr")}


def matches(own: int, pvr: int, *, best: bool, paired: bool = True) -> bool:
    """Tells whether a CPU class takes a stream with another PVR.

    Parameters
    ----------
    own, pvr : the PVR of the class and that in the stream.
    best : match as closely as releases do since 7.2 (21d3a78ed9).
    paired : of POWER9, take DD2.0 for DD2.1 and DD2.2 for DD2.3, as since 8.1.
    """
    if own == pvr:
        return True
    mine, theirs = family_of(own), family_of(pvr)
    if mine is None or theirs is None or theirs.name not in mine.matches:
        return False
    if not best:
        return True
    if theirs.name != mine.name or (own ^ pvr) & mine.best_mask:
        return False
    if mine.name == "POWER9" and paired and pvr & 0xF00 == 0x200:
        # cpu_init.c: ppc_pvr_match_power9, 277ee17212
        return own & 0xF == (0 if pvr & 0xF < 2 else 2)
    return True
