"""The payload of a virtio device: code in QEMU with VMState in between (`hw/virtio/virtio.c: virtio_save`).

Up to 2.6 such a section was registered by hand, since 2.7 its VMStateDescription has this payload as one field
of type `virtio`. On the wire both are the same: the transport's state, the queues, the device's own, subsections.

transports : what carries a device (PCI, MMIO, channel I/O): paths and state
devices : what each kind of device has of its own
subsections : the subsections of both
"""

from __future__ import annotations

from functools import cache
from typing import Any

import construct as c

from vmstate_tools.format.sections.leaves import U8, U16, U32, U64, Indexed, Payload, Raw, Step
from vmstate_tools.format.sections.virtio.devices import DEVICES
from vmstate_tools.format.sections.virtio.subsections import MAX_QUEUES, Subsections
from vmstate_tools.format.sections.virtio.transports import TRANSPORTS, Transport


def format_of(idstr: str) -> c.Construct | None:
    """Returns the format of section `idstr`, if it is of a virtio device whose transport and own part are known."""
    path, _, name = idstr.rpartition("/")
    if name not in DEVICES:
        return None
    return next((_format(transport, name) for transport in TRANSPORTS if transport.has(path)), None)


def _check_queues(context: Any, payload: Payload) -> None:
    if context["vq.num"] > MAX_QUEUES:
        raise payload.wrong(f"{context['vq.num']} virtqueues", f"{MAX_QUEUES} at most")


@cache
def _format(transport: Transport, name: str) -> c.Construct:
    device = DEVICES[name]
    queue = c.Struct(
        "vring.num" / U32,
        "vring.align" / c.If(transport.align, U32),
        "vring.desc" / U64,
        "last_avail_idx" / U16,
        "vector" / c.If(lambda context: transport.vectors(context._), U16),
    )
    return c.Struct(
        *transport.state,
        "status" / U8,
        "isr" / U8,
        "queue_sel" / U16,
        "guest_features" / U32,
        "config_len" / U32,
        "config" / Raw(c.this.config_len),
        "vq.num" / U32,
        Step(_check_queues),
        "vq" / c.Array(c.this["vq.num"], Indexed(queue)),
        *device.own,
        "_subsections" / Subsections("virtio"),
        *device.behind,
    )
