from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import captures as real
import pytest
from click.testing import CliRunner
from qemus import qemu
from ram_streams import unzst
from running_vm import Qmp, until
from writer import Vmsd, Writer, toy, u8, u32

import vmstate_tools as vt
from vmstate_tools.cli.main import main
from vmstate_tools.errors import RewriteError, StreamError
from vmstate_tools.rewriting.file import edit_of
from vmstate_tools.rewriting.pipe import pass_through


def _rewritten(data: bytes, changes: dict) -> bytes:
    out = io.BytesIO()
    with vt.open(data) as stream:
        vt.rewrite(stream, out, changes)
    return out.getvalue()


def test_values_in_their_places() -> None:
    data = toy().finish()
    changes = {
        ("toy/1", "a"): 0x11223344,
        ("toy/2147483648", "points[2].x"): -5,
        ("toy", "points[0].on"): True,
        ("toy", "c"): "0x7f",
        ("timer", "unused"): b"\1" * 8,
        ("byhand", "data"): "0a0b0c",
    }
    new = _rewritten(data, changes)
    assert len(new) == len(data)
    with vt.open(data) as a, vt.open(new) as b:
        frame = vt.diff(a, b)
        assert b.value("toy", "a", instance=1) == 0x11223344
        assert b.value("toy", "points[2].x", instance=0x80000000) == -5
        assert [b.value("toy", "points[0].on", instance=i) for i in (0x80000000, 1)] == [True, True]
        assert b.value("toy", "c", vmsd="toy/extra") == 0x7F
        assert b.value("timer", "unused") == b"\1" * 8
        assert b.value("byhand", "data") == b"\x0a\x0b\x0c"
    assert len(frame) == 7
    assert sum(x != y for x, y in zip(data, new, strict=True)) <= 4 + 4 + 2 + 1 + 8 + 3


def test_what_is_told() -> None:
    with vt.open(toy().finish()) as stream:
        frame = vt.rewrite(stream, io.BytesIO(), {("toy/1", "a"): 6, ("toy/1", "points[1].x"): -1})
        (row,) = frame.to_dict("records")
        assert row["section"] == "toy" and row["instance_id"] == 1
        assert (row["path"], row["type"], row["before"], row["after"]) == ("a", "uint32", 5, 6)
        assert bytes(stream.source.view[row["offset"] : row["offset"] + 4]) == b"\0\0\0\5"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (("toy/1", "a"), 1 << 32, "from 0 to 4294967295, not 4294967296"),
        (("toy/1", "a"), -1, "not -1"),
        (("toy/1", "points[0].x"), 1 << 31, "from -2147483648 to 2147483647"),
        (("toy/1", "points[0].on"), 2, "from 0 to 1"),
        (("toy/1", "a"), "lots", "not 'lots'"),
        (("toy/1", "a"), b"\0\0\0\1", "takes numbers"),
        (("timer", "unused"), b"\0", "takes 8 bytes"),
        (("timer", "unused"), "zz", "takes 8 bytes"),
        (("timer", "tick"), 1, "no field 'tick'; it has ticks"),
        (("timer", "ticks[2]"), 1, "no field 'ticks\\[2\\]'"),
        (("tim", "ticks[0]"), 1, "no section 'tim' in <bytes>; it has timer"),
        (("toy/7", "a"), 1, "no section 'toy/7'"),
        (("ram", "a"), 1, "section 'ram' of <bytes> has no fields that a description names: it is ram"),
    ],
)
def test_what_a_stream_cannot_take(key: tuple[str, str], value: object, message: str) -> None:
    out = io.BytesIO()
    with vt.open(toy().finish()) as stream, pytest.raises(RewriteError, match=message):
        vt.rewrite(stream, out, {("toy/1", "a"): 1, key: value})
    assert out.getvalue() == b""


