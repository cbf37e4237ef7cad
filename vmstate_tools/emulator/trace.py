"""Which field a destination was reading when it gave up, by the events that QEMU traces to a log."""

from __future__ import annotations

import re

from vmstate_tools.emulator.binaries import ask

LOG = "trace.log"
"""The log, in QEMU's working directory."""

_TRACED = (
    "vmstate_load_state_field",
    "vmstate_load_field_error",
    "vmstate_load_state_end",  # 10.2 has it, 11.1 not
    "vmstate_load_state_fail",  # in 11.1 instead
)


async def trace_options(binary: str, timeout: float) -> list[str]:
    """Returns the options that have the load's fields written to `LOG`; none where this QEMU cannot."""
    known = set((await ask(binary, "-trace", "help", timeout=timeout)).split())
    if _TRACED[0] not in known:
        return []
    return ["-D", LOG, *(word for event in _TRACED if event in known for word in ("-trace", event))]


def last_field(log: str) -> str:
    """Returns the field that a trace of a failed load ends in, "" where there is none.

    Field after field is named (`vmstate_load_state_field VMSD:FIELD`, since 9.1 also those that are not read, with
    ` exists=0`); one that fails is then named by itself
    (`vmstate_load_field_error field "FIELD" load failed, ret = N`), and each struct around it; a VMStateDescription
    that fails as a whole ends with a number (`vmstate_load_state_end VMSD TEXT/N`), or, since 11.1, with the step that
    failed (`vmstate_load_state_fail VMSD TEXT`).
    """
    failed: list[str] = []
    last = ended = ""
    for line in log.splitlines():
        if match := re.search(r"vmstate_load_state_field (\S+:.*?)(?: exists=(\d))?$", line):
            if match[2] != "0":
                last, failed, ended = match[1], [], ""
        elif match := re.search(r'vmstate_load_field_error field "(.*)" load failed, ret = (-?\d+)', line):
            failed.append(f"{match[1]}={match[2]}")
        elif match := re.search(r"vmstate_load_state_end (.*)/(-?\d+)$", line):
            ended = ended or (f"{match[1]}={match[2]}" if match[2] != "0" else "")
        elif match := re.search(r"vmstate_load_state_fail (.*)$", line):
            ended = ended or match[1]
    if failed:
        vmsd = last.partition(":")[0]
        return " < ".join([f"{vmsd}:{failed[0]}", *failed[1:]])
    if not last:
        return ""
    return f"(last field {last})" + (f" {ended}" if ended else "")
