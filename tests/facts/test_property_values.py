"""The values that properties have on a machine type, beside those of devices in the QEMU that is installed."""

from __future__ import annotations

import json
import subprocess

import pytest
from captures import COLLECTION
from qemus import qemu

import vmstate_tools as vt
from vmstate_tools.facts import catalog, source
from vmstate_tools.facts.properties import properties_in

DEVICES = {
    "x86_64": ("e1000", "virtio-net-pci", "virtio-balloon-pci", "vmxnet3", "intel-hda", "VGA"),
    "ppc64": ("e1000", "virtio-net-pci", "virtio-scsi-pci"),
}
#: Settings of yes or no: what others hold may be another value once the device is there.
YES_OR_NO = ("qdev_prop_bit", "qdev_prop_bit64", "qdev_prop_bool")
SAID = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


def asked(binary: str, machine: str, wanted: list[tuple[str, str]]) -> list[bool]:
    """Returns the value of each (device, property), as qom-get gives it in a machine that was not started."""
    devices = list(dict.fromkeys(device for device, _ in wanted))
    command = [binary, "-M", machine, "-m", "256", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"]
    for device in devices:
        command += ["-device", f"{device},id={device}"]
    lines = [{"execute": "qmp_capabilities"}]
    for device, name in wanted:
        lines.append({"execute": "qom-get", "arguments": {"path": f"/machine/peripheral/{device}", "property": name}})
    lines.append({"execute": "quit"})
    text = "\n".join(json.dumps(line) for line in lines)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    return [reply["return"] for reply in replies if "return" in reply][1:-1]


@pytest.mark.parametrize(
    ("target", "machine"),
    [("x86_64", "pc-i440fx-2.4"), ("x86_64", "pc-i440fx-2.11"), ("x86_64", "pc-q35-7.2"), ("ppc64", "pseries-2.6")],
)
def test_values_are_those_of_the_qemu_that_is_installed(target, machine):
    binary = qemu(f"qemu-system-{target}")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    if "version 7.2." not in version:
        pytest.skip(f"{binary} is not of 7.2, which the tables are compared with")
    at = source.place("7.2")
    wanted = [
        (device, name)
        for device in DEVICES[target]
        for name, row in properties_in(device, at, target).items()
        if row["info"] in YES_OR_NO
    ]
    assert len(wanted) > 80
    found = {key: SAID.get(str(catalog.value(*key, machine, "7.2", target).value)) for key in wanted}
    assert found == dict(zip(wanted, asked(binary, machine, wanted), strict=True))


@pytest.mark.collection
def test_the_clock_of_pl011_is_sent_where_the_tables_say():
    """5.2 sends it on every machine type, which 5.1 refuses; 7.2 where migrate-clk is on."""
    streams = sorted(p for r in ("5.2", "7.2") for p in COLLECTION.glob(f"captures/qemu-{r}/virt*-*/*.mig.zst"))
    assert len(streams) > 12
    for path in streams:
        release, machine = path.parts[-3].removeprefix("qemu-"), path.parts[-2]
        if not machine.startswith("virt-"):
            continue
        with vt.open(path) as stream:
            fields = stream.fields(section="pl011")
        sent = fields["path"].str.contains("clk").any()
        gate = catalog.value("pl011", "migrate-clk", machine, release, "aarch64").value if release != "5.2" else "1"
        assert sent == (gate == "1"), path
