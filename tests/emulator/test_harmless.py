"""What a manifest or a stream says reaches QEMU only as plain names and options that are known to do no harm."""

from __future__ import annotations

import csv
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from captures import Captures
from qemus import qemu
from running_vm import listens
from writer import Vmsd, Writer, u32

import vmstate_tools as vt
from vmstate_tools.emulator.destination_line import Wishes, destination_line
from vmstate_tools.emulator.harmless import is_plain, screen
from vmstate_tools.errors import VmstateError
from vmstate_tools.source import open_source

HARMLESS = [
    "-S -nodefaults -nographic -display none -machine pseries-2.7,accel=tcg,cap-htm=off -cpu power8 -m 256",
    "-bios zero.bin -L bios",
    "-m 256M,slots=4,maxmem=4G -smp 4 -smp cpus=2,cores=2 -name guest-name -uuid 12345678-1234-1234-1234-123456789abc",
    "-device virtio-net-pci -device e1000,romfile= -device lsi53c895a,id=l -device scsi-cd,bus=l.0",
    "-device VGA,vgamem_mb=32",
    "-device virtio-blk-pci,drive=d0 -drive file=disk.raw,if=none,id=d0,format=raw,snapshot=on",
    "-object memory-backend-ram,id=m,size=1G -device pc-dimm,memdev=m",
    "-global migration.send-section-footer=off -serial null -bios zero128k.bin -cpu qemu64,+avx2,-sse4a,level=4",
    "--machine pc --nodefaults",
]

HARMFUL = [
    "-machine virt,dumpdtb=x",
    "-machine virt,dumpdtb=/tmp/x",
    "-M virt,kernel=x",
    "-machine virt,firmware=x",
    "-machine pc,accel=qtest",
    "-machine pc,memory-backend=m",
    "-kernel x",
    "-bios /etc/shadow",
    "-bios ../zero.bin",
    "-bios bios/spapr-rtas.bin",
    "-bios disk.raw",
    "-bios zero99999999k.bin",
    "-L /tmp",
    "-cpu a,b=/x",
    "-cpu a,,b",
    "-smp 1,/x",
    "-m $(id)",
    "-device virtio-net-pci,netdev=n",
    "-device virtio-blk-pci,drive=d9",
    "-device e1000,romfile=/etc/passwd",
    "-device e1000,romfile=x",
    "-device e1000,id=x,romfile=,romfile=x",
    "-device loader,file=x,addr=0",
    "-device vfio-pci,host=00:01.0",
    "-device usb-host",
    "-device usb-hub,driver=usb-host,hostbus=1,hostaddr=1",
    "-device driver=usb-host",
    "-device usb-kbd,pcap=x",
    "-device virtio-gpu-gl-pci",
    "-machine pc,type=xenfv",
    "-object memory-backend-ram,id=m,size=1G,prealloc=on",
    "-object memory-backend-ram,id=m,size=1G,qom-type=memory-backend-file",
    "-device virtio-9p-pci,fsdev=f",
    "-device virtserialport,chardev=c",
    '-device {"driver":"loader","file":"x"}',
    "-device ivshmem-plain,memdev=m",
    "-drive file=/dev/sda,if=none,id=d0,format=raw,snapshot=on",
    "-drive file=disk.raw,if=none,id=d0,format=raw",
    "-drive file=disk.raw,if=none,id=d0,format=raw,snapshot=on,file=/x",
    "-object memory-backend-file,id=m,size=1M,mem-path=x",
    "-netdev tap,id=n,script=/tmp/x",
    "-net user,smb=/",
    "-chardev file,id=c,path=x",
    "-serial file:x",
    "-serial stdio",
    "-monitor unix:x",
    "-qmp unix:x",
    "-incoming exec:id",
    "-readconfig x",
    "-sandbox off",
    "-name x,process=y",
    "-global virtio-net-pci.romfile=x",
    "-global driver=migration,property=x,value=y",
    "-D x",
    "-d exec",
    "-trace x",
    "-pidfile x",
    "-daemonize",
    "-runas root",
    "-fw_cfg name=x,file=y",
    "-plugin x",
    "disk.img",
    "@file",
    "-machine",
    "-gdb tcp::1",
    "-vnc :0",
    "-unterminated 'quote",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_what_passes(line: str) -> None:
    screened = screen(line)
    assert not screened.others
    assert screened.harmless == [word.replace("--", "-", 1) for word in shlex.split(line)]


@pytest.mark.parametrize("line", HARMFUL)
def test_what_does_not(line: str) -> None:
    assert screen(line).others
    more = screen(f"-S {line}")
    assert more.others and more.harmless in (["-S"], [])


def test_plain_names() -> None:
    assert all(map(is_plain, ("virt", "pseries-2.7", "POWER7_v2.3", "max+", "..", "qemu64")))
    assert not any(map(is_plain, ("", "-x", "a,b", "a b", "a/b", "a=b", "a\n", "ä", "a;b", "$(id)", "a\0")))


def test_all_captures_pass_but_those_with_a_file(captures: Captures) -> None:
    """Command lines that were written by hand for real captures; shared memory in a file is what is left out."""
    rows = []
    for folder in captures.folders:
        with (folder / "manifest.csv").open(newline="") as file:
            rows += csv.DictReader(file)
    left = {row["config"]: screen(row["arguments"]).others for row in rows if screen(row["arguments"]).others}
    assert set(left) <= {"x-ignore-shared"}
    assert len(rows) > 50


# -- with real QEMUs, and streams of strangers ------------------------------------------------------------------------


def stranger(folder: Path, machine: str, manifest: str | None = None) -> Path:
    writer = Writer(machine=machine)
    writer.ram({"pc.ram": bytes(4096)})
    writer.full("toy", Vmsd("toy", [u32("a", 7)]))
    path = folder / "x.mig"
    path.write_bytes(writer.finish())
    if manifest is not None:
        with (folder / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["file", "machine", "cpu", "arguments"], ["x.mig", "", "", manifest]])
    return path


