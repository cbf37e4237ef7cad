"""Which PVR a CPU class takes."""

from __future__ import annotations

import pytest

from vmstate_tools.compat import pvr as pvrs


@pytest.mark.parametrize(
    ("own", "pvr", "loose", "best"),
    [
        (0x004D0200, 0x004B0201, True, False),  # POWER8 takes POWER8E to 7.1, no longer since 7.2
        (0x004D0200, 0x004D0100, True, True),
        (0x003F0203, 0x004D0200, False, False),
        (0x004E1200, 0x004E1202, True, False),  # POWER9 DD2.0 and DD2.2
        (0x004E1100, 0x004E0100, True, True),  # 8.2.2 took 7.2's DD1.0
    ],
)
def test_pvr_match(own, pvr, loose, best):
    assert pvrs.matches(own, pvr, best=False) is loose
    assert pvrs.matches(own, pvr, best=True) is best
