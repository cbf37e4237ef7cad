"""QEMUs that hang, print without end, answer nonsense, or stand behind a script."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from qemus import children, old_qemu
from writer import Vmsd, Writer, u32

import vmstate_tools as vt
from vmstate_tools.emulator.process import Output
from vmstate_tools.errors import QemuError

GREETING = {"QMP": {"version": {"qemu": {"major": 9, "minor": 9, "micro": 9}, "package": ""}, "capabilities": []}}


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    writer = Writer(machine="pc")
    writer.ram({"pc.ram": bytes(8192)})
    writer.full("toy", Vmsd("toy", [u32("a", 7)]))
    path = tmp_path / "x.mig"
    path.write_bytes(writer.finish())
    return path


def program(folder: Path, body: str, *, name: str = "qemu-system-x86_64") -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport json, os, socket, subprocess, sys, time\n" + textwrap.dedent(body))
    path.chmod(0o755)
    return path


VERSION = """
if "-version" in sys.argv:
    print("QEMU emulator version 9.9.9")
    sys.exit()
if "help" in sys.argv:
    sys.exit()
"""

CONNECT = (
    VERSION
    + f"""
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[sys.argv.index("-qmp") + 1].removeprefix("unix:"))
say = lambda what: s.sendall(json.dumps(what).encode() + b"\\r\\n")
GREETING = {json.dumps(GREETING).replace("true", "True")}
def serve(answers):
    say(GREETING)
    for line in s.makefile():
        message = json.loads(line)
        answer = answers.get(message["execute"], {{}})
        if isinstance(answer, bytes):
            s.sendall(answer)
        else:
            say({{"return": answer, "id": message.get("id")}})
    time.sleep(60)
"""
)


@pytest.mark.parametrize(
    "hangs_at", ["-version", "-machine", "-trace", "start"],
)  # fmt: skip
def test_the_time_limit_holds_for_questions_too(tmp_path: Path, stream: Path, hangs_at: str) -> None:
    script = program(
        tmp_path,
        f"""
        if {hangs_at!r} in sys.argv or ({hangs_at!r} == "start" and "-qmp" in sys.argv):
            time.sleep(60)
        {VERSION.replace(chr(10), chr(10) + " " * 8)}
        """,
    )
    start = time.monotonic()
    if hangs_at == "-machine":
        with pytest.raises(QemuError, match="still runs after 1 s"):
            vt.capture(script, "p*", out=tmp_path / "out", timeout=1)
    else:
        with pytest.raises(QemuError, match=r"still runs after|does not answer"):
            vt.try_load(stream, script, memory_mib=64, timeout=1)
    assert time.monotonic() - start < 6
    assert not children()


def test_output_without_end_takes_no_memory(tmp_path: Path, stream: Path) -> None:
    script = program(tmp_path, VERSION + "while True: sys.stdout.write('x' * 1000 + '\\n')")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(QemuError) as caught:
        vt.try_load(stream, script, memory_mib=64, timeout=2, trace=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    assert len(caught.value.output) < 4 << 20
    asked = program(tmp_path, "while True: sys.stdout.write('x' * 1000 + '\\n')")
    with pytest.raises(QemuError):
        vt.try_load(stream, asked, memory_mib=64, timeout=1)
    assert not list(tmp_path.glob("vmstate-*"))


def test_the_beginning_and_the_end_of_long_output() -> None:
    import asyncio

    async def work() -> str:
        output = Output()
        with await output.open() as pipe:
            await asyncio.to_thread(pipe.write, b"first")
            for _ in range(200):
                await asyncio.to_thread(pipe.write, b"x" * 60000)
            await asyncio.to_thread(pipe.write, b"last")
        await output.ended(5)
        output.close()
        return output.text()

    text = asyncio.run(work())
    assert text.startswith("first") and text.endswith("last") and "bytes left out" in text
    assert len(text) < 4 << 20


NONSENSE = {
    "no JSON": "s.sendall(b'hello\\r\\n' * 10); time.sleep(60)",
    "closed at once": "s.close(); time.sleep(60)",
    "a line without end": "\nwhile True: s.sendall(b'x' * 65536)",
    "a list": "say([]); time.sleep(60)",
    "no version": "say({'QMP': 1}); time.sleep(60)",
    "deep": "s.sendall(b'[' * 200000 + b'\\r\\n'); time.sleep(60)",
    "bytes": "s.sendall(bytes(range(128, 256)) + b'\\r\\n'); time.sleep(60)",
    "status is a list": "serve({'query-status': []})",
    "status is a number": "serve({'query-status': {'status': 7}})",
    "migration is text": "serve({'query-status': {'status': 'paused'}, 'query-migrate': 'x'})",
    "answers in the midst": "serve({'query-status': b'{]\\r\\n'})",
    "an answer without end": "serve({'query-status': b'x' * (11 << 20)})",
    "closes": "\nsay(GREETING)\ns.recv(100)\ns.close()\ntime.sleep(60)",
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_monitor_that_answers_nonsense(tmp_path: Path, stream: Path, kind: str) -> None:
    script = program(tmp_path, CONNECT + NONSENSE[kind])
    start = time.monotonic()
    with pytest.raises(QemuError):
        vt.try_load(stream, script, memory_mib=64, timeout=2, trace=False)
    assert time.monotonic() - start < 12
    assert not children()


@pytest.mark.parametrize(
    "answers",
    [
        {"query-commands": 1},
        {"query-commands": [1]},
        {"query-version": {"qemu": []}},
        {"query-version": "x"},
        {"query-migrate": []},
        {"query-commands": [{"name": "query-migrate-parameters"}], "query-migrate-parameters": 7},
    ],
)
def test_a_capture_of_one_that_answers_nonsense(tmp_path: Path, answers: dict) -> None:
    script = program(tmp_path, CONNECT + f"serve({answers!r})")
    frame = vt.capture(script, "pc", out=tmp_path / "out", timeout=3, progress=False)
    assert frame["refused"][0] and not (tmp_path / "out/manifest.csv").exists()
    assert not children()


def test_attach_to_what_is_no_qemu(tmp_path: Path) -> None:
    import socket
    import threading

    where = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(where))
        listening.listen(1)

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(b"nonsense\r\n")
                connection.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(QemuError, match="does not answer as QEMU's does"):
            vt.attach(where, timeout=3).capture(tmp_path / "x.mig")
        thread.join()
    assert not (tmp_path / "x.mig").exists()


@pytest.mark.parametrize("ends", [True, False])
def test_children_of_a_script_end_with_it(tmp_path: Path, stream: Path, ends: bool) -> None:
    pids = tmp_path / "pids"
    script = program(
        tmp_path,
        VERSION
        + f"""
