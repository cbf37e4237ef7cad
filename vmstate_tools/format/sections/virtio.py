"""The payload of a virtio device: code in QEMU with VMState in between (`hw/virtio/virtio.c: virtio_save`).

Up to 2.6 such a section was registered by hand, since 2.7 its VMStateDescription has this payload as one field
of type `virtio`. On the wire both are the same: the transport's state, the queues, the device's own, subsections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmstate_tools.format.sections.handwritten import Reader

# VIRTIO_QUEUE_MAX (VIRTIO_PCI_QUEUE_MAX, 64, before 2.4).
_QUEUES = 1024

# A virtqueue element in flight is the host's own struct (VirtQueueElementOld), of a 64-bit host.
_ELEMENT = 16 + 1024 * (8 + 8 + 16 + 16)


def format_of(idstr: str) -> Callable[[Reader], None] | None:
    """The format of section `idstr`, if it is of a virtio device whose transport and own part are known."""
    path, _, name = idstr.rpartition("/")
    own = _DEVICES.get(name)
    for is_path, state, align in _TRANSPORTS:
        if own is not None and is_path(path):
            return lambda reader: _virtio(reader, state, align, own)
    return None


def _virtio(
    reader: Reader, state: Callable[[Reader], bool], align: bool, own: Callable[[Reader, int, int], None]
) -> None:
    vectors = state(reader)
    reader.numbers("", "status:uint8 isr:uint8 queue_sel:uint16")
    features = reader.number("guest_features", "uint32")
    reader.buffer("config", reader.number("config_len", "uint32"))
    queues = reader.number("vq.num", "uint32")
    if queues > _QUEUES:
        raise reader.wrong(f"{queues} virtqueues", f"{_QUEUES} at most")
    for index in range(queues):
        reader.number(f"vq[{index}].vring.num", "uint32")
        if align:
            reader.number(f"vq[{index}].vring.align", "uint32")
        reader.numbers(f"vq[{index}].", "vring.desc:uint64 last_avail_idx:uint16")
        if vectors:
            reader.number(f"vq[{index}].vector", "uint16")
    own(reader, queues, features)
    _subsections(reader, "virtio")
    if own is _gpu:
        _gpu_resources(reader)


def _mmio(reader: Reader) -> bool:
    """`hw/virtio/virtio-mmio.c: virtio_mmio_save_config`; queues have no vector."""
    reader.numbers("mmio.", "host_features_sel:uint32 guest_features_sel:uint32 guest_page_shift:uint32")
    return False


def _ccw(reader: Reader) -> bool:
    """`hw/s390x/virtio-ccw.c: vmstate_virtio_ccw_dev`, around `hw/s390x/css.c: vmstate_subch_dev`."""
    reader.numbers("sch.", _SUBCHANNEL)
    _subsections(reader, "s390_subch_dev")
    for name in ("indicators", "indicators2", "summary_indicator"):
        reader.numbers(f"{name}.", "len:int32 addr:uint64")
    reader.numbers("", "config_vector:uint16 routes.adapter.ind_offset:uint64")
    _subsections(reader, "s390_adapter_info")
    reader.numbers("", "thinint_isc:uint8 revision:int32")
    return True


_SUBCHANNEL = (
    "cssid:uint8 ssid:uint8 schid:uint16 devno:uint16 thinint_active:uint8 pmcw.intparm:uint32 pmcw.flags:uint16 "
    "pmcw.devno:uint16 pmcw.lpm:uint8 pmcw.pnom:uint8 pmcw.lpum:uint8 pmcw.pim:uint8 pmcw.mbi:uint16 pmcw.pom:uint8 "
    "pmcw.pam:uint8 pmcw.chpid:8 pmcw.chars:uint32 scsw.flags:uint16 scsw.ctrl:uint16 scsw.cpa:uint32 "
    "scsw.dstat:uint8 scsw.cstat:uint8 scsw.count:uint16 mba:uint64 mda:4 sense_data:32 channel_prog:uint64 "
    "last_cmd.cmd_code:uint8 last_cmd.flags:uint8 last_cmd.count:uint16 last_cmd.cda:uint32 last_cmd_valid:uint8 "
    "id.reserved:uint8 id.cu_type:uint16 id.cu_model:uint8 id.dev_type:uint16 id.dev_model:uint8 id.unused:uint8 "
    f"id.ciw:{4 * 62} ccw_fmt_1:uint8 ccw_no_data_cnt:uint8"
)


def _pci(reader: Reader) -> bool:
    """The PCI device and its MSI-X table (`hw/virtio/virtio-pci.c: virtio_pci_save_config`); has it MSI-X."""
    reader.number("pci.version_id", "int32")
    capabilities = _capabilities(bytes(reader.view[reader.offset : reader.offset + 256]))
    reader.buffer("pci.config", 4096 if 0x10 in capabilities else 256)
    reader.numbers("pci.", " ".join(f"irq_state[{pin}]:uint32" for pin in range(4)))
    if 0x11 not in capabilities:
        return False
    entries = (capabilities[0x11] & 0x7FF) + 1
    reader.buffer("msix.table", 16 * entries)
    reader.buffer("msix.pba", (entries + 7) // 8)
    reader.number("config_vector", "uint16")
    return True


def _capabilities(config: bytes) -> dict[int, int]:
    """PCI capability ids and the 16-bit word that follows each one's header (little-endian, as all of PCI)."""
    found: dict[int, int] = {}
    if len(config) < 256 or not config[6] & 0x10:
        return found
    at = config[0x34] & 0xFC
    for _ in range(48):  # more would be a loop
        if at < 0x40:
            break
        found[config[at]] = int.from_bytes(config[at + 2 : at + 4], "little")
        if config[at + 1] & 0xFC == at:
            break
        at = config[at + 1] & 0xFC
    return found


