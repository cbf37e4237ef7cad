"""`…/vfio`: the state of a device that is passed through, version 1 (since 5.2).

Facts: hw/vfio/migration.c, `vfio_save_iterate`, `vfio_load_state`. Device data is the device's own. The saved PCI
configuration (hw/vfio/pci.c: `vmstate_vfio_pci_config`) has no length on the wire: it ends where the end mark stands.
"""

from __future__ import annotations

from typing import Any

import construct as c

from vmstate_tools.format.sections.leaves import U64, Payload, Raw, Step, many, when

_TAG = 0xFFFFFFFFEF100000
_END, _CONFIG, _SETUP, _DATA, _INIT_DATA_SENT, _CONFIG_LOAD_READY = range(1, 7)
_LAST = (_TAG | _END, _TAG | _INIT_DATA_SENT, _TAG | _CONFIG_LOAD_READY)  # 8.1, 10.1: without an end mark
_STEP = 1 << 20


def _known(record: Any, payload: Payload) -> None:
    if record.tag not in _LAST and record.tag not in (_TAG | _CONFIG, _TAG | _SETUP, _TAG | _DATA):
        raise payload.wrong(f"vfio tag {record.tag:#x}", f"{_TAG | _END:#x} to {_TAG | _CONFIG_LOAD_READY:#x}")


def _configuration_size(record: Any, payload: Payload) -> int | None:
    if record.tag != _TAG | _CONFIG:
        return None
    mark = find(payload.view, (_TAG | _END).to_bytes(8, "big"), payload.offset)
    if mark < 0:
        raise payload.wrong("a device configuration without end", f"{_TAG | _END:#x}")
    return mark - payload.offset


def find(view: memoryview, mark: bytes, start: int) -> int:
    """Returns where `mark` first stands from `start` on, or -1: a memoryview has no find, and may be huge."""
    for begin in range(start, len(view), _STEP):
        found = bytes(view[begin : begin + _STEP + len(mark) - 1]).find(mark)
        if found >= 0:
            return begin + found
    return -1


VFIO = c.Struct(
    "record"
    / many(
        lambda record: record.tag in _LAST,
        "tag" / U64,
        Step(_known),
        "_size" / Step(_configuration_size),
        "config" / c.If(lambda record: record.tag == _TAG | _CONFIG, Raw(c.this._size)),
        *when(lambda record: record.tag == _TAG | _DATA, "data_size" / U64, "data" / Raw(c.this.data_size)),
    ),
)
