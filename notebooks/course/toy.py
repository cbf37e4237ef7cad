"""Devices that no QEMU has: a description and a state, as the stream and -dump-vmstate file of a QEMU that had it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import vmstate_tools as vt
from vmstate_tools.compat.reader import NUMBERS
from vmstate_tools.format import framing as wire
from vmstate_tools.vmstate.dump import Dump, read_dump


@dataclass(frozen=True)
class Field:
    """A number: `type` as a vmdesc has it ("uint8", "uint32 equal"), `value` what the guest has there.

    `since`: the version of its description from which it is read (`VMSTATE_UINT8_V`). `test`: is it in the stream
    (`field_exists`)? None: always, there is no test.
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
    """What `VMStateDescription` says. `needed`: is it sent? Of a subsection only."""

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
            out += wire.SUBSECTION_HEADER.build({"name": sub.name.encode(), "version_id": sub.version}) + sub._payload()
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
    """The stream of a guest that has this device and nothing else."""
    name = device.name.encode()
    header = {"type": wire.Record.SECTION_FULL, "section_id": 1, "idstr": name, "instance_id": 0}
    text = {"page_size": 4096, "devices": [{"name": device.name, "instance_id": 0, **device._vmdesc()}]}
    return b"".join(
        [
            wire.FILE_HEADER.build({"magic": wire.MAGIC, "version": wire.VERSION}),
            wire.CONFIGURATION.build({"name": machine.encode()}),
            wire.SECTION_HEADER.build(header | {"version_id": device.version}),
            device._payload(),
            wire.SECTION_FOOTER.build({"section_id": 1}),
            wire.EOF.build({}),
            wire.VMDESCRIPTION.build({"json": json.dumps(text).encode()}),
        ]
    )


def dump(device: Description, machine: str) -> Dump:
    """What -dump-vmstate would print where there is this device: all versions and subsections, sent or not."""
    entry = {"Name": device.name, "version_id": device.version, "minimum_version_id": device.minimum}
    document = {"vmschkmachine": {"Name": machine}, device.name: entry | {"Description": device._dumped()}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{device.name}.json")
        path.write_text(json.dumps(document), encoding="utf-8")
        return read_dump(path)


def _whole(device: Description) -> Description:
    """With all subsections sent, to know the destination by."""
    return replace(device, subsections=[_whole(s) for s in device.subsections], needed=True)


def load(sent: Description, there: Description, machine: str) -> vt.Verdict:
    """Would a QEMU whose device is `there` take the stream of one whose device is `sent`?"""
    with vt.open(stream(_whole(there), machine)) as reference:
        destination = vt.Destination.from_stream(reference).with_dump(dump(there, machine))
    with vt.open(stream(sent, machine)) as guest:
        return vt.check(guest, destination)
