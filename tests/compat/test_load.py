"""Verdicts: stages, policies, assumptions, JSON; on the captures of the 2016 break."""

from __future__ import annotations

import json

import pytest
from captures import capture

import vmstate_tools as vt
from vmstate_tools.compat import Destination, Policy, check

CPU = "POWER8_v2.0"


@pytest.fixture(scope="module")
def old():
    with vt.open(capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")) as stream:
        yield stream


@pytest.fixture(scope="module")
def reference():
    path = capture("qemu-2.7.0/pseries-2.6/POWER8_v2.0.mig.zst")
    return Destination.from_stream(path, "2.7.0", "pseries-2.6", CPU, "tcg")


def test_the_break_of_2016_by_reference_and_by_catalog(old, reference):
    for destination in (reference, Destination("2.7.0", "pseries-2.6", CPU, "tcg"), Destination("2.7.0")):
        verdict = check(old, destination)
        assert not verdict.loads
        first = verdict.to_json()["obstacles"][0]
        assert (first["stage"], first["section"], first["instance_id"]) == ("F", "cpu", 0)
        assert first["field"] == "env.insns_flags"
        # 4e0806110c and others gave POWER8 of 2.7 the 64-bit hypervisor instructions and ICBT's kin.
        assert first["flags_only_in_destination"] == ["PPC_64H", "PPC_CILDST"] and not first["flags_only_in_stream"]
        # Those of this word alone; 7778a575c7 changed insns_flags2.
        assert [c[:10] for c in first["commits"]] == ["4e0806110c", "b781537560"]
        json.dumps(verdict.to_json())


def test_back_to_itself_and_on_to_the_fix(old):
    assert check(old, Destination("2.6.0", "pseries-2.6", CPU, "tcg")).loads
    assert check(old, Destination("2.8.0", "pseries-2.6", CPU, "tcg")).loads


@pytest.mark.parametrize(
    ("policy", "loads"),
    [("equal", False), ("ignore", True), ("unused", True), ("subset", True), ("machine-gated", True)],
)
def test_policies_forward_on_64_bit(old, reference, policy, loads):
    assert check(old, reference, policy).loads is loads


def test_subset_refuses_backward_after_the_section_was_read():
    new = capture("qemu-2.7.0/pseries-2.6/POWER8_v2.0.mig.zst")
    back = Destination.from_stream(capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst"), "2.6.0", cpu=CPU)
    verdict = check(new, back, "subset")
    assert [o.stage for o in verdict.reasons] == ["H", "H"]
    # As shipped the sender masks: what it then sends is what 2.6 has.
    assert check(new, back, "mask").loads


def test_a_policy_in_five_lines(old, reference):
    class OnlyMsr(Policy):
        name = "only-msr"

        def check(self, field, stream_value, destination_value, context):
            if context.word == "msr_mask":
                return super().check(field, stream_value, destination_value, context)
            return None

    verdict = check(old, reference, OnlyMsr())
    assert verdict.loads and verdict.policy == "only-msr"


def test_an_unknown_policy_names_those_there_are(old, reference):
    with pytest.raises(KeyError, match="machine-gated"):
        check(old, reference, "pray")


def test_a_release_that_is_none_is_a_usage_error():
    from click.testing import CliRunner

    from vmstate_tools.cli.main import main

    path = str(capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst"))
    done = CliRunner().invoke(main, ["check", path, "--to", "banana"])
    assert done.exit_code == 2 and "banana" in done.output


def test_a_load_that_takes_a_zero_for_the_end():
    """1.6.0 loads its own ref405ep stream, though it leaves the CPU's section early: no footer tells."""
    verdict = check(capture("qemu-1.6.0/ref405ep/default.mig.zst"), Destination("1.6.0", "ref405ep", None, "tcg"))
    assert verdict.loads
    assert "never loaded" in " ".join(verdict.warnings)


def test_remedies_where_the_cpu_or_the_machine_type_is_another(old):
    verdict = check(old, Destination("2.6.0", "pseries-2.6", "POWER7", "tcg"))
    assert "-cpu" in verdict.first.remedy
    verdict = check(capture("qemu-11.1/q35/qemu64.mig.zst"), Destination("9.1", "q35", None, "tcg"))
    assert verdict.first.remedy == "start the source with -machine pc-q35-9.1 or older"
