"""Streams made by hand from the wire format: small, and with names no QEMU would use."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

EVIL = "dev<img src=x onerror=alert(1)>\x1b[31m"
"""A name that runs a script in a browser that believes it, and colours a terminal."""


def section(idstr: str, payload: bytes, *, instance: int = 0, version: int = 1, number: int = 1) -> bytes:
    name = idstr.encode()
    return (
        struct.pack(f">BIB{len(name)}sII", 4, number, len(name), name, instance, version)
        + payload
        + struct.pack(">BI", 0x7E, number)
    )


def field(name: str, type_: str, size: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "size": size, **more}


def device(
    idstr: str, fields: Sequence[dict[str, Any]], *, instance: int = 0, version: int = 1, **more: Any
) -> dict[str, Any]:
    return {
        "name": idstr,
        "instance_id": instance,
        "vmsd_name": more.pop("vmsd_name", idstr),
        "version": version,
        "fields": list(fields),
        **more,
    }


def subsection(name: str, payload: bytes, version: int = 1) -> bytes:
    raw = name.encode()
    return struct.pack(f">BB{len(raw)}sI", 5, len(raw), raw, version) + payload


def stream(sections: Sequence[bytes], devices: Sequence[dict[str, Any]] | None, machine: str = "none") -> bytes:
    out = b"QEVM" + struct.pack(">I", 3)
    out += struct.pack(">BI", 7, len(machine.encode())) + machine.encode()
    out += b"".join(sections) + b"\0"
    if devices is not None:
        text = json.dumps({"page_size": 4096, "devices": list(devices)}).encode()
        out += struct.pack(">BI", 6, len(text)) + text
    return out


def hostile() -> bytes:
    """A stream in which every text is `EVIL`."""
    return stream([section(EVIL, b"<b>x")], [device(EVIL, [field(EVIL, EVIL, 4)])], machine=EVIL)
