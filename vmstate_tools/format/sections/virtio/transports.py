"""What carries a virtio device: PCI, memory-mapped registers, the channel subsystem of s390."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import construct as c

from vmstate_tools.format.sections.leaves import S32, U8, U16, U32, U64, Indexed, Payload, Raw, Step, when
from vmstate_tools.format.sections.virtio.subsections import Subsections

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Transport:
    """A transport: whether a device's path is one of its, the fields of its state, and what it adds to each queue.

    `vectors` says from those fields whether a queue has a vector, `align` is whether it has an alignment
    (`has_variable_vring_alignment`).
    """

    has: Callable[[str], bool]
    state: tuple[c.Construct, ...]
    vectors: Callable[[Any], bool]
    align: bool = False


# -- PCI: `hw/virtio/virtio-pci.c: virtio_pci_save_config` ---------------------------------------------------------

_EXPRESS, _MSIX = 0x10, 0x11  # PCI_CAP_ID_EXP, PCI_CAP_ID_MSIX


def _capabilities(config: bytes) -> dict[int, int]:
    """Returns PCI capability ids and the 16-bit word that follows each one's header (little-endian, as all of PCI)."""
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


def _look_at_capabilities(context: Any, payload: Payload) -> dict[int, int]:
    return _capabilities(bytes(payload.view[payload.offset : payload.offset + 256]))


def _entries(context: Any) -> int:
    """Returns the number of entries of the MSI-X table."""
    return int(context._capabilities[_MSIX] & 0x7FF) + 1


def _has_msix(context: Any) -> bool:
    return _MSIX in context._capabilities


_PCI = (
    "pci.version_id" / S32,
    "_capabilities" / Step(_look_at_capabilities),
    "pci.config" / Raw(lambda context: 4096 if _EXPRESS in context._capabilities else 256),
    "pci.irq_state" / c.Array(4, Indexed(U32)),
    *when(
        _has_msix,
        "msix.table" / Raw(lambda context: 16 * _entries(context)),
        "msix.pba" / Raw(lambda context: (_entries(context) + 7) // 8),
        "config_vector" / U16,
    ),
)


def _is_hex(text: str, more: str = "") -> bool:
    return text != "" and not text.strip("0123456789abcdef" + more)


def _is_pci(path: str) -> bool:
    """Tells whether a path is like `0000:00:01.0`, or like `pci@800000020000000:00.0`, with the host bridge before."""
    bridge, _, rest = path.partition(":")
    bus = bridge.removeprefix("pci@")
    return _is_hex(bus) and (bus != bridge or len(bus) == 4) and _is_hex(rest, ":./")


# -- memory-mapped registers: `hw/virtio/virtio-mmio.c: virtio_mmio_save_config` -----------------------------------

_MMIO = ("mmio.host_features_sel" / U32, "mmio.guest_features_sel" / U32, "mmio.guest_page_shift" / U32)


def _is_mmio(path: str) -> bool:
    """Tells whether a path is like `virtio-mmio@000000000a000000`."""
    return path.startswith("virtio-mmio@") and _is_hex(path[12:])


# -- channels: `hw/s390x/virtio-ccw.c: vmstate_virtio_ccw_dev`, around `hw/s390x/css.c: vmstate_subch_dev` ---------

_SUBCHANNEL = c.Struct(
    "cssid" / U8,
    "ssid" / U8,
    "schid" / U16,
    "devno" / U16,
    "thinint_active" / U8,
    "pmcw.intparm" / U32,
    "pmcw.flags" / U16,
    "pmcw.devno" / U16,
    *(f"pmcw.{name}" / U8 for name in ("lpm", "pnom", "lpum", "pim")),
    "pmcw.mbi" / U16,
    "pmcw.pom" / U8,
    "pmcw.pam" / U8,
    "pmcw.chpid" / Raw(8),
    "pmcw.chars" / U32,
    "scsw.flags" / U16,
    "scsw.ctrl" / U16,
    "scsw.cpa" / U32,
    "scsw.dstat" / U8,
    "scsw.cstat" / U8,
    "scsw.count" / U16,
    "mba" / U64,
    "mda" / Raw(4),
    "sense_data" / Raw(32),
    "channel_prog" / U64,
    "last_cmd.cmd_code" / U8,
    "last_cmd.flags" / U8,
    "last_cmd.count" / U16,
    "last_cmd.cda" / U32,
    "last_cmd_valid" / U8,
    "id.reserved" / U8,
    "id.cu_type" / U16,
    "id.cu_model" / U8,
    "id.dev_type" / U16,
    "id.dev_model" / U8,
    "id.unused" / U8,
    "id.ciw" / Raw(4 * 62),
    "ccw_fmt_1" / U8,
    "ccw_no_data_cnt" / U8,
)

_INDICATOR = c.Struct("len" / S32, "addr" / U64)

_CCW = (
    "sch" / _SUBCHANNEL,
    "_sch_subsections" / Subsections("s390_subch_dev"),
    "indicators" / _INDICATOR,
    "indicators2" / _INDICATOR,
    "summary_indicator" / _INDICATOR,
    "config_vector" / U16,
    "routes.adapter.ind_offset" / U64,
    "_adapter_subsections" / Subsections("s390_adapter_info"),
    "thinint_isc" / U8,
    "revision" / S32,
)


def _is_ccw(path: str) -> bool:
    """Tells whether a path is like `/fe.0.0001`: channel subsystem, subchannel set, device number."""
    parts = path[1:].split(".")
    lengths = [len(part) for part in parts]
    return path[:1] == "/" and lengths in ([1, 1, 4], [2, 1, 4]) and parts[1] in "0123" and _is_hex(parts[0] + parts[2])


TRANSPORTS = (
    Transport(_is_pci, _PCI, _has_msix),
    Transport(_is_mmio, _MMIO, lambda context: False, align=True),
    Transport(_is_ccw, _CCW, lambda context: True),
)
