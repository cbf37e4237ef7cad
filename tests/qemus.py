"""The QEMUs that tests run: those installed. Without them the tests are skipped, saying so."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import textwrap
from pathlib import Path

import pytest


def qemu(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def children() -> set[int]:
    """QEMUs that call us their parent; the tests in a browser have children of other kinds."""
    me = os.getpid()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                name, _, rest = (folder / "stat").read_text().rpartition(")")
                fields = rest.split()
            except OSError:
                continue
            if int(fields[1]) == me and fields[0] != "Z" and "qemu" in name:
                found.add(int(folder.name))
    return found


def old_qemu(folder: Path, stream: Path) -> str:
    """A program that answers as QEMU 1.6 does, and migrates the content of `stream`.

    It knows no other command than those named, which are in 1.6's qmp-commands.hx.
    """
    path = folder / "qemu-system-ppc64"
    path.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent(f"""
        import array, json, os, socket, sys
        if "-version" in sys.argv:
            print("QEMU emulator version 1.6.0, Copyright (c) 2003-2008 Fabrice Bellard")
            sys.exit()
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[sys.argv.index("-qmp") + 1].removeprefix("unix:"))
        say = lambda what: s.sendall(json.dumps(what).encode() + b"\\r\\n")
        version = {{"qemu": {{"major": 1, "minor": 6, "micro": 0}}, "package": ""}}
        say({{"QMP": {{"version": version, "capabilities": []}}}})
        fds, status, buffer, log = [], None, b"", []
        known = {{"qmp_capabilities", "query-commands", "query-version", "query-migrate", "query-migrate-capabilities",
                  "migrate_set_speed", "migrate", "getfd", "query-status", "query-target", "stop", "cont",
                  "human-monitor-command"}}
        while True:
            data, control, *_ = s.recvmsg(65536, socket.CMSG_SPACE(4))
            if not data:
                break
            for *_, value in control:
                fds += array.array("i", value)
            buffer += data
            while b"\\n" in buffer or buffer.strip().endswith(b"}}"):
                line, _, buffer = buffer.partition(b"\\n") if b"\\n" in buffer else (buffer, b"", b"")
                if not line.strip():
                    continue
                message = json.loads(line)
                name, arguments = message["execute"], message.get("arguments", {{}})
                answer = {{}}
                if name not in known:
                    say({{"error": {{"class": "CommandNotFound", "desc": name}}, "id": message.get("id")}})
                    continue
                if name == "query-commands":
                    answer = [{{"name": n}} for n in sorted(known)]
                elif name == "query-version":
                    answer = version
                elif name == "getfd":
                    fd = fds.pop()
                elif name == "migrate":
                    assert arguments["uri"] == "fd:vmstate-out", arguments
                    os.write(fd, open({str(stream)!r}, "rb").read())
                    os.close(fd)
                    status = "completed"
                elif name == "query-migrate":
                    answer = {{"status": status}} if status else {{}}
                say({{"return": answer, "id": message.get("id")}})
        """)
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)
