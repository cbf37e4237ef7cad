"""The tables in data/source beside QEMUs that are installed, and beside the streams that came from each release."""

from __future__ import annotations

import json
import subprocess
from functools import cache

import pytest
from qemus import qemu

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.qemu_source.against_dump import compare
from vmstate_tools.qemu_source.against_stream import lays_out
from vmstate_tools.qemu_source.source_tables import read_release, read_table

SOURCE = data_path("source")
#: Why a description is not what Debian's 7.2.22 says: README.md.
EXPLAINED = {"pflash_cfi01", "pl041_regfile"}
MACHINES = {"ppc64": "pseries", "x86_64": "q35", "aarch64": "virt", "s390x": "s390-ccw-virtio"}
STREAMS = {
    "qemu-2.6.0/pseries-2.6": "ppc64",
    "qemu-3.1.0/pseries-3.1": "ppc64",
    "qemu-7.2/pseries-7.2": "ppc64",
    "qemu-5.2/pc-q35-5.2": "x86_64",
    "qemu-7.2/pc-q35-7.2": "x86_64",
    "qemu-7.2/virt": "aarch64",
}


@cache
def release(name):
    return read_release(SOURCE, name)


def answers(binary, *commands):
    """What QEMU says to QMP commands."""
    lines = [
        json.dumps({"execute": "qmp_capabilities"}),
        *(json.dumps({"execute": c, "arguments": a}) for c, a in commands),
    ]
    done = subprocess.run(
        [binary, "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio"],
        input="\n".join([*lines, '{"execute": "quit"}']),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [reply["return"] for reply in found if "return" in reply][1:-1]


@pytest.mark.parametrize("target", MACHINES)
def test_descriptions_are_those_of_the_qemu_that_is_installed(target, tmp_path):
    binary = qemu(f"qemu-system-{target}")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    if "version 7.2." not in version:
        pytest.skip(f"{binary} is not of 7.2, which the tables are compared with")
    file = tmp_path / "dump.json"
    subprocess.run([binary, "-M", MACHINES[target], "-display", "none", "-dump-vmstate", file], check=True, timeout=60)
    found = compare(release("7.2.0"), json.loads(file.read_bytes()), target)
    assert found.missing == []
    assert {name for name, _ in found.reasons} <= EXPLAINED, found.reasons
    assert found.same > (30 if target == "s390x" else 250)


def test_types_machine_types_and_defaults_are_those_of_the_qemu_that_is_installed():
    binary = qemu("qemu-system-x86_64")
    commands = [("query-version", {}), ("qom-list-types", {"abstract": True}), ("query-machines", {})]
    devices = ("e1000", "virtio-net-device", "ich9-ahci", "hda-duplex")
    commands += [("device-list-properties", {"typename": d}) for d in devices]
    version, types, machines, *properties = answers(binary, *commands)
    if (version["qemu"]["major"], version["qemu"]["minor"]) != (7, 2):
        pytest.skip(f"{binary} is not of 7.2, which the tables are compared with")
    facts = release("7.2.0")
    parents = {t["name"]: t.get("parent") for t in types if not t["name"].endswith("-cpu")}
    known = {name: facts.device(name, "x86_64") for name in parents}
    unknown = {name for name, found in known.items() if found is None}
    assert unknown <= {"chardev-parallel", "chardev-serial"}
    assert {n: t.parent for n, t in known.items() if t is not None} == {
        n: p for n, p in parents.items() if n not in unknown
    }
    assert {m["name"] for m in machines} <= {m.name for m in facts.machines}
    for device, listed in zip(devices, properties, strict=True):
        mine = facts.properties_of(device, "x86_64")
        theirs = {p["name"]: p["default-value"] for p in listed if isinstance(p.get("default-value"), int)}
        assert {n: int(mine[n].default or 0) for n in theirs} == {n: int(v) for n, v in theirs.items()}


@pytest.mark.parametrize("folder", STREAMS)
def test_streams_are_laid_out_as_the_source_says(folder):
    number = folder.split("/")[0].removeprefix("qemu-")
    facts = release(number if number.count(".") == 2 else f"{number}.0")
    files = sorted((data_path("streams") / folder).glob("*.mig.zst"))
    found = [vmdesc for file in files if (vmdesc := vt.open(file).vmdesc) is not None]
    described = {device.vmsd for vmdesc in found for device in vmdesc.devices if not device.old_style}
    reasons = {v.name: why for v in described if (why := lays_out(facts, v, STREAMS[folder]))}
    assert len(described) > 5 and reasons == {}


def test_a_compatibility_property_of_a_machine_type():
    value = release("7.2.0").compat_of("pc-q35-2.12", "x86_64")
    assert value["migration", "decompress-error-check"] == "off"  # hw_compat_2_12
    assert ("migration", "send-configuration") not in value  # hw_compat_2_3


def test_the_size_of_the_tables():
    assert sum(file.stat().st_size for file in SOURCE.iterdir()) < 3_000_000
    releases = [row["release"] for row in read_table(SOURCE / "releases.csv.zst")]
    assert (releases[0], releases[-1], len(releases)) == ("1.6.0", "10.2.0", 38)
