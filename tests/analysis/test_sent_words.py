"""The words that releases send for a CPU: the bundled table is what the catalog gives today."""

from __future__ import annotations

import pytest

from vmstate_tools.analysis import sent_words
from vmstate_tools.facts.tables import rows


@pytest.mark.parametrize("pvr", [0x003F0203, 0x004D0200, 0x000C0209], ids=["POWER7_v2.3", "POWER8_v2.0", "7400_v2.9"])
def test_the_bundled_rows_are_those_of_the_catalog(pvr):
    table = [tuple(row.values()) for row in rows("fingerprint", "words") if row["pvr"] == f"0x{pvr:08x}"]
    assert table and list(sent_words.rows([pvr])) == table
