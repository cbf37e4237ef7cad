"""Migrations that switched to postcopy, connection by connection."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
from pathlib import Path

import pytest
from exercise import exercise
from qemus import qemu
from ram_streams import unzst
from registers import printed_registers
from writer import Vmsd, Writer, be, pstring, toy, u32

import vmstate_tools as vt
from vmstate_tools.emulator.event_loop import run
from vmstate_tools.emulator.process import Qemu
from vmstate_tools.errors import StreamError
from vmstate_tools.stream.records import command_name

DATA = Path(__file__).parents[1] / "data" / "postcopy"


def connections(name: str) -> list[bytes]:
    return [unzst(path) for path in sorted(DATA.glob(f"{name}.ch*.zst"))]


def assert_accounted(stream: vt.Stream, data: bytes) -> None:
    frame = stream.coverage()
    assert frame["offset"].tolist() == [0, *frame["size"].cumsum()[:-1]]
    assert (frame["size"] > 0).all() and frame["size"].sum() == len(data)
    assert stream.build() == data


@pytest.mark.parametrize(("name", "n"), [("switched", 1), ("preempt", 2), ("resumed", 2)])
def test_guest_memory_is_that_of_the_destination(name: str, n: int) -> None:
    parts = connections(name)
    assert len(parts) == n
    for order in (parts, parts[::-1]):
        with vt.open(order) as stream:
            assert stream.ram.read("pc.ram", 0, 0xA0000) == unzst(DATA / f"{name}.memory.zst")
            assert_accounted(stream, b"".join(parts))
            assert {s.how for s in stream.sections} == {"ram", "built-in"}  # no vmdesc: nothing is opaque all the same
            assert stream.ram.pages["bytes"].sum() < sum(map(len, parts))


def test_the_commands_of_a_switch() -> None:
    with vt.open(connections("switched")[0]) as stream:
        assert [command_name(c.value.command) for c in stream.commands] == [
            *("OPEN_RETURN_PATH", "PING", "POSTCOPY_ADVISE", *3 * ["POSTCOPY_RAM_DISCARD"], "PING", "PACKAGED"),
            *("POSTCOPY_LISTEN", "PING", "POSTCOPY_RUN", "PING"),
        ]
        package = stream.commands[7]
        inside = [s.idstr for s in stream.sections if package.end < s.offset < stream.commands[10].offset]
        assert len(inside) == 27 and "cpu" in inside and "ram" not in inside
        after = [s for s in stream.sections if s.offset > stream.commands[10].offset]
        assert {s.idstr for s in after} == {"ram"} and [s.part for s in after][-2:] == ["part", "end"]
    with vt.open(connections("resumed")) as stream:
        names = [command_name(c.value.command) for c in stream.commands]
        assert names[-4:] == [*3 * ["RECV_BITMAP"], "POSTCOPY_RESUME"]


def test_registers_of_a_pseries_guest() -> None:
    printed = printed_registers((DATA / "pseries.registers.txt").read_text())
    with vt.open(connections("pseries")[0]) as stream:
        assert stream.vmdesc is None and {s.how for s in stream.sections} == {"ram", "built-in", "handwritten"}
        assert [stream.value("cpu", f"env.gpr[{n}]") for n in range(32)] == [printed[f"GPR{n}"] for n in range(32)]
        assert stream.value("cpu", "env.nip") == printed["NIP"] == 0x530
        assert stream.value("cpu", "env.spr[9]") == printed["CTR"] == 0x43434343
        assert stream.ram.read("ppc_spapr.ram", 0x100000, 4) == bytes([0x5F]) * 4


@pytest.mark.parametrize("lost", [1, 5, 8, 500, 4000])
def test_a_connection_breaks_anywhere(lost: int) -> None:
    first, second = connections("resumed")
    first = first[:-lost]
    with vt.open([first, second]) as stream:
        assert_accounted(stream, first + second)
        cut = stream.coverage(fields=False)
        assert cut[cut["what"] == "cut off"]["size"].sum() < 4200  # less than a record


def test_the_pages_that_were_asked_for_break_off_too() -> None:
    first, second = connections("preempt")
    with vt.open([first, second[:-3000], second]) as stream:
        assert stream.ram.read("pc.ram", 0, 0xA0000) == unzst(DATA / "preempt.memory.zst")
        assert_accounted(stream, first + second[:-3000] + second)


def test_bytes_behind_the_end_of_each_connection() -> None:
    first, second = connections("preempt")
    parts = [first + bytes([1] * 70), second + b"\1"]
    with vt.open(parts) as stream:
        assert_accounted(stream, b"".join(parts))
        behind = stream.coverage(fields=False).query("what == 'behind the stream'")
        assert behind["size"].tolist() == [70, 1]


def test_nothing_was_asked_for() -> None:
    data = toy().finish()
    with vt.open([be(0x10, 8), data]) as stream:
        assert stream.vmdesc is not None and stream.value("toy", "a") == 0xFFFF_FFFF
        assert_accounted(stream, data + be(0x10, 8))


def test_connections_that_do_not_belong_together() -> None:
    first, second = connections("resumed")
    main, pages = connections("preempt")
    for wrong, says in [
        ([second], "expected its main stream"),
        ([pages], "expected its main stream"),
        ([second, pages], "0 of these 2 connections are main streams"),
        ([first, first], "2 of these 2 connections are main streams"),
        ([first[:3000], second], "the file ends here, in section ram/0"),  # before the switch: no way to resume
        ([first, second[:-100000]], "the file ends here, in section ram/0"),
        ([main, pages[:-100]], "the file ends here, in a RAM record"),
        ([toy().finish(), pages], "a page of RAM block 'pc.bios'"),
    ]:
        with pytest.raises(StreamError, match=says), vt.open(wrong if len(wrong) > 1 else wrong[0]) as stream:
            stream.coverage()


def test_an_error_is_where_it_is_in_its_own_file(tmp_path: Path) -> None:
    first, second = connections("resumed")
    at = second.index(b"pc.ram", 50)  # of the first page
    (tmp_path / "a").write_bytes(first)
    (tmp_path / "b").write_bytes(second[:at] + b"pc.rum" + second[at + 6 :])
    with pytest.raises(StreamError) as caught, vt.open([tmp_path / "a", tmp_path / "b"]) as stream:
        _ = stream.sections
    assert caught.value.file == str(tmp_path / "b")
    assert caught.value.offset == at - 1


@pytest.mark.parametrize("wrong", [-1, 1, 1 << 31])
def test_a_package_that_ends_elsewhere(wrong: int) -> None:
    inner = Writer()
    inner.next_id = 1
    del inner.data[:]
    inner.command(4)
    inner.full("toy", Vmsd("toy", [u32("a", 7)]))
    inner.command(5)
    for size in (len(inner.data), len(inner.data) + wrong):
        outer = Writer(machine="toy-1.0")
        outer.command(7, be(size, 4))
        outer.data += inner.data
        outer.devices = inner.devices
        data = outer.finish()
        if size == len(inner.data):
            with vt.open(data) as stream:
                assert stream.value("toy", "a") == 7 and stream.build() == data
        else:
            errors = exercise(data)
            assert errors and "package" in str(errors[0])


def test_discards_of_blocks_are_read_over() -> None:
    stream = toy()
    stream.command(6, b"\0" + pstring("toy.ram") + b"\0" + be(0, 8) + be(4096, 8))
    with vt.open(stream.finish()) as opened:
        assert opened.commands[0].value.data[2:9] == b"toy.ram"


# -- live


def userfaultfd() -> None:
    """Postcopy needs it, and root or a setting to have it."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(323 if os.uname().machine == "x86_64" else 282, os.O_CLOEXEC)
    if fd < 0:
        pytest.skip(f"userfaultfd: {os.strerror(ctypes.get_errno())}")
    os.close(fd)