def _nothing(reader: Reader, queues: int, features: int) -> None:
    """Devices without state of their own."""


def _gpu(reader: Reader, queues: int, features: int) -> None:
    """What `virtio-gpu` has of its own stands behind the subsections: a second field of its description."""


def _gpu_resources(reader: Reader) -> None:
    """`hw/display/virtio-gpu.c: virtio_gpu_save`. All formats have 4 bytes per pixel."""
    number = 0
    while reader.number(f"reslist[{number}].resource_id", "uint32"):
        resource = f"reslist[{number}]."
        width = reader.number(resource + "width", "uint32")
        height = reader.number(resource + "height", "uint32")
        reader.number(resource + "format", "uint32")
        for entry in range(reader.number(resource + "iov_cnt", "uint32")):
            reader.numbers(f"{resource}iov[{entry}].", "addr:uint64 len:uint32")
        reader.buffer(resource + "image", 4 * width * height)
        number += 1
    reader.number("enable", "int32")
    for scanout in range(reader.number("max_outputs", "uint32")):
        reader.numbers(f"scanout[{scanout}].", _SCANOUT)


_SCANOUT = (
    "resource_id:uint32 width:uint32 height:uint32 x:int32 y:int32 "
    "cursor.resource_id:uint32 cursor.hot_x:uint32 cursor.hot_y:uint32 cursor.pos.x:uint32 cursor.pos.y:uint32"
)


def _iommu(reader: Reader, queues: int, features: int) -> None:
    """`hw/virtio/virtio-iommu.c: vmstate_virtio_iommu_device`; version 2 (7.0) added the bypasses."""
    reader.number("domains.nnodes", "uint32")
    number = 0
    while reader.number(f"domains[{number}].present", "uint8"):
        domain = f"domains[{number}]."
        reader.numbers(domain, "key:uint64 id:uint32 mappings.nnodes:uint32")
        mapping = endpoint = 0
        while reader.number(f"{domain}mappings[{mapping}].present", "uint8"):
            reader.numbers(f"{domain}mappings[{mapping}].", "low:uint64 high:uint64 phys_addr:uint64 flags:uint32")
            mapping += 1
        while reader.number(f"{domain}endpoint_list[{endpoint}].present", "uint8"):
            reader.number(f"{domain}endpoint_list[{endpoint}].id", "uint32")
            endpoint += 1
        if reader.version_id >= 2:
            reader.number(domain + "bypass", "uint8")
        number += 1
    if reader.version_id >= 2:
        reader.number("config.bypass", "uint8")


