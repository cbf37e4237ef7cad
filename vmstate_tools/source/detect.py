"""What bytes are, by how they begin: a stream, a further connection of a migration, or a container."""

from __future__ import annotations

import re

from vmstate_tools.errors import StreamError
from vmstate_tools.source import connections

LEAD_LIMIT = 16 << 20
"""How many bytes may precede the stream. `migrate file:PATH,offset=N` leaves the first N untouched."""

STREAM = b"QEVM"

CONTAINERS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bz2",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x89LZO\x00\r\n\x1a\n": "lzop",
    b"LibvirtQemudSave": "libvirt",
    b"LibvirtQemudPart": "libvirt",
    b"QFI\xfb\x00\x00\x00\x02": "qcow2",
    b"QFI\xfb\x00\x00\x00\x03": "qcow2",
}

LIBVIRT_FORMAT_AT = 28
LIBVIRT_SPARSE = (b"\x06\x00\x00\x00", b"\x00\x00\x00\x06")
"""The format number of a sparse libvirt image (`libvirt.FORMATS`) at `LIBVIRT_FORMAT_AT`, in either byte order."""

# zstd and lz4 share the magic of frames that hold nothing to unpack: 0x184d2a50 to 0x184d2a5f, little endian.
_SKIPPABLE = rb"(?s)[\x50-\x5f]\x2a\x4d\x18(....)"

# Away from the file's start the magic alone is no evidence: also the version (2 until 2008, then 3) and the
# first record's type (section, command, configuration or end of file).
_LATER = rb"QEVM\x00\x00\x00[\x02\x03][\x00\x01\x04\x07\x08]"
_EVIDENCE = 9

_OTHERS = {
    b"QFI\xfb": "a qcow image of an unknown version",
    b"\x7fELF": "an ELF file, perhaps from dump-guest-memory",
    b"KDUMP   ": "a kdump file, perhaps from dump-guest-memory",
    b"makedumpfile": "a flattened kdump file",
    b"PAGEDU64": "a Windows crash dump, perhaps from dump-guest-memory",
    b"PK\x03\x04": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x02\x21\x4c\x18": "lz4's legacy format",
    b"Rar!": "a rar archive",
    b"KDMV": "a VMDK image",
    b"vhdxfile": "a VHDX image",
}
MULTIFD = "multifd channel"
CHANNEL = b"\x11\x22\x33\x44\x00\x00\x00\x01"  # MULTIFD_MAGIC and MULTIFD_VERSION: migration/multifd.c
_LONGEST = 9 + 255  # of what tells a further connection of a migration


def identify(view: memoryview, file: str, start: int = 0) -> tuple[str, int]:
    """Returns what `view[start:]` holds ("stream", a further connection's kind or a container's name) and its offset.

    A stream may stand behind a lead-in of zero or foreign bytes; containers must come first. A few bytes
    that may be the start of a cut magic count as a stream.

    Raises
    ------
    StreamError : empty, or nothing this package reads; the message says what it looks like.
    """
    if start == len(view):
        what = "nothing follows libvirt's header" if start else "empty file"
        raise StreamError(what, offset=start, expected="a migration stream", file=file)
    if found := glance(view, start):
        return found
    head = bytes(view[start : start + (64 << 10)])
    if STREAM.startswith(head):
        return "stream", start
    raise StreamError(
        f"not a migration stream but {_looks_like(head)}",
        offset=start,
        expected="QEVM, or a container of it",
        file=file,
    )


def glance(view: memoryview, start: int = 0) -> tuple[str, int] | None:
    """Returns what `identify` does, but None for what is not known, or not yet."""
    first = bytes(view[start : start + _LONGEST])
    if first.startswith(STREAM):
        return "stream", start
    if first.startswith(CHANNEL):
        return MULTIFD, start
    for magic, kind in CONTAINERS.items():
        if first.startswith(magic):
            return kind, start
    if not start and (further := connections.kind_of(first)):
        return further, start
    if framed := _skippable(view, start):
        return framed, start
    if _other(bytes(view[start : start + 512])) is None:
        found = re.search(_LATER, view[start : start + LEAD_LIMIT + _EVIDENCE])
        return ("stream", start + found.start()) if found else None
    return None


def _skippable(view: memoryview, start: int) -> str | None:
    """Returns the format of the first frame behind skippable ones."""
    for _ in range(64):  # pzstd writes one in front of each frame
        if not (found := re.match(_SKIPPABLE, view[start : start + 8])):
            return None
        start += found.end() + int.from_bytes(found[1], "little")
        for magic in (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"):
            if view[start : start + 4] == magic:
                return CONTAINERS[magic]
    return None


def _other(head: bytes) -> str | None:
    """Returns a format that may well contain a stream somewhere, and yet is not one behind a lead-in."""
    if head[257:262] == b"ustar":
        return "a tar archive"
    return next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None)


def _looks_like(head: bytes) -> str:
    if other := _other(head):
        return other
    if not head.strip(b"\x00"):
        return "zero bytes"
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON, perhaps a -dump-vmstate file"
    if not re.search(rb"[^\t-\r\x20-\x7e\x80-\xff]", head):
        return "text"
    return "unknown bytes " + head[:8].hex(" ")
