from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from qemus import children, qemu

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.emulator.tables import append_row
from vmstate_tools.emulator.trace import last_field
from vmstate_tools.emulator.tryload import OUTCOMES, Outcome
from vmstate_tools.errors import QemuError, StreamError, VmstateError


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streams of guests that ran, with their registers."""
    folder = tmp_path_factory.mktemp("taken")
    ppc64, x86 = qemu("qemu-system-ppc64"), qemu("qemu-system-x86_64")
    frames = [
        vt.capture(ppc64, ["pseries-2.7", "pseries-5.2"], "970_v2.2", out=folder, memory_mib=256, ran=True),
        vt.capture(ppc64, "mac99", "7400_v2.9", out=folder, ran=True),
        vt.capture(x86, ["q35", "microvm"], "qemu64", out=folder, memory_mib=64, ran=True),
    ]
    assert (pd.concat(frames)["refused"] == "").all()
    return folder


def _registers(text: str) -> list[str]:
    """What `info registers` printed, but for the clocks, which run on."""
    return [line for line in text.splitlines() if not line.lstrip().startswith("TB ")]


@pytest.mark.parametrize("machine", ["pseries-2.7", "pseries-5.2", "mac99", "q35", "microvm"])
def test_what_was_captured_loads(taken: Path, machine: str) -> None:
    (file,) = taken.glob(f"*/{machine}/*.mig.zst")
    binary = "qemu-system-x86_64" if machine in ("q35", "microvm") else "qemu-system-ppc64"
    outcome = vt.try_load(file, binary, registers=True, manifest=taken / "manifest.csv")
    assert outcome.loaded and outcome.vmstate_loaded and outcome.fail_field == ""
    assert outcome.status == "paused"
    assert outcome.machine == machine
    before = file.with_name(file.name.replace(".mig.zst", ".registers.txt")).read_text()
    assert outcome.registers is not None
    assert _registers(outcome.registers) == _registers(before)
    assert not children()


def test_refusals_and_where(taken: Path, tmp_path: Path) -> None:
    (file,) = taken.glob("*/pseries-2.7/*.mig.zst")
    table = tmp_path / "outcomes.csv"

    def refused(message: str, at: str, **options) -> None:
        outcome = vt.try_load(file, "qemu-system-ppc64", outcomes=table, manifest=taken / "manifest.csv", **options)
        assert not outcome.loaded and not outcome.vmstate_loaded
        assert message in outcome.message and outcome.fail_field.startswith(at)
        assert outcome.status.startswith("exited rc=1")

    refused("of device 'cpu'", "(last field cpu/slb:env.slb) cpu end=-22", cpu="POWER7_v2.3")
    refused("Machine type received is 'pseries-2.7'", "(last field configuration:name)", machine="pseries-2.6")
    refused("Size mismatch: ppc_spapr.ram", "(last field configuration:name)", memory_mib=512)
    outcome = vt.try_load(file, "qemu-system-ppc64", outcomes=table, manifest=taken / "manifest.csv")
    assert outcome.loaded
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert tuple(rows[0]) == OUTCOMES
    assert [row["loaded"] for row in rows] == ["False"] * 3 + ["True"]
    assert rows[0]["cpu_src"] == "970_v2.2" and rows[0]["cpu_dst"] == "POWER7_v2.3"
    assert rows[1]["machine"] == "pseries-2.6" and rows[1]["dst_extra"] == ""
    assert rows[3]["stream"] == file.relative_to(taken).as_posix()


def test_a_destination_that_does_not_start(taken: Path) -> None:
    (file,) = taken.glob("*/pseries-2.7/*.mig.zst")
    outcome = vt.try_load(file, "qemu-system-ppc64", cpu="POWER8_v2.0", manifest=taken / "manifest.csv")
    assert outcome.vmstate_loaded is None and "Transactional Memory" in outcome.message
    outcome = vt.try_load(file, "qemu-system-ppc64", machine="toaster")
    assert outcome.vmstate_loaded is None and not outcome.started and outcome.status == "not started rc=1"
    assert "this QEMU does not start" in str(outcome) and "-machine toaster" in str(outcome)
    assert "refused" not in str(outcome)


def test_without_a_manifest(taken: Path, tmp_path: Path) -> None:
    (file,) = taken.glob("*/pseries-5.2/*.mig.zst")
    alone = tmp_path / "alone.mig.zst"
    alone.write_bytes(file.read_bytes())
    outcome = vt.try_load(alone, "qemu-system-ppc64", cpu="970_v2.2")
    assert outcome.loaded and outcome.machine == "pseries-5.2" and "-m 256" in outcome.arguments
    (file,) = taken.glob("*/mac99/*.mig.zst")
    with vt.open(file) as stream:
        alone.write_bytes(bytes(stream.source.view))
    assert vt.try_load(alone, "qemu-system-ppc64", cpu="7400_v2.9").loaded


def test_a_stream_cut_short_ends_in_time(taken: Path, tmp_path: Path) -> None:
    (file,) = taken.glob("*/pseries-5.2/*.mig.zst")
    with vt.open(file) as stream:
        data = bytes(stream.source.view)
    short = tmp_path / "short.mig"
    short.write_bytes(data[: len(data) // 2])
    outcome = vt.try_load(short, "qemu-system-ppc64", machine="pseries-5.2", cpu="970_v2.2", memory_mib=256)
    assert not outcome.vmstate_loaded and not outcome.timeout


def test_bad_requests(taken: Path, tmp_path: Path) -> None:
    (file,) = taken.glob("*/pseries-5.2/*.mig.zst")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(VmstateError, match="another table"):
        vt.try_load(file, "qemu-system-ppc64", outcomes=other)
    assert other.read_text() == "a,b\n1,2\n"
    with pytest.raises(QemuError, match="no program"):
        vt.try_load(file, tmp_path / "qemu")
    other.write_bytes(b"nonsense")
    with pytest.raises(StreamError):
        vt.try_load(other, "qemu-system-ppc64", machine="pseries", memory_mib=256)


def test_outcomes_are_those_of_the_bundled_table() -> None:
    with data_path("outcomes", "load_matrix.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == OUTCOMES


def test_many_may_append(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    one = Outcome("ppc64", "m", "a", "b", "1", "2", True, None, False, "x", 1.0, "", "", True, "", 'a "b", c', "s")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append_row(table, OUTCOMES, one.row()), range(64)))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert len(rows) == 64 and {row["stderr"] for row in rows} == {'a "b", c'}


@pytest.mark.parametrize(
    ("log", "field"),
    [
        ("", ""),
        ("vmstate_load_state_field cpu:env.nip\nvmstate_load_state_field cpu:env.msr_mask\n"
         'vmstate_load_field_error field "env.msr_mask" load failed, ret = -22\nvmstate_load_state_end cpu end/-22',
         "cpu:env.msr_mask=-22"),
        ("12@1.5:vmstate_load_state_field spapr_pci:lsi_table\n12@1.6:vmstate_load_state_field spapr_pci/lsi:irq\n"
         '12@1.7:vmstate_load_field_error field "irq" load failed, ret = -22\n'
         '12@1.8:vmstate_load_field_error field "lsi_table" load failed, ret = -22\n',
         "spapr_pci/lsi:irq=-22 < lsi_table=-22"),
        ("vmstate_load_state_field a:b\nvmstate_load_state_end a end/0\n", "(last field a:b)"),
        ("vmstate_load_state_field a:b\nvmstate_load_state_end a end/-22\n", "(last field a:b) a end=-22"),
        # as 10.0 has it, and 11.1
        ("vmstate_load_state_field a:b exists=1\nvmstate_load_state_field a:c exists=0\n"
         "vmstate_load_state_end a end/-22",
         "(last field a:b) a end=-22"),
        ("vmstate_load_state_field cpu/slb:env.slb exists=1\nvmstate_load_state_success cpu/slb\n"
         "vmstate_load_state_fail cpu post-load\n", "(last field cpu/slb:env.slb) cpu post-load"),
    ],
)  # fmt: skip
def test_the_field_that_a_trace_ends_in(log: str, field: str) -> None:
    assert last_field(log) == field


# -- prediction and reality -----------------------------------------------------------------------------------------


@dataclass
class Verdict:
    """As `vmstate_tools.check` gives it."""

    stream: str
    destination: str
    loads: bool
    obstacles: pd.DataFrame = field(default_factory=pd.DataFrame)


def test_side_by_side(taken: Path) -> None:
    (file,) = taken.glob("*/pseries-5.2/*.mig.zst")
    binary = qemu("qemu-system-ppc64")
    release = vt.try_load(file, binary).dst_version
    obstacle = pd.DataFrame([{"section": "cpu", "field": "env.spr[287]"}])
    verdicts = [
        Verdict(str(file), f"QEMU {release}, pseries-5.2, 970_v2.2", True),
        Verdict(str(file), "somewhere", False, obstacle),
    ]
    frame = vt.confirm(verdicts, [binary], manifest=taken / "manifest.csv")
    assert list(frame["predicted"]) == [True, False]
    assert list(frame["loaded"]) == [True, True]
    assert list(frame["agree"]) == [True, False]
    assert list(frame["section"])[1] == "cpu"
    assert list(frame["qemu"]) == [release] * 2
    refused = vt.confirm(verdicts[1], {release: binary}, cpu="POWER7_v2.3", manifest=taken / "manifest.csv")
    assert list(refused["agree"]) == [True]
    with pytest.raises(QemuError, match=r"no binary of release 2.4 .*there are: "):
        vt.confirm(Verdict(str(file), "QEMU 2.4.0, pseries-2.4", True), binary)


def test_captured_decoded_predicted_and_tried(taken: Path, tmp_path: Path) -> None:
    """The whole way, with predictions from streams that the destinations themselves wrote."""
    binary = qemu("qemu-system-ppc64")
    frame = vt.capture(binary, "pseries-2.7", "POWER7_v2.3", out=taken, memory_mib=256, ran=True)
    (file,) = taken.glob("*/pseries-2.7/970_v2.2+ran.mig.zst")
    other = taken / frame["file"][0]
    verdicts, options = [], []
    for stream, reference, cpu in ((file, file, "970_v2.2"), (file, other, "POWER7_v2.3"), (other, file, "970_v2.2")):
        release = frame["release"][0]
        destination = vt.Destination.from_stream(reference, release=release, machine="pseries-2.7", cpu=cpu)
        verdicts.append(vt.check(stream, destination))
        options.append({"cpu": cpu})
    broken = tmp_path / "broken.mig"
    vt.rewrite(file, broken, {("spapr_pci", "buid"): 7})
    destination = vt.Destination.from_stream(file, release=release, machine="pseries-2.7", cpu="970_v2.2")
    verdicts.append(vt.check(broken, destination))
    options.append({"machine": "pseries-2.7", "cpu": "970_v2.2"})
    rows = [vt.confirm(verdict, binary, **given).iloc[0] for verdict, given in zip(verdicts, options, strict=True)]
    assert [row["loaded"] for row in rows] == [True, False, False, False]
    assert [row["agree"] for row in rows] == [True] * 4, [str(v) for v in verdicts]
    assert (rows[3]["section"], rows[3]["field"]) == ("spapr_pci", "buid")
    assert rows[3]["fail_field"] == "spapr_pci:buid=-22"