def _mem(reader: Reader, queues: int, features: int) -> None:
    """`hw/virtio/virtio-mem.c: vmstate_virtio_mem_device`.

    Since 8.0 the other fields may have gone before the RAM (`x-early-migration`); nothing here says so but the
    first of the subsections that a virtio-mem always has.
    """
    early = bytes(reader.view[reader.offset + 16 : reader.offset + 25])
    if early[:1] == b"\5" and early[2:] == b"virtio/":
        reader.numbers("", "usable_region_size:uint64 requested_size:uint64")
        return
    reader.number("addr", "uint64")
    region = reader.number("region_size", "uint64")
    block = reader.number("block_size", "uint64")
    if not block or region % block:
        raise reader.wrong(f"blocks of {block} bytes", f"a divisor of the region's {region}")
    reader.numbers("", "node:uint32 usable_region_size:uint64 size:uint64 requested_size:uint64")
    reader.buffer("bitmap", (region // block + 63) // 64 * 8)


def _balloon(reader: Reader, queues: int, features: int) -> None:
    reader.numbers("", "num_pages:uint32 actual:uint32")
    _subsections(reader, "virtio-balloon-device")


def _blk(reader: Reader, queues: int, features: int) -> None:
    number = 0
    while reader.number(f"rq[{number}].present", "uint8"):
        if queues > 1:
            reader.number(f"rq[{number}].queue", "uint32")
        reader.buffer(f"rq[{number}].elem", _ELEMENT)
        number += 1


def _net(reader: Reader, queues: int, features: int) -> None:
    reader.buffer("mac", 6)
    reader.numbers("", "tx_waiting:uint32 mergeable_rx_bufs:uint32 status:uint16 promisc:uint8 allmulti:uint8")
    reader.buffer("mac_table.macs", 6 * reader.number("mac_table.in_use", "uint32"))
    reader.buffer("vlans", 512)
    reader.numbers(
        "",
        "has_vnet_hdr:uint32 mac_table.multi_overflow:uint8 mac_table.uni_overflow:uint8 alluni:uint8 "
        "nomulti:uint8 nouni:uint8 nobcast:uint8 has_ufo:uint8",
    )
    if queues > 3:  # more than one pair, and the control queue
        reader.number("max_queues", "uint16")
        for pair in range(1, reader.number("curr_queues", "uint16")):
            reader.number(f"vqs[{pair}].tx_waiting", "uint32")
    if features & 1 << 2:  # VIRTIO_NET_F_CTRL_GUEST_OFFLOADS
        reader.number("curr_guest_offloads", "uint64")
    _subsections(reader, "virtio-net-device")


def _console(reader: Reader, queues: int, features: int) -> None:
    reader.numbers("", "config.cols:uint16 config.rows:uint16")
    ports = reader.number("config.max_nr_ports", "uint32")
    # In the guest's byte order: a big-endian guest's 31 is 0x1f000000 here.
    for word in range((min(ports, int.from_bytes(ports.to_bytes(4, "big"), "little")) + 31) // 32):
        reader.number(f"ports_map[{word}]", "uint32")
    for number in range(reader.number("nr_active_ports", "uint32")):
        port = f"ports[{number}]."
        reader.numbers(port, "id:uint32 guest_connected:uint8 host_connected:uint8")
        if reader.number(port + "elem_popped", "uint32"):
            reader.numbers(port, "iov_idx:uint32 iov_offset:uint64")
            reader.buffer(port + "elem", _ELEMENT)


_DEVICES: dict[str, Callable[[Reader, int, int], None]] = {
    "virtio-9p": _nothing,
    "virtio-balloon": _balloon,
    "virtio-blk": _blk,
    "virtio-console": _console,
    "virtio-gpu": _gpu,
    "virtio-input": _nothing,
    "virtio-iommu": _iommu,
    "virtio-mem": _mem,
    "virtio-net": _net,
    "virtio-rng": _nothing,
    "virtio-scsi": _nothing,
    "virtio-vhost_vsock": _nothing,
}


def _is_hex(text: str, more: str = "") -> bool:
    return text != "" and not text.strip("0123456789abcdef" + more)


def _is_pci(path: str) -> bool:
    """`0000:00:01.0`, or behind the address of the host bridge: `pci@800000020000000:00.0`."""
    bridge, _, rest = path.partition(":")
    bus = bridge.removeprefix("pci@")
    return _is_hex(bus) and (bus != bridge or len(bus) == 4) and _is_hex(rest, ":./")


def _is_mmio(path: str) -> bool:
    """`virtio-mmio@000000000a000000`"""
    return path.startswith("virtio-mmio@") and _is_hex(path[12:])


def _is_ccw(path: str) -> bool:
    """`/fe.0.0001`: channel subsystem, subchannel set, device number."""
    parts = path[1:].split(".")
    lengths = [len(part) for part in parts]
    return path[:1] == "/" and lengths in ([1, 1, 4], [2, 1, 4]) and parts[1] in "0123" and _is_hex(parts[0] + parts[2])


# Is this the path of such a device; what reads its state and tells whether each queue has a vector; has each queue an
# alignment (`has_variable_vring_alignment`).
_TRANSPORTS: tuple[tuple[Callable[[str], bool], Callable[[Reader], bool], bool], ...] = (
    (_is_pci, _pci, False),
    (_is_mmio, _mmio, True),
    (_is_ccw, _ccw, False),
)

# Subsections of vmstate_virtio and what they hold: `field:type` or `field:bytes`.
_SUBSECTIONS = {
    "virtio/device_endian": "device_endian:uint8",
    "virtio/64bit_features": "guest_features:uint64",
    "virtio/128bit_features": "guest_features_ex:uint64",
    "virtio/virtqueues": f"vq:{16 * _QUEUES}",  # avail, used: u64
    "virtio/ringsize": f"vq:{4 * _QUEUES}",  # num_default: u32
    "virtio/broken": "broken:uint8",
    "virtio/started": "started:uint8",
    "virtio/disabled": "disabled:uint8",
    "virtio/packed_virtqueues": f"vq:{10 * _QUEUES}",
    "virtio/extra_state": "",  # the transport's: vmstate_virtio_pci, vmstate_virtio_mmio, subsections only
    "virtio_mmio/state": f"guest_features:8 vqs:{27 * _QUEUES}",
    "s390_subch_dev/orb": "intparm:uint32 ctrl0:uint16 lpm:uint8 ctrl1:uint8 cpa:uint32",
    "s390_adapter_info/summary_offset": "summary_offset:uint32",
    "virtio_pci/modern_state": f"dfselect:uint32 gfselect:uint32 guest_features:8 vqs:{28 * _QUEUES}",
    "virtio_pci/modern_state/features128": "guest_features:8",
    "virtio-balloon-device/free-page-report": "free_page_hint_cmd_id:uint32 free_page_hint_status:uint32",
    "virtio-balloon-device/page-poison": "poison_val:uint32",
}


def _subsections(reader: Reader, parent: str) -> None:
    """Subsections whose name begins with `parent`, as QEMU's reader takes them."""
    view = reader.view
    while reader.offset + 2 <= len(view) and view[reader.offset] == 5:
        text = bytes(view[reader.offset + 2 : reader.offset + 2 + view[reader.offset + 1]]).decode("latin-1")
        if not text.startswith(parent):
            return
        if text not in _SUBSECTIONS:
            raise StreamError(f"subsection {text!r}", offset=reader.offset, expected=f"one of {sorted(_SUBSECTIONS)}")
        reader.number(f"{text}.subsection", "uint8")
        reader.string(f"{text}.name")
        reader.number(f"{text}.version_id", "uint32")
        reader.numbers(f"{text}.", _SUBSECTIONS[text])
        _subsections(reader, "virtio_" if text == "virtio/extra_state" else text + "/")
