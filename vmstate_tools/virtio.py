"""The payload of a virtio device on PCI: code in QEMU with VMState in between (`hw/virtio/virtio.c: virtio_save`).

Up to 2.6 such a section was registered by hand, since 2.7 its VMStateDescription has this payload as one field
of type `virtio`. On the wire both are the same: the PCI device, MSI-X, the queues, the device's own, subsections.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmstate_tools.handwritten import Reader

_SECTION = re.compile(r"(?:pci@[0-9a-f]+|[0-9a-f]{4}):[0-9a-f:./]+/(virtio-[a-z0-9]+)")

# VIRTIO_QUEUE_MAX (VIRTIO_PCI_QUEUE_MAX, 64, before 2.4).
_QUEUES = 1024

# A virtqueue element in flight is the host's own struct (VirtQueueElementOld), of a 64-bit host.
_ELEMENT = 16 + 1024 * (8 + 8 + 16 + 16)


def format_of(idstr: str) -> Callable[[Reader], None] | None:
    """The format of section `idstr`, if it is of a virtio device on PCI whose own part is known."""
    match = _SECTION.fullmatch(idstr)
    own = _DEVICES.get(match[1]) if match else None
    return None if own is None else lambda reader: _virtio(reader, own)


def _virtio(reader: Reader, own: Callable[[Reader, int, int], None]) -> None:
    msix = _pci(reader)
    reader.numbers("", "status:uint8 isr:uint8 queue_sel:uint16")
    features = reader.number("guest_features", "uint32")
    reader.buffer("config", reader.number("config_len", "uint32"))
    queues = reader.number("vq.num", "uint32")
    if queues > _QUEUES:
        raise reader.wrong(f"{queues} virtqueues", f"{_QUEUES} at most")
    for index in range(queues):
        reader.numbers(f"vq[{index}].", "vring.num:uint32 vring.desc:uint64 last_avail_idx:uint16")
        if msix:
            reader.number(f"vq[{index}].vector", "uint16")
    own(reader, queues, features)
    _subsections(reader, "virtio")


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
    while at >= 0x40 and len(found) < 48:  # more would be a loop
        found[config[at]] = int.from_bytes(config[at + 2 : at + 4], "little")
        if config[at + 1] & 0xFC == at:
            break
        at = config[at + 1] & 0xFC
    return found


def _nothing(reader: Reader, queues: int, features: int) -> None:
    """Devices without state of their own."""


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
    "virtio-balloon": _balloon,
    "virtio-blk": _blk,
    "virtio-console": _console,
    "virtio-net": _net,
    "virtio-rng": _nothing,
    "virtio-scsi": _nothing,
}

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
    "virtio/extra_state": "",  # the transport's: vmstate_virtio_pci, subsections only
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
        for field in _SUBSECTIONS[text].split():
            name, _, kind = field.partition(":")
            if kind.isdigit():
                reader.buffer(f"{text}.{name}", int(kind))
            else:
                reader.number(f"{text}.{name}", kind)
        _subsections(reader, "virtio_pci" if text == "virtio/extra_state" else text + "/")
