"""The subsections of virtio devices and of what carries them."""

from __future__ import annotations

from typing import Any

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.format.framing import Record
from vmstate_tools.format.sections.leaves import U8, U16, U32, U64, Payload, Raw, Text

MAX_QUEUES = 1024
"""VIRTIO_QUEUE_MAX (VIRTIO_PCI_QUEUE_MAX, 64, before 2.4)."""

SUBSECTIONS: dict[str, tuple[c.Construct, ...]] = {
    "virtio/device_endian": ("device_endian" / U8,),
    "virtio/64bit_features": ("guest_features" / U64,),
    "virtio/128bit_features": ("guest_features_ex" / U64,),
    "virtio/virtqueues": ("vq" / Raw(16 * MAX_QUEUES),),  # avail, used: u64
    "virtio/ringsize": ("vq" / Raw(4 * MAX_QUEUES),),  # num_default: u32
    "virtio/broken": ("broken" / U8,),
    "virtio/started": ("started" / U8,),
    "virtio/disabled": ("disabled" / U8,),
    "virtio/packed_virtqueues": ("vq" / Raw(10 * MAX_QUEUES),),
    "virtio/extra_state": (),  # the transport's: vmstate_virtio_pci, vmstate_virtio_mmio, subsections only
    "virtio_mmio/state": ("guest_features" / Raw(8), "vqs" / Raw(27 * MAX_QUEUES)),
    "s390_subch_dev/orb": ("intparm" / U32, "ctrl0" / U16, "lpm" / U8, "ctrl1" / U8, "cpa" / U32),
    "s390_adapter_info/summary_offset": ("summary_offset" / U32,),
    "virtio_pci/modern_state": (
        "dfselect" / U32,
        "gfselect" / U32,
        "guest_features" / Raw(8),
        "vqs" / Raw(28 * MAX_QUEUES),
    ),
    "virtio_pci/modern_state/features128": ("guest_features" / Raw(8),),
    "virtio-balloon-device/free-page-report": ("free_page_hint_cmd_id" / U32, "free_page_hint_status" / U32),
    "virtio-balloon-device/page-poison": ("poison_val" / U32,),
}

_FORMATS = {
    name: c.Struct("subsection" / U8, "name" / Text, "version_id" / U32, *fields)
    for name, fields in SUBSECTIONS.items()
}


class Subsections(c.Construct):
    """Subsections whose name begins with `parent`, as QEMU's reader takes them, each with its own behind it.

    The value is a list of them in the order of the stream. Their paths begin with their names, wherever they stand.
    """

    def __init__(self, parent: str) -> None:
        super().__init__()
        self.parent = parent

    def _parse(self, stream: Payload, context: Any, path: str) -> list[Any]:
        found: list[Any] = []
        self._collect(self.parent, stream, context, found)
        return found

    def _collect(self, parent: str, stream: Payload, context: Any, found: list[Any]) -> None:
        view = stream.view
        while stream.offset + 2 <= len(view) and view[stream.offset] == Record.SUBSECTION:
            at = stream.offset + 2
            name = bytes(view[at : at + view[at - 1]]).decode("latin-1")
            if not name.startswith(parent):
                return
            if name not in _FORMATS:
                expected = f"one of {sorted(_FORMATS)}"
                raise StreamError(f"subsection {name!r}", offset=stream.offset, expected=expected)
            found.append(_FORMATS[name]._parsereport(stream, context, f"(parsing) -> {name}"))
            self._collect("virtio_" if name == "virtio/extra_state" else name + "/", stream, context, found)

    def _build(self, obj: list[Any], stream: Any, context: Any, path: str) -> list[Any]:
        for subsection in obj:
            _FORMATS[subsection.name]._build(subsection, stream, context, path)
        return obj
