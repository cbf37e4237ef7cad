"""Verdicts: stages, policies, assumptions, JSON; on the captures of the 2016 break."""

from __future__ import annotations

import json

import pytest
from captures import capture

import vmstate_tools as vt
from vmstate_tools.compat import Destination, Policy, check, matrix
from vmstate_tools.compat import pvr as pvrs
from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.errors import CatalogError
from vmstate_tools.release import Release
from vmstate_tools.vmstate.description import Vmsd

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


def test_machine_type_and_release_that_do_not_meet():
    destination = Destination("2.5.0", "pseries-2.6", CPU, "tcg")
    assert destination.absent is not None and destination.absent.kind == "no such machine type"
    assert Destination("2.6.0", "pseries-2.6", CPU, "tcg").absent is None


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


def test_machine_options_come_with_the_machine():
    destination = Destination("7.2", "pseries-2.6,cap-htm=off", CPU, "tcg")
    assert destination.machine == "pseries-2.6" and destination.options == {"cap-htm": "off"}
    assert destination.absent is None
    refused = Destination("7.2", "pseries-2.6", CPU, "tcg").absent
    assert refused is not None and refused.remedy == "-machine cap-htm=off"


def test_matrix_has_a_row_per_pair(old):
    frame = matrix([capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")], ["2.6.0", "2.7.0"], progress=False)
    assert frame["loads"].tolist() == [True, False]
    assert frame["section"].tolist()[1] == "cpu"


def test_a_stream_that_is_none_is_a_row_with_an_error(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(b"not a stream")
    frame = matrix([path], ["2.7.0"], progress=False)
    assert frame["loads"].isna().all() and "QEVM" in frame["error"][0]


@pytest.mark.parametrize(("release", "kind"), [("7.2.22", "unknown RAM record"), ("2.3.0", "unknown RAM record")])
def test_compressed_pages_need_a_release_and_a_capability(release, kind):
    """7.2.22 said: Received an unexpected compressed page. The flag came with 2.4 (20eb617eac)."""
    verdict = check(capture("qemu-7.2/q35/qemu64+cap-compress.mig.zst"), Destination(release, "q35", "qemu64", "tcg"))
    found = next(o for o in verdict.reasons if o.section == "ram")
    assert (found.stage, found.kind, found.field) == ("C", kind, "compressed page")


def test_a_release_that_is_none_is_a_usage_error():
    from click.testing import CliRunner

    from vmstate_tools.cli.main import main

    path = str(capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst"))
    done = CliRunner().invoke(main, ["check", path, "--to", "banana"])
    assert done.exit_code == 2 and "banana" in done.output


def test_words_of_64_bits_stay_whole_in_a_matrix():
    paths = [capture(f"qemu-{r}/pseries-2.6/POWER8_v2.0.mig.zst") for r in ("2.6.0", "2.7.0")]
    frame = matrix([*paths, "nowhere.mig"], ["2.7.0"], progress=False)
    with vt.open(paths[0]) as stream:
        sent = stream.value("cpu", "env.insns_flags")
    assert frame["loads"].tolist()[:2] == [False, True] and frame["loads"].isna()[2]
    assert frame["stream_value"][0] == sent and type(frame["stream_value"][0]) is int
    assert frame["instance_id"].tolist()[0] == 0 and str(frame["instance_id"].dtype) == "Int64"
    verdict = check(paths[0], Destination("2.7.0"))
    assert verdict.obstacles["stream_value"][0] == sent and type(verdict.obstacles["stream_value"][0]) is int


@pytest.mark.parametrize("release", ["2.99", "2.7.1-rc1", "banana", "0.5"])
def test_a_release_that_never_was_is_no_destination(release):
    with pytest.raises(CatalogError, match=release):
        Destination(release)
    assert Destination("99.0").version == Release("99.0")


@pytest.mark.parametrize(("idstr", "number"), [("i8259", 0xA0), ("mc146818rtc", 0x70), ("e1000", 0)])
def test_sections_under_their_older_names(idstr, number):
    """`find_se`: by the I/O address of an ISA device, and by the name alone of one with a path."""
    vmsd = Vmsd(idstr, 2)
    entries = [Entry("0000:00:03.0/e1000", 0, 2, vmsd), *(Entry(idstr, n, 2, vmsd) for n in (0, 1) if idstr != "e1000")]
    expectation = Expectation()
    expectation.add(entries)
    found = expectation.find(idstr, number)
    assert found is entries[{0xA0: 2, 0x70: 1, 0: 0}[number]]
    assert expectation.find(idstr, 7) is None


@pytest.mark.parametrize(
    ("release", "loads"),
    [("9.1.0", True), ("9.2.1", False), ("10.0.5", False), ("10.0.13", True), ("10.1.0", False), ("10.1.2", True)],
)
def test_releases_that_do_not_read_the_interrupt_presenter(release, loads):
    """As real loads into 9.2.1, 10.0.13 and 10.1.0 went; the stable releases between are by their source."""
    destination = Destination(release, "pseries-7.2", "power8e_v2.1", "tcg")
    verdict = check(capture("qemu-7.2/pseries-7.2/POWER8e_v2.1.mig.zst"), destination)
    assert verdict.loads == loads
    assert loads or verdict.first.section == "icp/server"


def test_a_load_that_takes_a_zero_for_the_end():
    """1.6.0 loads its own ref405ep stream, though it leaves the CPU's section early: no footer tells."""
    verdict = check(capture("qemu-1.6.0/ref405ep/default.mig.zst"), Destination("1.6.0", "ref405ep", None, "tcg"))
    assert verdict.loads
    assert "never loaded" in " ".join(verdict.warnings)


@pytest.mark.parametrize(
    ("release", "machine", "starts"),
    [
        ("10.0.0", "s390-ccw-virtio-4.1", True),
        ("10.1.0", "virt-4.2", True),
        ("10.1.0", "virt-4.1", False),
        ("11.1", "pc-q35-5.2", True),
        ("11.1", "pc-q35-5.1", False),
    ],
)
def test_machine_types_are_deleted_after_six_years(release, machine, starts):
    """include/hw/boards.h of 10.0 and 10.1; 11.1 wrote streams of 5.2, and none of 5.1."""
    absent = Destination(release, machine).absent
    assert (absent is None) == starts
    assert starts or absent.remedy.startswith("load it in a release before 1")


def test_remedies_where_the_cpu_or_the_machine_type_is_another(old):
    verdict = check(old, Destination("2.6.0", "pseries-2.6", "POWER7", "tcg"))
    assert "-cpu" in verdict.first.remedy
    verdict = check(capture("qemu-11.1/q35/qemu64.mig.zst"), Destination("9.1", "q35", None, "tcg"))
    assert verdict.first.remedy == "start the source with -machine pc-q35-9.1 or older"