def test_a_path_of_several_vmsds() -> None:
    writer = Writer(machine="toy-1.0")
    writer.full("x", Vmsd("x", [u8("a", 1)], [Vmsd("x/one", [u8("b", 2)]), Vmsd("x/two", [u8("b", 3)])]))
    data = writer.finish()
    with pytest.raises(RewriteError, match="in several vmsds: x/one, x/two"):
        _rewritten(data, {("x", "b"): 4})
    with vt.open(_rewritten(data, {("x", "b", "x/two"): 4})) as stream:
        assert stream.value("x", "b", vmsd="x/one") == 2 and stream.value("x", "b", vmsd="x/two") == 4


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(toy().finish())
    vt.rewrite(tmp_path / "a.mig", tmp_path / "b.mig.zst", {("toy/1", "a"): 9})
    assert unzst(tmp_path / "b.mig.zst") == _rewritten(toy().finish(), {("toy/1", "a"): 9})
    with pytest.raises(FileExistsError):
        vt.rewrite(tmp_path / "b.mig.zst", tmp_path / "a.mig", {})
    with pytest.raises(RewriteError):
        vt.rewrite(tmp_path / "a.mig", tmp_path / "c.mig", {("toy/1", "a"): -1})
    with pytest.raises(FileExistsError, match="is the input itself"):
        vt.rewrite(tmp_path / "a.mig", tmp_path / "a.mig", {("toy/1", "a"): 7}, overwrite=True)
    assert (tmp_path / "a.mig").read_bytes() == toy().finish()
    vt.rewrite(tmp_path / "a.mig", tmp_path / "b.mig.zst", {("toy/1", "a"): 7}, overwrite=True)
    with vt.open(tmp_path / "b.mig.zst") as stream:
        assert stream.value("toy", "a", instance=1) == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mig", "b.mig.zst"]


# -- on a pipe --------------------------------------------------------------------------------------------------------


class Dribble(io.RawIOBase):
    """A pipe that gives what it likes."""

    def __init__(self, data: bytes, most: int, seed: int = 0) -> None:
        self.data, self.most, self.at, self.random = memoryview(data), most, 0, random.Random(seed)

    def readinto(self, buffer) -> int:
        size = min(len(buffer), len(self.data) - self.at, self.random.randint(1, self.most))
        buffer[:size] = self.data[self.at : self.at + size]
        self.at += size
        return size


def _piped(data: bytes, changes: dict, most: int = 1 << 16) -> bytes:
    out = io.BytesIO()
    pass_through(Dribble(data, most), out, edit_of(changes))
    return out.getvalue()


