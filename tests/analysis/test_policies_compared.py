"""The proposals: what each repairs, lets through and breaks."""

from __future__ import annotations

import csv

import pytest

from vmstate_tools.analysis import cpu_history as breaks
from vmstate_tools.analysis import policies_compared as proposals
from vmstate_tools.compat import POLICIES, Policy
from vmstate_tools.data import data_path

CPUS = ["970fx_v3.1", "POWER7_v2.3", "POWER8_v2.0"]


def effect(policy, cpu, source, destination, accel="tcg", machine="pseries-2.6", **more):
    found = proposals.pairs(machine, [cpu], policy, accel, releases=[source, destination], **more)
    row = found[(found["source"] == source) & (found["destination"] == destination)].iloc[0]
    return row["effect"], row["stopped_by"], row["lacks"]


def test_shipped_is_what_the_releases_do():
    """`breaks.pairs` reads from the source what each release sends and checks; that knows nothing of policies."""
    told = breaks.pairs("pseries-2.6", CPUS).set_index(["cpu", "source", "destination"])["loads"]
    found = proposals.pairs("pseries-2.6", CPUS, "shipped").set_index(["cpu", "source", "destination"])["loads"]
    assert len(found) > 2000 and found.equals(told.loc[found.index])


def test_equal_in_every_release_is_the_break():
    strict = breaks.pairs("pseries-2.6", ["POWER7_v2.3"]).set_index(["source", "destination"])["strict"]
    found = proposals.pairs("pseries-2.6", ["POWER7_v2.3"], "equal").set_index(["source", "destination"])
    assert found["loads"].equals(strict.loc[found.index])
    assert set(found["effect"]) == {"as before", "refused, rightly", "refused, needlessly"}


@pytest.mark.parametrize(
    ("policy", "accel", "expected"),
    [
        # 2.7 only added flags (4e0806110c, dfdd3e4362, b781537560, 7778a575c7): forward a guest loses nothing.
        ("equal", "tcg", "refused, needlessly"),
        ("unused", "tcg", "repaired"),
        ("unused-right-size", "tcg", "repaired"),
        ("ignore", "tcg", "repaired"),
        ("subset", "tcg", "repaired"),
        ("kvm-filter", "tcg", "refused, needlessly"),
        ("kvm-filter", "kvm", "repaired"),  # none of the four flags is read under KVM
        ("mask", "tcg", "refused, needlessly"),  # what 2.6 sends is within the mask already
        ("shipped", "tcg", "repaired"),
        ("machine-gated", "tcg", "repaired"),
    ],
)
@pytest.mark.parametrize("cpu", ["POWER7_v2.3", "POWER8_v2.0"])
def test_the_step_of_2016_forward(policy, accel, expected, cpu):
    assert effect(policy, cpu, "2.6.0", "2.7.0", accel, since=None)[0] == expected


def test_backward_what_the_guest_could_notice():
    """2.7 gave POWER7 lq and stq for the system (PPC_64BX); POWER8 had them. The rest needs hypervisor mode."""
    assert effect("ignore", "POWER7_v2.3", "2.7.0", "2.6.0", since=None) == ("let through", [], ["PPC_64BX"])
    assert effect("ignore", "POWER8_v2.0", "2.7.0", "2.6.0", since=None) == ("repaired", [], [])
    assert effect("ignore", "POWER7_v2.3", "2.7.0", "2.6.0", "kvm", since=None)[0] == "repaired"
    assert effect("subset", "POWER7_v2.3", "2.7.0", "2.6.0", since=None)[0] == "refused, rightly"
    assert effect("machine-gated", "POWER7_v2.3", "2.7.0", "2.6.0", since=None) == ("repaired", [], [])


def test_a_fix_does_not_reach_releases_before_it():
    for policy in POLICIES:
        assert effect(policy, "POWER8_v2.0", "2.6.0", "2.7.0")[0] == "refused, needlessly"
    # 2.7.0 sends 2.7's words on pseries-2.6: a destination with the machine's words refuses what it used to take.
    assert effect("machine-gated", "POWER8_v2.0", "2.7.0", "2.8.0")[:2] == (
        "broken",
        ["insns_flags", "insns_flags2"],
    )


def test_32_bit_target_and_the_size_of_unused():
    for policy, expected in (("unused", "broken"), ("unused-right-size", "as before"), ("ignore", "as before")):
        found = effect(policy, "7400_v2.9", "2.7.0", "2.8.0", machine="g3beige", target_ulong=4)
        assert found[0] == expected
    assert effect("unused", "7400_v2.9", "2.7.0", "2.8.0", machine="g3beige")[0] == "as before"


def test_compare_counts_every_pair_once():
    table = proposals.compare("pseries-2.6", ["POWER7_v2.3"], ["equal", "ignore"], ["tcg"])
    counts = table[list(proposals.EFFECTS)].sum(axis=1)
    releases = [r for r in breaks.releases(machine="pseries-2.6") if breaks.running("POWER7_v2.3", r)]
    assert set(counts) == {len(releases) * (len(releases) - 1) // 2}
    assert table.loc[("ignore", "tcg", "backward"), "hurt"] == ["POWER7_v2.3"]


def test_a_policy_of_ones_own():
    class Nothing(Policy):
        name = "nothing"

        def check(self, field, stream_value, destination_value, context):
            assert context.machine == "pseries-2.6" and context.word in field.name

    assert effect(Nothing(), "POWER8_v2.0", "2.6.0", "2.8.0")[0] == "repaired"


def test_what_sends_unused_words_is_refused_by_all_that_compare():
    """As real QEMUs did: a 2.7.0 built with VMSTATE_UNUSED wrote the streams (data/outcomes/unused/back.csv)."""
    with data_path("outcomes", "unused", "back.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["cpu"] for row in rows} == {"970fx_v3.1", "POWER7_v2.3"}
    for row in rows:
        _, stopped_by, _ = effect(row["words_src"], row["cpu"], "2.7.1", row["dst_version"])
        assert f"cpu:env.{stopped_by[0]}=-22" == row["fail_field"]