def line_for(file: Path, row: dict, arch: str, wishes: Wishes) -> list[str]:
    with open_source(file) as source:
        return destination_line(source, row, arch, wishes)


def test_a_machine_name_that_writes_a_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    file = stranger(tmp_path, f"virt,dumpdtb={victim}")
    for options in ({}, {"cpu": "cortex-a57"}, {"memory_mib": 64}, {"trust_manifest": True}):
        with pytest.raises(VmstateError, match="is no machine type"):
            vt.try_load(file, qemu("qemu-system-aarch64"), **options)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["-S", "help,x", "a b", "none,kernel=/etc/passwd"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(VmstateError, match="is no machine type"):
        line_for(stranger(tmp_path, name), {}, "x86_64", Wishes())
    with pytest.raises(VmstateError, match="is no CPU model"):
        line_for(stranger(tmp_path, "pc"), {"cpu": name}, "x86_64", Wishes())


def test_a_manifest_that_runs_a_program(tmp_path: Path) -> None:
    script, ran = tmp_path / "script", tmp_path / "ran"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    planted = f"-machine none -netdev tap,id=n,script={script},downscript=no -device virtio-net-pci,netdev=n"
    file = stranger(tmp_path, "pc", planted)
    with pytest.raises(VmstateError, match="--trust-manifest") as caught:
        vt.try_load(file, qemu("qemu-system-x86_64"))
    assert f"script={script}" in str(caught.value), "the whole line is shown"
    assert not ran.exists()


def test_a_manifest_above_is_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    stranger(tmp_path, "pc", "-kernel x")
    with (tmp_path / "manifest.csv").open("a", newline="") as file:
        csv.writer(file).writerow(["below/x.mig", "", "", "-kernel x"])
    outcome = vt.try_load(stranger(tmp_path / "below", "pc"), qemu("qemu-system-x86_64"), memory_mib=64)
    assert "-kernel" not in outcome.command and outcome.vmstate_loaded is False


def test_a_manifest_that_is_trusted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    file = stranger(tmp_path, "pc", f"-S -machine none -nodefaults -display none -serial file:{out}")
    with pytest.raises(VmstateError, match="--trust-manifest"):
        vt.try_load(file, qemu("qemu-system-x86_64"))
    assert not out.exists()
    outcome = vt.try_load(file, qemu("qemu-system-x86_64"), trust_manifest=True)
    assert f"-serial file:{out}" in capfd.readouterr().err and outcome.started


def test_qemu_is_started_in_an_empty_directory_and_a_sandbox(tmp_path: Path) -> None:
    binary = qemu("qemu-system-x86_64")
    script, seen = tmp_path / "qemu-system-x86_64", tmp_path / "seen"
    script.write_text(f'#!/bin/sh\n{{ pwd; ls -A; echo "$@"; echo; }} >> {seen}\nexec {binary} "$@"\n')
    script.chmod(0o755)
    vt.try_load(stranger(tmp_path, "pc"), script, memory_mib=64)
    starts = [start.splitlines() for start in seen.read_text().split("\n\n") if start.strip()]
    assert len(starts) == 3  # for its version, for what it traces, for the load
    assert all(len(start) == 2 and Path(start[0]).name == "work" for start in starts), "no file in it"
    assert len({start[0] for start in starts}) == 3 and not any(Path(start[0]).exists() for start in starts)
    for word in ("obsolete=deny", "elevateprivileges=deny", "spawn=deny", "resourcecontrol=deny"):
        assert word in starts[-1][1]


def test_a_qemu_without_a_sandbox(tmp_path: Path) -> None:
    binary = qemu("qemu-system-x86_64")
    script = tmp_path / "qemu-system-x86_64"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *-sandbox*) echo "-sandbox support is not enabled in this QEMU" >&2; exit 1;; esac\n'
        f'exec {binary} "$@"\n'
    )
    script.chmod(0o755)
    outcome = vt.try_load(stranger(tmp_path, "pc"), script, memory_mib=64)
    assert outcome.started and outcome.vmstate_loaded is False


