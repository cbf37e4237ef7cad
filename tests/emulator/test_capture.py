from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from qemus import children, old_qemu, qemu
from running_vm import Qmp, until
from writer import Vmsd, Writer, u32

import vmstate_tools as vt
from vmstate_tools.emulator import guest
from vmstate_tools.emulator.binaries import listed_names
from vmstate_tools.emulator.tables import put_row
from vmstate_tools.errors import QemuError, VmstateError


def test_streams_with_their_manifest(tmp_path: Path) -> None:
    frame = vt.capture(
        qemu("qemu-system-ppc64"),
        ["pseries-2.[67]", "mac99"],
        ["970_v2.2", "POWER7_v2.3"],
        out=tmp_path,
        memory_mib=256,
        jobs=2,
    )
    made = [(row.machine, row.cpu) for row in frame.itertuples()]
    machines = ("pseries-2.6", "pseries-2.7", "mac99")
    assert made == [(machine, cpu) for machine in machines for cpu in ("970_v2.2", "POWER7_v2.3")]
    refused = frame[frame["refused"] != ""]
    assert [(r.machine, r.cpu) for r in refused.itertuples()] == [("mac99", "POWER7_v2.3")]
    assert "Bus model not supported" in refused["refused"].iloc[0]
    assert "Bus model not supported" in (tmp_path / "refused.csv").read_text()
    taken = vt.load(tmp_path)
    assert len(taken.streams) == 5 and taken.errors.empty
    for row in frame[frame["refused"] == ""].itertuples():
        with vt.open(tmp_path / row.file) as stream:
            data = bytes(stream.source.view)
            assert stream.machine == row.machine
            assert (len(data), hashlib.sha256(data).hexdigest()) == (row.size, row.sha256)
            assert stream.build() == data
    assert not list(tmp_path.rglob("*.part"))
    assert not children()


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    binary = qemu("qemu-system-ppc64")
    first = vt.capture(binary, "mac99", out=tmp_path)
    path = tmp_path / first["file"][0]
    assert path.name == "default.mig.zst"
    before = path.stat().st_mtime_ns
    again = vt.capture(binary, "mac99", out=tmp_path)
    assert path.stat().st_mtime_ns == before
    assert again["sha256"][0] == first["sha256"][0] and again["size"][0] == first["size"][0]
    vt.capture(binary, "mac99", out=tmp_path, overwrite=True)
    assert path.stat().st_mtime_ns > before
    assert len((tmp_path / "manifest.csv").read_text().splitlines()) == 2


