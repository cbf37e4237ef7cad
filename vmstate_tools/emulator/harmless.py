"""What of a command line that a file names may reach a QEMU: plain names, and options known to do no harm.

A `manifest.csv` and a stream may come from a stranger, and QEMU's options open files, write files (`-machine
dumpdtb=`) and run programs (`-netdev tap,script=`). So nothing passes that is not listed here. What is listed names no
file but the package's own (`vmstate_tools.emulator.guest`), no back end, no program; and as no value has a slash in it,
what QEMU takes for a file all the same would stand in its private working directory.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from vmstate_tools.emulator import guest

_PLAIN = re.compile(r"[A-Za-z0-9_.+-]+")

_FLAGS = {"-S", "-nodefaults", "-nographic", "-no-hpet", "-no-acpi", "-no-user-config", "-no-fd-bootchk"}

# Machine properties that name a file, or text for a kernel that is one.
_MACHINE_FILES = {"kernel", "initrd", "append", "shim", "dtb", "dumpdtb", "firmware", "pflash0", "pflash1", "bios"}

# Device types without a side to the host: all that these patterns match, but for those after "!".
_DEVICES = (
    "virtio-*", "!virtio-9p*", "!virtio-input-host*", "!virtio-sound*", "!virtio-*rutabaga*", "!virtio-*-gl*",
    "!virtio-crypto*", "!virtio-pmem*",
    "VGA", "cirrus-vga", "vmware-svga", "bochs-display", "secondary-vga", "ramfb", "ati-vga",
    "e1000*", "i8255*", "igb", "igbvf", "ne2k_*", "pcnet", "rtl8139", "tulip", "vmxnet3", "sungem", "spapr-vlan",
    "*-usb-*hci*", "*-ehci*", "*-ohci*", "*-uhci*", "usb-ehci", "pci-ohci", "qemu-xhci", "ich9-*", "!ich9-intel-hda*",
    "usb-kbd", "usb-mouse", "usb-tablet", "usb-hub",
    "ide-hd", "ide-cd", "scsi-hd", "scsi-cd", "scsi-disk", "spapr-vscsi", "lsi53c*", "megasas*", "mptsas1068", "pvscsi",
    "am53c974", "dc390", "ahci", "piix3-ide", "piix4-ide", "cmd646-ide", "nvme", "nvme-ns", "nvme-subsys", "sdhci-pci",
    "pci-bridge", "pcie-root-port", "pcie-pci-bridge", "ioh3420", "x3130-upstream", "xio3130-downstream", "pxb*",
    "spapr-pci-host-bridge", "intel-iommu", "amd-iommu", "pc-dimm", "i6300esb", "ib700", "edu", "pvpanic*",
    "*-cpu-core", "*-x86_64-cpu", "*-i386-cpu", "*-s390x-cpu", "smbus-eeprom", "vmcoreinfo",
)  # fmt: skip

# Device properties that name a file or a back end; `drive` and `memdev` only where the back end is one of ours.
_DEVICE_FILES = {
    "file", "filename", "path", "script", "downscript", "chardev", "netdev", "fsdev", "rootdir", "romfile", "logfile",
    "log", "config", "firmware", "fd", "vhostfd", "sysfsdev", "socket", "server", "audiodev", "cryptodev", "rng",
    "pcap",
}  # fmt: skip


def is_plain(name: str) -> bool:
    """Tells whether a name is one that QEMU takes for a name: no comma, no slash, not like an option."""
    return _PLAIN.fullmatch(name) is not None and not name.startswith("-")


@dataclass
class Screened:
    """A Screened has the options of a command line: the harmless ones, and the others, each with its value."""

    harmless: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def screen(line: str) -> Screened:
    """Sorts the options of a command line that a file names. What cannot be taken apart does harm, as a whole."""
    try:
        words = shlex.split(line)
    except ValueError:
        return Screened(others=[line])
    found, ids = Screened(), _Ids()
    options: list[tuple[str, str | None]] = []
    while words:
        option = words.pop(0)
        name = "-" + option.lstrip("-") if option.startswith("-") else ""
        takes_value = name not in _FLAGS and bool(words) and name in _VALUES
        options.append((name or option, words.pop(0) if takes_value else None))
    # Back ends first: devices name them, and may stand before them.
    for name, value in sorted(options, key=lambda option: option[0] not in ("-drive", "-object")):
        if value is not None and name in ("-drive", "-object"):
            _VALUES[name](value, ids)
    for name, value in options:
        harmless = name in _FLAGS if value is None else _VALUES[name](value, ids)
        (found.harmless if harmless else found.others).extend([name] if value is None else [name, value])
    return found


class _Ids:
    """Back ends of ours that a command line has: a device may name them."""

    def __init__(self) -> None:
        self.drives: set[str] = set()
        self.memory: set[str] = set()


def _properties(text: str, kind: str = "") -> dict[str, str] | None:
    """Returns `a=b,c=d` as a dict; None where a name or a value is not plain.

    `kind` is the property that the option's first word, before `text`, stands for: with `driver=usb-host` behind it,
    QEMU makes another device of `-device usb-hub`.
    """
    found = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not (is_plain(name) and (_PLAIN.fullmatch(value) or (equals and not value))):
            return None
        if name in found or name == kind:
            return None  # which of them counts differs between releases
        found[name] = value
    return found


def _machine(value: str, _ids: _Ids) -> bool:
    name, _, rest = value.partition(",")
    properties = _properties(rest, "type")
    return (
        is_plain(name)
        and properties is not None
        and not properties.keys() & _MACHINE_FILES
        and properties.get("memory-backend", "") in {"", *_ids.memory}
        and properties.get("accel", "tcg") in ("tcg", "kvm")
    )


def _cpu(value: str, _ids: _Ids) -> bool:
    """Tells whether `-cpu` has a model and features: `qemu64,+avx2,-sse4a,level=4`."""
    model, *features = value.split(",")
    return is_plain(model) and all(re.fullmatch(r"[+-]?[A-Za-z0-9_.-]+(=[A-Za-z0-9_.+-]+)?", f) for f in features)


def _sizes(value: str, _ids: _Ids) -> bool:
    """Tells whether `-m`, `-smp` have numbers: `256M,slots=4,maxmem=4G`, `cpus=2,cores=2`."""
    return all(re.fullmatch(r"([a-z]+=)?[0-9]{1,12}[KMGTkmgt]?", part) for part in value.split(","))


def _device(value: str, ids: _Ids) -> bool:
    kind, _, rest = value.partition(",")
    properties = _properties(rest, "driver")
    if properties is None or not _is_known_device(kind):
        return False
    named = {name for name, value in properties.items() if value}
    return (
        not named & _DEVICE_FILES
        and properties.get("drive", "") in {"", *ids.drives}
        and properties.get("memdev", "") in {"", *ids.memory}
    )


def _is_known_device(kind: str) -> bool:
    known = False
    for pattern in _DEVICES:
        if fnmatch.fnmatchcase(kind, pattern.lstrip("!")):
            known = not pattern.startswith("!")
    return known and is_plain(kind)


def _drive(value: str, ids: _Ids) -> bool:
    """Tells whether a drive has our empty disk behind it, and what is written to it goes nowhere."""
    properties = _properties(value) or {}
    name = properties.pop("id", "")
    if properties != {"file": "disk.raw", "if": "none", "format": "raw", "snapshot": "on"} or not name:
        return False
    ids.drives.add(name)
    return True


def _object(value: str, ids: _Ids) -> bool:
    kind, _, rest = value.partition(",")
    properties = _properties(rest)
    # Not `prealloc`: all of the host's memory would be taken, for as long as QEMU runs.
    if kind != "memory-backend-ram" or properties is None or properties.keys() - {"id", "size", "share"}:
        return False
    ids.memory.add(properties.get("id", ""))
    return True


def _plain_value(value: str, _ids: _Ids) -> bool:
    return is_plain(value)


_VALUES: dict[str, Callable[[str, _Ids], bool]] = {
    "-machine": _machine,
    "-M": _machine,
    "-cpu": _cpu,
    "-m": _sizes,
    "-smp": _sizes,
    "-device": _device,
    "-drive": _drive,
    "-object": _object,
    "-global": lambda value, _: re.fullmatch(r"migration\.[a-z0-9-]+=[A-Za-z0-9_.+-]+", value) is not None,
    "-bios": lambda value, _: guest.is_firmware(value),
    "-L": lambda value, _: value == "bios",  # of the working directory: ours
    "-accel": lambda value, _: value in ("tcg", "kvm"),
    "-display": lambda value, _: value == "none",
    "-serial": lambda value, _: value in ("null", "none"),
    "-parallel": lambda value, _: value in ("null", "none"),
    "-monitor": lambda value, _: value in ("null", "none"),
    "-net": lambda value, _: value == "none",
    "-nic": lambda value, _: value == "none",
    "-vga": _plain_value,
    "-name": _plain_value,
    "-uuid": _plain_value,
}
