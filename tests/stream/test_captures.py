"""Every real capture: all sections decode, every byte is accounted for, and building it again gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator

import captures as real
import numpy as np
import pytest

import vmstate_tools as vt
from vmstate_tools.vmstate.layout import BOOL, BYTES

# Processor version of some models captured, by lower-case name (target/ppc/cpu-models.h: CPU_POWERPC_*).
PVRS = {
    "970_v2.2": 0x00390202,
    "970fx_v3.1": 0x003C0301,
    "power7_v2.3": 0x003F0203,
    "power8_v2.0": 0x004D0200,
    "power8e_v1.0": 0x004B0100,
    "power8e_v2.1": 0x004B0201,
    "power9_v2.0": 0x004E1200,
    "power9_v2.2": 0x004E1202,
    "7400_v2.9": 0x000C0209,
}

RUN_STATES = {  # qapi/run-state.json: RunState
    *("debug", "finish-migrate", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch"),
    *("restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog", "guest-panicked", "colo"),
}


@pytest.mark.parametrize("batch", real.batches())
def test_captures(batch: real.Batch) -> None:
    wrong: list[str] = []
    for file in batch.files:
        row = batch.captures.manifest[file]
        with vt.open(batch.captures.path(file)) as stream:
            for check in (_sections, _fields, _manifest, _coverage, _build):
                wrong += [f"{file}: {what}" for what in check(stream, row)]
    assert not wrong, "\n".join(wrong)


def _sections(stream: vt.Stream, row: dict[str, str]) -> Iterator[str]:
    """Every section is decoded, by the vmdesc where there is one, and no device of the vmdesc is left over."""
    for section in stream.sections:
        if section.how == "opaque":
            yield f"nothing reads {section}"
        if section.description is not None:
            layout = stream.layout(section)
            size = int(layout.length.sum()) + sum(len(header) for _, header in layout.subsections)
            if size != section.payload_size:
                yield f"{section}: fields of {size} bytes"
    if stream.vmdesc is None:
        return
    handwritten = {(s.idstr, s.instance_id) for s in stream.sections if s.how == "handwritten"}
    described = [(s.idstr, s.instance_id) for s in stream.sections if s.how == "vmdesc"]
    devices = [(d.idstr, d.instance_id) for d in stream.vmdesc.devices]
    if described != [device for device in devices if device not in handwritten]:
        yield f"sections {sorted(set(devices) ^ set(described))} are only described, or only there"


def _fields(stream: vt.Stream, row: dict[str, str]) -> Iterator[str]:
    """What no device could have sent is not there."""
    frame = stream.fields(fold=1024)
    values = frame["value"].array
    if (values.words[values.kinds == BOOL] > 1).any():
        yield "a bool that is neither 0 nor 1"
    if (np.diff(frame["offset"]) <= 0).any():
        yield "fields out of order"
    blobs = (values.kinds == BYTES) & (frame["type"] != "string").to_numpy()  # text stands there without its length
    sizes = [len(values.blobs[word]) for word in values.words[blobs].tolist()]
    if sizes != frame["size"][blobs].tolist():
        yield "a buffer of another length than its size"
    state = _run_state(stream)
    if state is not None and (state not in RUN_STATES or stream.value("globalstate", "size") != len(state) + 1):
        yield f"run state {state!r}"
    for section in stream.sections:
        if section.description is None:
            continue
        if section.idstr == "cpu_common" and stream.value("cpu_common", "halted", instance=section.instance_id) > 1:
            yield f"{section}: halted is neither 0 nor 1"
        if section.idstr == "cpu" and row["cpu"].lower() in PVRS:
            pvr = stream.value("cpu", "env.spr[287]", instance=section.instance_id)
            if pvr != PVRS[row["cpu"].lower()]:
                yield f"PVR {pvr:#x}"
            if max(stream.value("cpu", f"env.crf[{i}]", instance=section.instance_id) for i in range(8)) > 15:
                yield "a condition register field of more than four bits"


def _manifest(stream: vt.Stream, row: dict[str, str]) -> Iterator[str]:
    """The stream says of itself what the command line asked for."""
    asked = {"q35": "pc-q35"}.get(
        row["machine"], row["machine"]
    )  # the aliases that are no prefix of what they stand for
    if stream.machine is not None and not stream.machine.startswith(asked):
        yield f"machine {stream.machine!r}"
    if row["memory_mib"] and int(stream.ram.blocks["used_length"].sum()) < int(row["memory_mib"]) << 20:
        yield f"less RAM than {row['memory_mib']} MiB"
    if len(stream.source.view) != int(row["size"]):
        yield f"{len(stream.source.view)} bytes, captured were {row['size']}"
    if row["config"] == "no-vmdesc" and stream.vmdesc is not None:
        yield "has a vmdesc"
    if row["config"] == "no-configuration" and stream.machine is not None:
        yield "has a configuration"
    if row["config"] == "no-footer" and any(s.footer for s in stream.sections):
        yield "has footers"
    # migration/global_state.c: global_state_needed: before 9.0 any other run state was sent all the same.
    if row["config"] == "no-globalstate" and _run_state(stream) in ("running", "paused"):
        yield "has a globalstate"


def _run_state(stream: vt.Stream) -> str | None:
    for section in stream.sections:
        if section.idstr == "globalstate" and section.description is not None:
            return str(stream.value("globalstate", "runstate").partition(b"\0")[0].decode())
    return None


def _coverage(stream: vt.Stream, row: dict[str, str]) -> Iterator[str]:
    """Records and fields tile the file: from 0 to its end, no gap, no overlap, nothing unread."""
    for fields in (True, False):
        frame = stream.coverage(fields=fields)
        ends = np.concatenate([[0], np.cumsum(frame["size"])])
        if (ends[:-1] != frame["offset"]).any() or ends[-1] != len(stream.source.view) or (frame["size"] <= 0).any():
            yield f"the coverage (fields={fields}) does not tile the file"
        if frame["what"].isin(["not read", "behind the stream"]).any():
            yield "not read to its end"


def _build(stream: vt.Stream, row: dict[str, str]) -> Iterator[str]:
    """The stream built from what was parsed has the same bytes."""
    view, at = stream.source.view, 0
    for chunk in stream.chunks():
        if view[at : at + len(chunk)] != chunk:
            yield f"built otherwise between {at} and {at + len(chunk)}"
            return
        at += len(chunk)
    if at != len(view):
        yield f"{at} bytes built of {len(view)}"
