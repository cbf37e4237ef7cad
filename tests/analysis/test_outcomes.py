"""Real loads and predictions side by side."""

from __future__ import annotations

import pandas as pd
import pytest

from vmstate_tools.analysis import outcomes


@pytest.mark.parametrize(
    ("message", "section"),
    [
        ("qemu: warning: error while loading state for instance 0x0 of device 'cpu' | load of migration failed", "cpu"),
        ("qemu-system-ppc64: Unknown savevm section or instance 'spapr_pci' 0", "spapr_pci"),
        ("qemu-system-ppc64: savevm: unsupported version 3 for 'spapr_iommu' v2", "spapr_iommu"),
        ("qemu-system-ppc64: Configuration section missing | cat: write error: Broken pipe", "configuration"),
        ("qemu-system-ppc64: Unknown savevm section type 7 | load of migration failed", "configuration"),
        ("qemu-system-ppc64: Unable to find sPAPR CPU Core definition", "start"),
        ("cat: write error: Broken pipe", "not said"),
    ],
)
def test_what_a_message_blames(message, section):
    assert outcomes.blamed(message) == section


def test_predicted_beside_real():
    rows = outcomes.real()
    assert set(rows.loc[rows["loads"], "cause"]) == {"loads"} and (rows.loc[~rows["loads"], "cause"] != "loads").all()
    step = rows[
        rows["stream"].eq("qemu-2.6.0/pseries-2.6/POWER7_v2.3.mig.zst")
        & rows["dst_version"].isin(["2.6.0", "2.7.0", "2.8.0"])
        & rows["cpu_dst"].eq("POWER7_v2.3")
    ]
    assert dict(zip(step["dst_version"], step["cause"], strict=True)) == {
        "2.6.0": "loads",
        "2.7.0": "cpu",
        "2.8.0": "loads",
    }
    told = outcomes.predicted(step, progress=False)
    assert told.index.equals(step.index)
    assert (
        outcomes.agreement(step, told)["agree"].tolist() == outcomes.agreement(step, told)["of"].tolist() == [3, 1, 1]
    )
    stopped = told[~told["loads"]].iloc[0]
    assert stopped["field"] == "env.insns_flags" and "−PPC_64BX" in stopped["flags"]
    # Where they differ it counts.
    wrong = told.assign(loads=True, cause="loads")
    assert outcomes.agreement(step, wrong).loc["loads or refused"].tolist() == [2, 3]


def test_a_row_that_is_not_said_counts_for_no_section():
    real = pd.DataFrame({"loads": [False], "cause": ["not said"], "field": [""]})
    told = pd.DataFrame({"loads": [False], "cause": ["cpu"], "field": ["env.spr"]})
    assert outcomes.agreement(real, told)["of"].tolist() == [1, 0, 0]
