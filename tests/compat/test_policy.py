"""Policies against real loads: QEMU 2.7.0 built with the words of the CPU section as VMSTATE_UNUSED."""

from __future__ import annotations

import csv

import pytest

import vmstate_tools as vt
from vmstate_tools.analysis import policies_compared as proposals
from vmstate_tools.compat import Destination, Policy, check
from vmstate_tools.compat.policy import SentBy, noticed
from vmstate_tools.data import data_path

with data_path("outcomes", "unused", "loads.csv").open(newline="") as _file:
    LOADS = list(csv.DictReader(_file))
STREAMS = [row for row in LOADS if row["stream"]]
PPC32 = data_path("outcomes", "unused", "ppc32-g3beige-7400_v2.9.mig.zst")


class UnusedEach(Policy):
    name = "unused-each"

    def check(self, field, stream_value, destination_value, context):
        return None

    def size_of(self, field, context):
        return context.target_ulong


def reference(row) -> Destination:
    """What 2.7.0 as released wrote with that machine and CPU."""
    path = PPC32 if row["target"] == "ppc" else data_path("streams", f"qemu-2.7.0/pseries-2.6/{row['cpu_dst']}.mig.zst")
    return Destination.from_stream(path, "2.7.0", row["machine"], row["cpu_dst"], "tcg")


@pytest.mark.parametrize("row", STREAMS, ids=lambda r: f"{r['target']}-{r['src_version']}-{r['cpu_src']}-{r['words']}")
def test_a_real_load_with_the_words_unused(row):
    policy = UnusedEach() if row["words"] == "unused-each" else row["words"]
    verdict = check(data_path(row["stream"]), reference(row), policy)
    assert verdict.loads == (row["loads"] == "True")
    if not verdict.loads:
        assert (verdict.first.section, verdict.first.stage) == ("cpu", "I" if "footer" in row["stderr"] else "F")


def test_where_a_32_bit_load_loses_its_way():
    """Both words have 8 bytes and 4 are skipped: what is taken for the section's end lies 8 bytes early."""
    with vt.open(PPC32) as stream:
        cpu = stream.section("cpu")
        fields = stream.fields().set_index("path").loc[["env.insns_flags2", "env.nb_BATs"]]
        verdict = check(stream, reference(STREAMS[0]), "unused")
        end = cpu.payload_offset + verdict.first.destination_value
        assert end == fields.loc["env.nb_BATs", "offset"] + 4 - 8 == fields.loc["env.insns_flags2", "offset"] + 4
        # Neither a subsection (05) nor a footer (7e): "Missing section footer for cpu".
        assert stream.source.view[end] == 0 and verdict.first.stream_value == cpu.payload_size


def test_loads_and_then_runs_wrong():
    """lqarx is PPC2_LSQ_ISA207: POWER8 has it, POWER7 has not, and a program can use it."""
    ran = {(row["cpu_dst"], row["words"]): row for row in LOADS if not row["stream"]}
    assert ran["POWER7_v2.3", "equal"]["loads"] == "False"
    assert "program interrupt" in ran["POWER7_v2.3", "unused"]["after"]
    bit = vt.flags.encode("insns_flags2", ["PPC2_LSQ_ISA207"])
    assert noticed("insns_flags2", "tcg") & bit and not noticed("insns_flags2", "kvm") & bit
    theirs, ours = (vt.catalog.words(cpu, "2.7.0", "tcg", "pseries-2.6") for cpu in ("POWER8_v2.0", "POWER7_v2.3"))
    assert theirs.insns_flags2 & ~ours.insns_flags2 & bit


def test_sent_by_undoes_the_mask_and_the_accelerator():
    """2.8 masks what it sends, so its own CPU would not pass a check for equality with it."""
    path = data_path("streams", "qemu-2.8.0/pseries-2.6/POWER8_v2.0.mig.zst")
    same = Destination("2.8.0", "pseries-2.6", "POWER8_v2.0", "tcg")
    assert not check(path, same, "equal").loads
    assert check(path, same, SentBy("2.8.0", "tcg", "equal")).loads
    path = data_path("streams", "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    kvm = Destination("2.7.0", "pseries-2.6", "POWER8_v2.0", "kvm")
    assert not check(path, kvm, SentBy("2.6.0", "kvm", "equal")).loads
    assert check(path, kvm, SentBy("2.6.0", "kvm", "kvm-filter")).loads


@pytest.mark.parametrize("policy", ["equal", "unused", "subset", "kvm-filter", "mask", "machine-gated"])
def test_whole_streams_agree_with_the_words_alone(policy):
    """Between 2.6 and 2.7 nothing but the words differs, so `vt.matrix` must find what `proposals.pairs` does."""
    releases, cpus = ["2.6.0", "2.7.0"], ["970fx_v3.1", "POWER7_v2.3", "POWER8_v2.0"]
    for accel in ("tcg", "kvm"):
        for cpu in cpus:
            told = proposals.pairs("pseries-2.6", [cpu], policy, accel, None, releases=releases)
            there = [Destination(r, "pseries-2.6", cpu, accel) for r in releases]
            streams = [data_path("streams", f"qemu-{r}/pseries-2.6/{cpu}.mig.zst") for r in releases]
            found = vt.matrix(streams, there, policy, progress=False)
            assert found["loads"].tolist() == told["loads"].tolist(), (cpu, accel)
            assert set(found.loc[~found["loads"], "section"]) <= {"cpu"}