@pytest.mark.parametrize("trust", [False, True])
def test_a_strangers_guest_does_not_run(tmp_path: Path, trust: bool) -> None:
    """A manifest without -S and without a display: the guest stays paused, no window and no server is opened."""
    file = stranger(tmp_path, "pc")
    row = {"arguments": "-machine pc -m 64 -cpu qemu64" + " -serial file:x" * trust}
    line = line_for(file, row, "x86_64", Wishes(trust_manifest=trust))
    assert "-S" in line and line[line.index("-display") + 1] == "none"
    assert line_for(file, {"arguments": "-S -nographic"}, "x86_64", Wishes()) == ["-S", "-nographic"]


def test_a_sandbox_of_the_users_own_stays(tmp_path: Path) -> None:
    file = stranger(tmp_path, "pc")
    outcome = vt.try_load(file, qemu("qemu-system-x86_64"), memory_mib=64, arguments=["-sandbox", "off"])
    assert outcome.started and outcome.command.endswith("-sandbox off")


# -- guests as they are started by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "machine", "more"),
    [
        ("qemu-system-x86_64", "pc", []),
        ("qemu-system-x86_64", "pc-q35-6.2", ["-nodefaults", "-smp", "2"]),
        ("qemu-system-x86_64", "microvm", []),
        ("qemu-system-ppc64", "pseries", []),
        ("qemu-system-aarch64", "virt", []),
        ("qemu-system-s390x", "s390-ccw-virtio", []),
    ],
)
def test_a_paused_guest_loads_with_the_firmware_that_qemu_brings(
    tmp_path: Path, program: str, machine: str, more: list[str]
) -> None:
    monitor = tmp_path / "qmp"
    command = [qemu(program), "-S", "-display", "none", "-machine", machine, *more]
    process = subprocess.Popen([*command, "-qmp", f"unix:{monitor},server=on,wait=on"], stdin=subprocess.DEVNULL)
    try:
        while not listens(monitor):
            assert process.poll() is None
            time.sleep(0.05)
        vt.attach(monitor).capture(tmp_path / "guest.mig")
    finally:
        process.kill()
        process.wait()
    (tmp_path / "manifest.csv").unlink()
    outcome = vt.try_load(tmp_path / "guest.mig", program)
    assert outcome.loaded and "-bios" not in outcome.command, outcome


def test_firmware_of_zeros_is_asked_for(tmp_path: Path) -> None:
    binary = qemu("qemu-system-x86_64")
    file = tmp_path / vt.capture(binary, "pc-q35-6.2", out=tmp_path, progress=False)["file"][0]
    alone = file.rename(tmp_path / "alone.mig.zst")
    refused = vt.try_load(alone, binary)
    assert "pc.bios" in refused.message and "--blank-firmware" in str(refused)  # another length
    outcome = vt.try_load(alone, binary, blank_firmware=True)
    assert outcome.loaded and "-bios zero128k.bin" in outcome.command
    alone.rename(file)
    outcome = vt.try_load(file, binary, manifest=tmp_path / "manifest.csv")
    assert outcome.loaded and "-bios zero128k.bin" in outcome.command, "its manifest names a file of ours"