def test_several_may_write_a_manifest(tmp_path: Path) -> None:
    table = tmp_path / "manifest.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: put_row(table, ("file", "cpu"), {"file": n // 2, "cpu": n % 2}, ("file",)), range(40)))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert sorted(int(row["file"]) for row in rows) == list(range(20))
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.csv"]


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"file,a\nx,1,2,3\n", b"file,file\nx,y\n", b"\xff\xfe\n"])
def test_a_table_of_the_users_own_stays(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "manifest.csv"
    table.write_bytes(content)
    with pytest.raises(VmstateError, match=r"another table|no table"):
        put_row(table, ("file", "cpu"), {"file": "x", "cpu": "y"}, ("file",))
    assert table.read_bytes() == content


def test_a_guest_that_ran(tmp_path: Path) -> None:
    frame = vt.capture(qemu("qemu-system-ppc64"), "pseries-2.7", "970_v2.2", out=tmp_path, memory_mib=256, ran=True)
    file = tmp_path / frame["file"][0]
    assert file.name == "970_v2.2+ran.mig.zst"
    with vt.open(file) as stream:
        for n in range(32):
            assert stream.value("cpu", f"env.gpr[{n}]") == int.from_bytes(bytes([n]) * 8, "big")
            assert stream.ram.read("ppc_spapr.ram", 0x100000, 4) == bytes([0x5F]) * 4
        assert stream.value("cpu", "env.spr[9]") == 0x43434343
    text = (file.parent / "970_v2.2+ran.registers.txt").read_text()
    assert "GPR28 1c1c1c1c1c1c1c1c 1d1d1d1d1d1d1d1d" in text


def test_x86_ran(tmp_path: Path) -> None:
    frame = vt.capture(qemu("qemu-system-x86_64"), "microvm", "qemu64", out=tmp_path, memory_mib=32, ran=True)
    with vt.open(tmp_path / frame["file"][0]) as stream:
        assert [stream.value("cpu", f"env.regs[{n}]") for n in range(8)] == [0x11111111 * (n + 1) for n in range(8)]


def test_further_options(tmp_path: Path) -> None:
    frame = vt.capture(
        qemu("qemu-system-ppc64"),
        "pseries-2.7,cap-htm=off",
        "POWER8_v2.0",
        out=tmp_path,
        memory_mib=256,
        arguments=["-smp", "2"],
        config="smp2",
        capabilities=["xbzrle"],
    )
    assert frame["refused"][0] == ""
    assert frame["file"][0].endswith("/pseries-2.7,cap-htm=off/POWER8_v2.0+smp2.mig.zst")
    assert frame["capabilities"][0] == "xbzrle"
    with vt.open(tmp_path / frame["file"][0]) as stream:
        assert stream.section("cpu", 1)


def test_a_path_that_a_shell_would_take_apart(tmp_path: Path) -> None:
    folder = tmp_path / "a b; touch 'pwned' $(touch pwned) \"c\","
    frame = vt.capture(qemu("qemu-system-ppc64"), "mac99", out=folder)
    assert frame["refused"][0] == "" and (folder / frame["file"][0]).is_file()
    assert not [p for p in tmp_path.rglob("*pwned*") if p != folder]


def test_a_temporary_directory_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("with, comma", "x" * 150):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        frame = vt.capture(qemu("qemu-system-ppc64"), "mac99", out=tmp_path / "out", overwrite=True)
        assert frame["refused"][0] == ""
        assert not list(folder.iterdir())


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(QemuError, match="no program"):
        vt.capture(tmp_path / "qemu", "pseries", out=tmp_path)
    with pytest.raises(QemuError, match="nothing that matches 'toaster-\\*'"):
        vt.capture(qemu("qemu-system-ppc64"), "toaster-*", out=tmp_path)
    with pytest.raises(QemuError, match="does not say its version"):
        vt.capture("true", "pseries", out=tmp_path)
    frame = vt.capture(qemu("qemu-system-ppc64"), "bamboo", out=tmp_path, ran=True)
    assert "no program to run" in frame["refused"][0]
    frame = vt.capture(qemu("qemu-system-ppc64"), "pseries-2.6", "486", out=tmp_path)
    assert "486" in frame["refused"][0] and not (tmp_path / "manifest.csv").exists()


def test_a_qemu_that_hangs_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "qemu-system-ppc64"
    script.write_text("#!/bin/sh\n[ \"$1\" = -version ] && echo 'QEMU emulator version 9.9.9' && exit\nsleep 600\n")
    script.chmod(0o755)
    start = time.monotonic()
    frame = vt.capture(script, "pseries", out=tmp_path, timeout=1)
    assert "does not answer" in frame["refused"][0]
    assert time.monotonic() - start < 20
    assert not children()


def test_a_qemu_as_old_as_1_6(tmp_path: Path) -> None:
    writer = Writer(machine=None)
    writer.ram({"ppc_spapr.ram": bytes(8192)})
    writer.full("toy", Vmsd("toy", [u32("a", 7)]))
    stream = tmp_path / "stream"
    stream.write_bytes(writer.finish())
    frame = vt.capture(old_qemu(tmp_path, stream), "pseries", "POWER7_v2.3", out=tmp_path / "out")
    assert frame["refused"][0] == ""
    assert (frame["release"][0], frame["arch"][0]) == ("1.6.0", "ppc64")
    with vt.open(tmp_path / "out" / frame["file"][0]) as taken:
        assert bytes(taken.source.view) == stream.read_bytes()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("PowerPC 603   PVR 00030100\nPowerPC vanilla   (alias for 603)\n", [("603", False), ("vanilla", True)]),
        ("x86 qemu64  QEMU Virtual CPU\nx86 486  (alias configured by machine type)\n\nRecognized CPUID flags:\n  vme",
         [("qemu64", False), ("486", True)]),
        ("Supported machines are:\npc  Standard PC (alias of pc-1)\npc-1  Standard PC\n",
         [("pc", True), ("pc-1", False)]),
        ("(process:7): GLib-WARNING **: memory\nSupported machines are:\nmac99  Mac99\n", [("mac99", False)]),
        ("Available CPUs:\n  970_v2.2\n  cortex-a57\n", [("970_v2.2", False), ("cortex-a57", False)]),
    ],
)  # fmt: skip
def test_names_that_help_lists(text: str, names: list[tuple[str, bool]]) -> None:
    assert listed_names(text) == names


