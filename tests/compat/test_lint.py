"""Time bombs in the streams of 2016."""

from __future__ import annotations

import pytest
from captures import HERE, capture

import vmstate_tools as vt
from vmstate_tools.compat.lint import RULES, lint
from vmstate_tools.vmstate.dump import read_dump


def test_the_sanity_words_are_internal_state_under_equal():
    with vt.open(capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")) as stream:
        frame = lint(stream)
    internal = frame[frame["rule"] == "internal state under EQUAL"]
    assert {"env.msr_mask", "env.insns_flags", "env.insns_flags2", "env.nb_BATs"} <= set(internal["field"])
    assert set(internal["section"]) == {"cpu"}
    assert set(frame["rule"]) <= RULES.keys()


def test_gone_since_the_fix():
    with vt.open(capture("qemu-3.1.0/pseries-3.1/POWER8_v2.0.mig.zst")) as stream:
        frame = lint(stream)
    assert frame[frame["rule"] == "internal state under EQUAL"].empty


def test_nothing_else_is_linted():
    with pytest.raises(TypeError, match="dump"):
        lint("a path")


def test_what_an_arm_stream_risks():
    with vt.open(capture("qemu-7.2/virt-5.2/cortex-a57.mig.zst")) as stream:
        found = set(lint(stream)[["field", "rule"]].itertuples(index=False, name=None))
    assert ("cpreg_vmstate_array_len", "limited by the destination") in found
    assert ("env.pc", "size of a target word") not in found  # a field of x86 and others, of fixed length here


def test_places_and_addresses_in_names():
    with vt.open(capture("qemu-2.6.0/ppce500/default.mig.zst")) as stream:
        frame = lint(stream)
    rows = frame[frame["rule"] == "address as number"]
    assert ("serial", 0x4500) in set(zip(rows["section"], rows["instance_id"], strict=True))  # hw/ppc/e500.c


def test_words_of_the_target_and_subsections_sent_always():
    with vt.open(capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")) as stream:
        words = lint(stream).query("rule == 'size of a target word'")
    assert {"env.gpr", "env.msr_mask"} <= set(words["field"])  # UINTTL in target-ppc/machine.c
    assert "env.insns_flags" not in set(words["field"])  # 64 bits in both


def test_a_condition_that_came():
    dumps = [read_dump(HERE.dumps / f"{r}-pseries-2.5.json.zst") for r in ("2.6.0", "2.8.0")]
    rows = lint(dumps[1], dumps[0]).query("rule == 'condition changed'")
    assert {("spapr_pci", "mem_win_addr"), ("spapr_pci", "io_win_addr")} <= set(
        zip(rows["vmsd"], rows["field"], strict=True)
    )  # pre_2_8_migration, 5c4537bdca
