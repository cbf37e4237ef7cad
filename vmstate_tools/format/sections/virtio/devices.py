"""What each kind of virtio device has of its own, behind the queues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import construct as c

from vmstate_tools.format.sections.leaves import S32, U8, U16, U32, U64, Indexed, Payload, Raw, Step, many, when
from vmstate_tools.format.sections.virtio.subsections import Subsections

_ELEMENT = 16 + 1024 * (8 + 8 + 16 + 16)
"""A virtqueue element in flight is the host's own struct (VirtQueueElementOld), of a 64-bit host."""


@dataclass(frozen=True)
class Device:
    """A Device has the fields of its kind: `own` before the subsections, `behind` them a second field."""

    own: tuple[c.Construct, ...] = ()
    behind: tuple[c.Construct, ...] = ()


def _absent(element: Any) -> bool:
    return not element.present


# -- virtio-balloon, virtio-blk, virtio-console ---------------------------------------------------------------------

_BALLOON = ("num_pages" / U32, "actual" / U32, "_own_subsections" / Subsections("virtio-balloon-device"))

_BLK = (
    "rq"
    / many(
        _absent,
        "present" / U8,
        *when(
            c.this.present != 0,
            "queue" / c.If(lambda request: request._["vq.num"] > 1, U32),
            "elem" / Raw(_ELEMENT),
        ),
    ),
)


def _port_words(context: Any) -> int:
    """Returns the words of the map of ports; a big-endian guest's 31 ports are 0x1f000000 here."""
    ports = int(context["config.max_nr_ports"])
    return (min(ports, int.from_bytes(ports.to_bytes(4, "big"), "little")) + 31) // 32


_CONSOLE = (
    "config.cols" / U16,
    "config.rows" / U16,
    "config.max_nr_ports" / U32,
    "ports_map" / c.Array(_port_words, Indexed(U32)),
    "nr_active_ports" / U32,
    "ports"
    / c.Array(
        c.this.nr_active_ports,
        Indexed(
            c.Struct(
                "id" / U32,
                "guest_connected" / U8,
                "host_connected" / U8,
                "elem_popped" / U32,
                *when(c.this.elem_popped != 0, "iov_idx" / U32, "iov_offset" / U64, "elem" / Raw(_ELEMENT)),
            )
        ),
    ),
)

# -- virtio-gpu: `hw/display/virtio-gpu.c: virtio_gpu_save`. All formats have 4 bytes per pixel. --------------------

_SCANOUT = c.Struct(
    "resource_id" / U32,
    "width" / U32,
    "height" / U32,
    "x" / S32,
    "y" / S32,
    "cursor.resource_id" / U32,
    "cursor.hot_x" / U32,
    "cursor.hot_y" / U32,
    "cursor.pos.x" / U32,
    "cursor.pos.y" / U32,
)

_GPU = (
    "reslist"
    / many(
        lambda resource: not resource.resource_id,
        "resource_id" / U32,
        *when(
            c.this.resource_id != 0,
            "width" / U32,
            "height" / U32,
            "format" / U32,
            "iov_cnt" / U32,
            "iov" / c.Array(c.this.iov_cnt, Indexed(c.Struct("addr" / U64, "len" / U32))),
            "image" / Raw(lambda resource: 4 * resource.width * resource.height),
        ),
    ),
    "enable" / S32,
    "max_outputs" / U32,
    "scanout" / c.Array(c.this.max_outputs, Indexed(_SCANOUT)),
)

# -- virtio-iommu: `hw/virtio/virtio-iommu.c: vmstate_virtio_iommu_device`; version 2 (7.0) added the bypasses ------

_MAPPING = when(c.this.present != 0, "low" / U64, "high" / U64, "phys_addr" / U64, "flags" / U32)

_IOMMU = (
    "domains.nnodes" / U32,
    "domains"
    / many(
        _absent,
        "present" / U8,
        *when(
            c.this.present != 0,
            "key" / U64,
            "id" / U32,
            "mappings.nnodes" / U32,
            "mappings" / many(_absent, "present" / U8, *_MAPPING),
            "endpoint_list" / many(_absent, "present" / U8, *when(c.this.present != 0, "id" / U32)),
            "bypass" / c.If(c.this._params.version_id >= 2, U8),
        ),
    ),
    "config.bypass" / c.If(c.this._params.version_id >= 2, U8),
)

# -- virtio-mem: `hw/virtio/virtio-mem.c: vmstate_virtio_mem_device` ------------------------------------------------


def _went_early(context: Any, payload: Payload) -> bool:
    """Tells whether the other fields went before the RAM (`x-early-migration`, since 8.0). Nothing here says so but the
    first of the subsections that a virtio-mem always has.
    """
    early = bytes(payload.view[payload.offset + 16 : payload.offset + 25])
    return early[:1] == b"\5" and early[2:] == b"virtio/"


def _check_blocks(context: Any, payload: Payload) -> None:
    if not context._early and (not context.block_size or context.region_size % context.block_size):
        raise payload.wrong(f"blocks of {context.block_size} bytes", f"a divisor of the region's {context.region_size}")


_MEM = (
    "_early" / Step(_went_early),
    *when(lambda context: not context._early, "addr" / U64, "region_size" / U64, "block_size" / U64),
    Step(_check_blocks),
    "node" / c.If(lambda context: not context._early, U32),
    "usable_region_size" / U64,
    "size" / c.If(lambda context: not context._early, U64),
    "requested_size" / U64,
    "bitmap"
    / c.If(
        lambda context: not context._early,
        Raw(lambda context: (context.region_size // context.block_size + 63) // 64 * 8),
    ),
)

# -- virtio-net: `hw/net/virtio-net.c: virtio_net_save_device` ------------------------------------------------------

_CTRL_GUEST_OFFLOADS = 1 << 2  # VIRTIO_NET_F_CTRL_GUEST_OFFLOADS

_NET = (
    "mac" / Raw(6),
    "tx_waiting" / U32,
    "mergeable_rx_bufs" / U32,
    "status" / U16,
    "promisc" / U8,
    "allmulti" / U8,
    "mac_table.in_use" / U32,
    "mac_table.macs" / Raw(lambda context: 6 * context["mac_table.in_use"]),
    "vlans" / Raw(512),
    "has_vnet_hdr" / U32,
    "mac_table.multi_overflow" / U8,
    "mac_table.uni_overflow" / U8,
    "alluni" / U8,
    "nomulti" / U8,
    "nouni" / U8,
    "nobcast" / U8,
    "has_ufo" / U8,
    *when(
        lambda context: context["vq.num"] > 3,  # more than one pair, and the control queue
        "max_queues" / U16,
        "curr_queues" / U16,
        "vqs"
        / c.Array(lambda context: max(context.curr_queues - 1, 0), Indexed(c.Struct("tx_waiting" / U32), first=1)),
    ),
    "curr_guest_offloads" / c.If(c.this.guest_features & _CTRL_GUEST_OFFLOADS, U64),
    "_own_subsections" / Subsections("virtio-net-device"),
)

DEVICES = {
    "virtio-9p": Device(),
    "virtio-balloon": Device(_BALLOON),
    "virtio-blk": Device(_BLK),
    "virtio-console": Device(_CONSOLE),
    "virtio-gpu": Device(behind=_GPU),
    "virtio-input": Device(),
    "virtio-iommu": Device(_IOMMU),
    "virtio-mem": Device(_MEM),
    "virtio-net": Device(_NET),
    "virtio-rng": Device(),
    "virtio-scsi": Device(),
    "virtio-vhost_vsock": Device(),
}