def test_the_blobs_are_ours_alone() -> None:
    """Zeros, but for the program and an ELF header: nothing in it is long enough to be anybody's firmware."""
    for name, content in guest.files().items():
        assert len(content.strip(b"\0")) < 2048, name


# -- whatever happens to us -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_we_end(tmp_path: Path, number: int) -> None:
    pids = tmp_path / "pids"
    script = tmp_path / "qemu-system-ppc64"
    script.write_text(
        "#!/bin/sh\n[ \"$1\" = -version ] && echo 'QEMU emulator version 9.9.9' && exit\n"
        f"echo $$ >> {pids}\nexec sleep 600\n"
    )
    script.chmod(0o755)
    code = f"import vmstate_tools as vt; vt.capture({str(script)!r}, ['a', 'b'], out={str(tmp_path / 'o')!r}, jobs=2)"
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(vt.__file__).parents[1])}
    ours = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE)
    try:
        until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        ours.send_signal(number)
        _, told = ours.communicate(timeout=30)
    finally:
        ours.kill()
    assert ours.returncode == {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], told
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids.read_text().split()))
    if number != signal.SIGKILL:
        assert not list(tmp_path.glob("vmstate-*"))


# -- a running VM ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [True, False])
def test_a_stream_of_a_running_vm(vm: Path, tmp_path: Path, stop: bool) -> None:
    with Qmp(vm) as qmp:
        before = qmp("query-migrate-parameters")["max-bandwidth"]
    out = tmp_path / "taken.mig"
    row = vt.attach(vm).capture(out, stop=stop)
    assert (row["machine"], row["arch"], row["size"]) == ("pseries-2.7", "ppc64", out.stat().st_size)
    assert row["release"].count(".") == 2
    with vt.open(out) as stream:
        assert stream.build() == out.read_bytes()
        assert stream.value("cpu", "env.gpr[5]") == 0x0505050505050505
    with Qmp(vm) as qmp:
        assert qmp("query-status") == {"running": True, "singlestep": False, "status": "running"}
        assert qmp("query-migrate-parameters")["max-bandwidth"] == before
        qmp("stop")
    with pytest.raises(FileExistsError):
        vt.attach(vm).capture(out)
    vt.attach(vm).capture(tmp_path / "again.mig.zst")
    with Qmp(vm) as qmp:
        assert not qmp("query-status")["running"], "it was paused before"


def test_a_vm_whose_migration_is_several_streams(vm: Path, tmp_path: Path) -> None:
    with Qmp(vm) as qmp:
        qmp("migrate-set-capabilities", capabilities=[{"capability": "multifd", "state": True}])
    with pytest.raises(QemuError, match="multifd"):
        vt.attach(vm).capture(tmp_path / "x.mig")
    with Qmp(vm) as qmp:
        assert qmp("query-status")["running"]


def test_a_migration_that_takes_too_long(vm: Path, tmp_path: Path) -> None:
    with pytest.raises(QemuError, match=r"not done after 0.001 s"):
        vt.attach(vm).capture(tmp_path / "x.mig", timeout=0.001)
    with Qmp(vm) as qmp:
        assert qmp("query-status")["running"]
    assert not list(tmp_path.glob("x.mig*"))
    vt.attach(vm).capture(tmp_path / "x.mig")


def test_a_monitor_in_use(vm: Path, tmp_path: Path) -> None:
    with Qmp(vm), pytest.raises(QemuError, match="does somebody else use this monitor"):
        vt.attach(vm, timeout=1).capture(tmp_path / "x.mig")
    with pytest.raises(QemuError, match="nowhere"):
        vt.attach(tmp_path / "nowhere").capture(tmp_path / "x.mig")


def test_in_a_notebook(tmp_path: Path) -> None:
    """There a loop runs already."""
    import asyncio

    binary = qemu("qemu-system-ppc64")

    async def cell() -> None:
        frame = vt.capture(binary, "mac99", out=tmp_path)
        assert frame["refused"][0] == ""

    asyncio.run(cell())
    assert not children()
