"""Invented devices: the stream and the -dump-vmstate file that a QEMU with such a device would write."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import vmstate_tools as vt
from vmstate_tools.compat.reader import NUMBERS
from vmstate_tools.format import framing
from vmstate_tools.vmstate.dump import Dump, read_dump


@dataclass(frozen=True)
class Field:
    """A field that holds a number.

    `type` is named as in a vmdesc ("uint8", "uint32 equal"), `value` is the number that the guest has there. `since` is
    the version of the description from which on the field is read (`VMSTATE_UINT8_V`). `test` says whether the field
    is in the stream (`field_exists`); None means that there is no test, and that it always is.
    """

    name: str
    type: str
    value: int = 0
    since: int = 0
    test: bool | None = None

    @property
    def size(self) -> int:
        return NUMBERS[self.type][0]


@dataclass(frozen=True)
class Description:
    """A `VMStateDescription`. `needed` is for subsections: whether it is sent."""

    name: str
    fields: Sequence[Field]
    subsections: Sequence[Description] = ()
    version: int = 1
    minimum: int = 1
    needed: bool = True

    @property
    def _sent(self) -> tuple[list[Field], list[Description]]:
        return [f for f in self.fields if f.test is not False], [s for s in self.subsections if s.needed]

    def _payload(self) -> bytes:
        fields, subsections = self._sent
        out = b"".join(f.value.to_bytes(f.size, "big") for f in fields)
        for sub in subsections:
            out += framing.SUBSECTION_HEADER.build({"name": sub.name.encode(), "version_id": sub.version})
            out += sub._payload()
        return out

    def _vmdesc(self) -> dict[str, Any]:
        fields, subsections = self._sent
        return {
            "vmsd_name": self.name,
            "version": self.version,
            "fields": [{"name": f.name, "type": f.type, "size": f.size} for f in fields],
            **({"subsections": [s._vmdesc() for s in subsections]} if subsections else {}),
        }

    def _dumped(self) -> dict[str, Any]:
        fields = [
            {"field": f.name, "version_id": f.since, "field_exists": f.test is not None, "size": f.size}
            for f in self.fields
        ]
        own = {"name": self.name, "version_id": self.version, "minimum_version_id": self.minimum, "Fields": fields}
        return own | ({"Subsections": [s._dumped() for s in self.subsections]} if self.subsections else {})


def stream(device: Description, machine: str) -> bytes:
    """Returns the stream of a guest that has this device and nothing else."""
    name = device.name.encode()
    header = {"type": framing.Record.SECTION_FULL, "section_id": 1, "idstr": name, "instance_id": 0}
    text = {"page_size": 4096, "devices": [{"name": device.name, "instance_id": 0, **device._vmdesc()}]}
    return b"".join(
        [
            framing.FILE_HEADER.build({"magic": framing.MAGIC, "version": framing.VERSION}),
            framing.CONFIGURATION.build({"name": machine.encode()}),
            framing.SECTION_HEADER.build(header | {"version_id": device.version}),
            device._payload(),
            framing.SECTION_FOOTER.build({"section_id": 1}),
            framing.EOF.build({}),
            framing.VMDESCRIPTION.build({"json": json.dumps(text).encode()}),
        ]
    )


def dump(device: Description, machine: str) -> Dump:
    """Returns what -dump-vmstate would print: all versions and subsections of the device, sent or not."""
    entry = {"Name": device.name, "version_id": device.version, "minimum_version_id": device.minimum}
    document = {"vmschkmachine": {"Name": machine}, device.name: entry | {"Description": device._dumped()}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{device.name}.json")
        path.write_text(json.dumps(document), encoding="utf-8")
        return read_dump(path)


def _whole(device: Description) -> Description:
    """Returns the device with all its subsections sent: the stream shows everything that a destination knows."""
    return replace(device, subsections=[_whole(s) for s in device.subsections], needed=True)


def load(sent: Description, there: Description, machine: str) -> vt.Verdict:
    """Returns whether a QEMU with the device `there` would load the stream of a QEMU with the device `sent`."""
    with vt.open(stream(_whole(there), machine)) as reference:
        destination = vt.Destination.from_stream(reference).with_dump(dump(there, machine))
    with vt.open(stream(sent, machine)) as guest:
        return vt.check(guest, destination)