PIPED = sorted(
    f
    for f, row in real.HERE.manifest.items()
    # Pages with places in a file; devices before RAM, and so before what describes them.
    if not re.search("mapped-ram|background-snapshot", f) and int(row["size"]) < 8 << 20
)[:: max(1, len(real.HERE.manifest) // 40)]  # fmt: skip


@pytest.mark.parametrize("most", [300, 70_000])
def test_real_streams_go_through_as_they_are(most: int) -> None:
    for file in PIPED:
        data = unzst(real.capture(file))
        assert _piped(data, {}, most) == data, file


def test_a_pipe_and_a_file_are_changed_alike() -> None:
    changed = 0
    for file in PIPED:
        data = unzst(real.capture(file))
        with vt.open(data) as stream:
            try:
                vt.rewrite(stream, io.BytesIO(), changes := {("timer", "cpu_clock_offset"): 0x1234567})
            except RewriteError:
                continue
        assert _piped(data, changes) == _rewritten(data, changes) != data, file
        changed += 1
    assert changed > len(PIPED) // 2


@pytest.mark.parametrize("page_size", [1024, 4096, 16384, 65536])
@pytest.mark.parametrize("machine", [None, "toy-1.0"])
def test_any_page_size(page_size: int, machine: str | None) -> None:
    """Nothing at the front tells it: the vmdesc comes last."""
    writer = Writer(machine=machine, page_size=page_size)
    some = random.Random(page_size)
    pages = [some.choice([bytes(page_size), some.randbytes(page_size)]) for _ in range(64)]
    writer.ram({"a": b"".join(pages), "b": bytes(page_size), "c": some.randbytes(page_size)})
    writer.full("toy", Vmsd("toy", [u32("a", 1)]))
    data = writer.finish()
    for most in (64, 1 << 20):
        new = _piped(data, {("toy", "a"): 2}, most)
        assert new == _rewritten(data, {("toy", "a"): 2}) != data


def test_framing_of_all_kinds() -> None:
    for options in ({}, {"machine": None, "footers": False}, {"uuid": b"u" * 16, "page_bits": 12}):
        data = toy(**options).finish(vmdesc=bool(options.get("footers", True)))
        assert _piped(data, {}, 50) == data
    writer = Writer(machine="toy-1.0")
    writer.command(1)
    writer.command(2, bytes(4))
    early = Vmsd("early", [u32("a", 0x7E, 0x04040404)])
    writer.full("early", early)  # as virtio-mem's, since 8.0
    writer.ram({"a": bytes(4096) + b"x" * 4096})
    writer.full("toy", Vmsd("toy", [u32("a", 1)]))
    data = writer.finish()
    for most in (7, 1 << 20):
        assert _piped(data, {("toy", "a"): 2}, most) == _rewritten(data, {("toy", "a"): 2})
    only = Writer(machine="toy-1.0")
    assert _piped(only.finish(), {}) == only.data + b""


def test_what_a_pipe_cannot_take() -> None:
    data = toy().finish()

    def refused(stream: bytes, message: str | None = None) -> bytes:
        out = io.BytesIO()
        with pytest.raises((StreamError, RewriteError), match=message):
            pass_through(Dribble(stream, 999), out, edit_of({("toy/1", "a"): 1 << 40}))
        return out.getvalue()

    devices = data.index(b"\x05timer") - 5
    # A change that cannot be: RAM has gone, and nothing else.
    assert refused(data, "from 0 to 4294967295") == data[:devices]
    for cut in range(0, devices, 97):
        assert data.startswith(refused(data[:cut]))
    refused(b"gzip" + data, "the magic")
    refused(data[:-40])
    refused(toy(capabilities=["mapped-ram"]).finish(), "a file, not a pipe")
    writer = Writer(machine="toy-1.0")
    writer.command(7, bytes(4))
    refused(writer.finish(), "PACKAGED")
    at = data.index(b"toy.ram") + 16
    refused(data[:at] + b"\xff" * 64 + data[at:])
    refused(data.replace(b"\x03ram", b"\x03rum"), "form that is not known")


def test_memory_and_time_do_not_grow_with_the_stream() -> None:
    """A stream of 512 MiB through a process that may have no more memory than Python takes with what it imports."""
    size = 512 << 20
    program = (
        "import resource, sys, io\n"
        "from vmstate_tools.rewriting.pipe import pass_through\n"
        "from vmstate_tools.rewriting.file import edit_of\n"
        "sys.path.insert(0, 'tests')\n"
        "from writer import *\n"
        "w = Writer(machine='toy-1.0'); w.full('toy', Vmsd('toy', [u32('a', 1)]))\n"
        "tail = w.finish()[8 + 5 + 7:]\n"
        "size = 512 << 20\n"
        "head = b'QEVM' + be(3, 4) + b'\\x07' + be(7, 4) + b'toy-1.0'\n"
        "head += b'\\x01' + be(9, 4) + pstring('ram') + be(0, 4) + be(4, 4)\n"
        "head += be(size | 4, 8) + pstring('a') + be(size, 8) + be(16, 8) + b'\\x7e' + be(9, 4) + b'\\x02' + be(9, 4)\n"
        "end = be(16, 8) + b'\\x7e' + be(9, 4) + b'\\x03' + be(9, 4) + be(16, 8) + b'\\x7e' + be(9, 4)\n"
        "def content():\n"
        "    yield head + be(8, 8) + pstring('a') + b'z' * 4096\n"
        "    for at in range(4096, size, 1 << 20):\n"
        "        top = min(at + (1 << 20), size)\n"
        "        yield b''.join(be(a | 0x28, 8) + b'z' * 4096 for a in range(at, top, 4096))\n"
        "    yield end + tail\n"
        "class In:\n"
        "    def __init__(self): self.pieces, self.left = content(), b''\n"
        "    def readinto(self, buffer):\n"
        "        self.left = self.left or next(self.pieces, b'')\n"
        "        n = min(len(buffer), len(self.left)); buffer[:n] = self.left[:n]; self.left = self.left[n:]\n"
        "        return n\n"
        "class Out:\n"
        "    total = 0\n"
        "    def write(self, data): self.total += len(data); return len(data)\n"
        "pass_through(io.BytesIO(head + end + tail), Out(), edit_of({('toy', 'a'): 2}))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "out = Out(); (change,) = pass_through(In(), out, edit_of({('toy', 'a'): 2}))\n"
        "print(out.total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    here = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, env={"PYTHONPATH": str(here)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    total, grown = map(int, done.stdout.split())
    assert total > size
    assert grown < 16 << 10, f"{grown} KiB more"


# -- real QEMUs -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ran")
    ppc64 = qemu("qemu-system-ppc64")
    for machine, cpu in (("pseries-2.7", "POWER7_v2.3"), ("mac99", "7400_v2.9")):
        frame = vt.capture(ppc64, machine, cpu, out=folder, memory_mib=256, ran=True)
        assert frame["refused"][0] == ""
    frame = vt.capture(qemu("qemu-system-x86_64"), "q35", "qemu64", out=folder, memory_mib=64, ran=True)
    assert frame["refused"][0] == ""
    return folder


@pytest.mark.parametrize(
    ("machine", "section", "path", "wrong", "at"),
    [
        # Checks that QEMU 7.2 makes: of a field against its own, and in the CPU's post_load.
        ("pseries-2.7", "spapr_pci", "buid", 0x1234, "spapr_pci:buid=-22"),
        ("pseries-2.7", "ics", "nr_irqs", 7, "ics:nr_irqs=-22"),
        ("pseries-2.7", "cpu", "env.spr[287]", 0x00390202, "(last field cpu/slb:env.slb)"),
        ("mac99", "openpic", "nb_cpus", 2, "openpic:nb_cpus=-22"),
        ("q35", "vmmouse", "queue_size", 3, "vmmouse:queue_size=-22"),
    ],
)
def test_a_stream_that_was_refused_loads(
    ran: Path, tmp_path: Path, machine: str, section: str, path: str, wrong: int, at: str
) -> None:
    (file,) = ran.glob(f"*/{machine}/*.mig.zst")
    binary = "qemu-system-x86_64" if machine == "q35" else "qemu-system-ppc64"
    with vt.open(file) as stream:
        right = stream.value(section, path)
    options = {"machine": machine, "cpu": {"mac99": "7400_v2.9", "q35": "qemu64"}.get(machine, "POWER7_v2.3")}
    options["blank_firmware"] = machine == "q35"  # as it was captured; on ppc the firmware is no RAM block of its own
    vt.rewrite(file, tmp_path / "broken.mig", {(section, path): wrong})
    outcome = vt.try_load(tmp_path / "broken.mig", binary, **options)
    assert not outcome.vmstate_loaded
    assert outcome.fail_field.startswith(at)
    assert section in outcome.message
    frame = vt.rewrite(tmp_path / "broken.mig", tmp_path / "repaired.mig", {(section, path): right})
    assert list(frame["before"]) == [wrong]
    assert (tmp_path / "repaired.mig").read_bytes() == unzst(file)
    outcome = vt.try_load(tmp_path / "repaired.mig", binary, registers=True, **options)
    assert outcome.loaded
    before = file.with_name(file.name.replace(".mig.zst", ".registers.txt")).read_text()
    assert outcome.registers is not None and outcome.registers.split() == before.split()


def test_a_running_vm_moves_through_the_filter(vm: Path, tmp_path: Path) -> None:
    """`migrate "exec:vmstate rewrite - …"`: what comes out loads, and has the field changed."""
    out = tmp_path / "out.mig"
    filter_ = (
        f"{sys.executable} -m vmstate_tools.cli.main rewrite - --set cpu/env.gpr[7]=0x77 --set spapr_pci/buid=0x99"
    )
    here = Path(vt.__file__).parents[1]
    with Qmp(vm) as qmp:
        qmp("stop")
        registers = qmp("human-monitor-command", **{"command-line": "info registers"})
        qmp("migrate", uri=f"exec:PYTHONPATH={here} {filter_} 2> {tmp_path}/told | cat > {out}; > {tmp_path}/done")
        until(lambda: qmp("query-migrate")["status"] == "completed")
    until((tmp_path / "done").exists)
    told = (tmp_path / "told").read_text()
    assert "cpu/0 env.gpr[7]: 0x707070707070707 -> 119" in told and "spapr_pci/0 buid: " in told
    options = {"machine": "pseries-2.7", "cpu": "970_v2.2", "memory_mib": 256}
    assert vt.try_load(out, qemu("qemu-system-ppc64"), **options).fail_field == "spapr_pci:buid=-22"
    with vt.open(out) as stream:
        vt.rewrite(stream, tmp_path / "loads.mig", {("spapr_pci", "buid"): 0x800000020000000})
    outcome = vt.try_load(tmp_path / "loads.mig", qemu("qemu-system-ppc64"), registers=True, **options)
    assert outcome.loaded and outcome.registers is not None
    changed = registers.replace("0707070707070707", "0000000000000077")
    assert outcome.registers.split() == changed.split()


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.mig").write_bytes(toy().finish())
    file, out = str(tmp_path / "a.mig"), str(tmp_path / "b.mig")
    run = CliRunner().invoke
    done = run(main, ["rewrite", file, "-o", out, "--set", "toy/1/a=0x10", "--set", "timer/ticks[1]=8"])
    assert done.exit_code == 0 and "toy/1 a: 5 -> 16" in done.stderr and "timer/0 ticks[1]: 7 -> 8" in done.stderr
    assert (tmp_path / "b.mig").read_bytes() == _rewritten(
        toy().finish(), {("toy/1", "a"): 16, ("timer", "ticks[1]"): 8}
    )
    assert run(main, ["rewrite", file, "-o", out, "--set", "toy/1/a=0x10"]).exit_code == 2
    done = run(main, ["rewrite", file, "-o", out, "--force", "--json", "--set", "toy/1/a=5"])
    assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    for words, text in (
        ([file, "--set", "a/b=1"], "-o OUT"),
        ([file, "-o", out], "--set SECTION/FIELD=VALUE or --for"),
        ([file, "-o", out, "--set", "a=1"], "not SECTION/FIELD=VALUE"),
        ([file, "-o", out, "--force", "--set", "toy/1/a=-1"], "takes numbers"),
    ):
        done = run(main, ["rewrite", *words])
        assert done.exit_code == 2 and text in done.stderr


def test_the_command_as_a_filter() -> None:
    data = toy().finish()
    here = Path(vt.__file__).parents[1]
    command = [sys.executable, "-m", "vmstate_tools.cli.main", "rewrite", "-", "--set"]
    done = subprocess.run([*command, "toy/1/a=3"], input=data, capture_output=True, env={"PYTHONPATH": str(here)})
    assert done.returncode == 0 and done.stdout == _rewritten(data, {("toy/1", "a"): 3})
    done = subprocess.run([*command, "toy/1/a=-3"], input=data, capture_output=True, env={"PYTHONPATH": str(here)})
    assert done.returncode == 2 and done.stdout == data[: data.index(b"\x05timer") - 5]