async def relay(a: socket.socket, b: socket.socket, log: bytearray) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(a, 1 << 16):
        log += data
        await loop.sock_sendall(b, data)
    b.shutdown(socket.SHUT_WR)


async def postcopy(binary: str) -> tuple[bytes, str]:
    """A migration that switches at once; what went to the destination, and its registers."""
    line = ["-S", "-nodefaults", "-display", "none", "-machine", "pc,accel=tcg", "-m", "16", "-bios", "ran128k.bin"]
    out, ours = socket.socketpair()
    theirs, in_ = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    capabilities = {"capabilities": [{"capability": "postcopy-ram", "state": True}]}
    sent = bytearray()
    async with Qemu(binary, line) as source, Qemu(binary, [*line, "-incoming", "defer"]) as destination:
        assert source.monitor is not None and destination.monitor is not None
        tasks = [asyncio.ensure_future(relay(*ends)) for ends in ((ours, theirs, sent), (theirs, ours, bytearray()))]
        for qemu_ in (source, destination):
            await qemu_.execute("migrate-set-capabilities", capabilities)
        await destination.monitor.give("in", in_)
        await destination.execute("migrate-incoming", {"uri": "fd:in"})
        await source.execute("migrate-set-parameters", {"max-bandwidth": 1 << 14})
        await source.monitor.give("out", out)
        await source.execute("migrate", {"uri": "fd:out"})
        await asyncio.sleep(0.3)
        await source.execute("migrate-start-postcopy")
        for qemu_ in (source, destination):
            while (status := (await qemu_.execute("query-migrate")).get("status")) != "completed":
                assert status != "failed", source.output() + destination.output()
                await asyncio.sleep(0.05)
        registers = await destination.monitor.human("info registers")
    await asyncio.gather(*tasks)
    with contextlib.closing(ours), contextlib.closing(theirs):
        return bytes(sent), registers


def test_live() -> None:
    userfaultfd()
    sent, registers = run(asyncio.wait_for(postcopy(qemu("qemu-system-x86_64")), 60))
    with vt.open(sent) as stream:
        assert command_name(stream.commands[-1].value.command) == "PING"
        assert "POSTCOPY_RUN" in [command_name(c.value.command) for c in stream.commands]
        assert "opaque" not in {s.how for s in stream.sections}
        assert_accounted(stream, sent)
        assert f"EIP={stream.value('cpu', 'env.eip'):08x}" in registers
        assert stream.ram.pages.drop(columns=["block", "bytes"]).to_numpy().sum() >= 4096