child = subprocess.Popen(["sleep", "600"])
open({str(pids)!r}, "a").write(f"{{child.pid}}\\n")
{"sys.exit(1)" if ends else "time.sleep(600)"}
""",
    )
    if ends:
        assert vt.try_load(stream, script, memory_mib=64, timeout=5, trace=False).started is False
    else:
        with pytest.raises(QemuError, match="does not answer"):
            vt.try_load(stream, script, memory_mib=64, timeout=2, trace=False)
    gone(pids)


def test_one_that_leaves_the_group(tmp_path: Path, stream: Path) -> None:
    pids = tmp_path / "pids"
    script = program(
        tmp_path, VERSION + f"os.setsid()\nopen({str(pids)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    with pytest.raises(QemuError, match="does not answer"):
        vt.try_load(stream, script, memory_mib=64, timeout=2, trace=False)
    gone(pids)


def gone(pids: Path) -> None:
    end = time.monotonic() + 20
    while any(alive(pid) for pid in pids.read_text().split()):
        assert time.monotonic() < end, "a process is left"
        time.sleep(0.05)


def alive(pid: str) -> bool:
    try:
        return "State:\tZ" not in Path("/proc", pid, "status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_we_end(tmp_path: Path, stream: Path, number: int) -> None:
    """Neither the script, nor its child, nor the temporary folder: SIGKILL too."""
    pids = tmp_path / "pids"
    script = program(
        tmp_path,
        VERSION
        + f"""
child = subprocess.Popen(["sleep", "600"])
open({str(pids)!r}, "a").write(f"{{os.getpid()}} {{child.pid}}\\n")
time.sleep(600)
""",
    )
    code = f"import vmstate_tools as vt; vt.try_load({str(stream)!r}, {str(script)!r}, memory_mib=64, trace=False)"
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(vt.__file__).parents[1])}
    ours = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not (pids.exists() and pids.read_text().endswith("\n")):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert list(tmp_path.glob("vmstate-*"))
        ours.send_signal(number)
        ours.communicate(timeout=30)
    finally:
        ours.kill()
    gone(pids)
    end = time.monotonic() + 10
    while list(tmp_path.glob("vmstate-*")):
        assert time.monotonic() < end, "the temporary folder is left"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stream_half_taken_is_not_there(tmp_path: Path, stream: Path, number: int) -> None:
    """A QEMU that sends all of its stream but not the end, while we are ended."""
    script, pids, out = Path(old_qemu(tmp_path, stream)), tmp_path / "pids", tmp_path / "out"
    half = f"open({str(pids)!r}, 'w').write(str(os.getpid())); import time; time.sleep(600)"
    script.write_text(script.read_text().replace("os.close(fd)", half))
    code = f"import vmstate_tools as vt; vt.capture({str(script)!r}, 'pc', out={str(out)!r}, progress=False)"
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(vt.__file__).parents[1])}
    ours = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not (pids.exists() and pids.read_text()):
            assert time.monotonic() < end and ours.poll() is None
            time.sleep(0.05)
        (under_way,) = out.rglob(".vmstate-*")
        assert under_way.stat().st_mode & 0o77 == 0, "nobody else may read it"
        ours.send_signal(number)
        ours.communicate(timeout=40)
    finally:
        ours.kill()
        ours.communicate()
    gone(pids)
    left = [path.name for path in out.rglob("*") if path.is_file()]
    assert not [each for each in left if number != signal.SIGKILL or not each.startswith(".vmstate-")]
