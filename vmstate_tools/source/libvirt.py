"""libvirt's save images (`virsh save`, managed save): a header and XML in front of the stream.

`virsh dump` writes the stream alone, perhaps compressed. The facts are of libvirt's
`src/qemu/qemu_saveimage.h` (`virQEMUSaveHeader`) and `qemu_saveimage_format.h` (`virQEMUSaveFormat`).
"""

from __future__ import annotations

from typing import Any

import construct as c

from vmstate_tools.errors import StreamError
from vmstate_tools.source.parsing import Format

FORMATS = ("raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse")
"""`virQEMUSaveFormat`, by number. A sparse image holds a mapped-ram stream, not compressed."""

UNFINISHED = b"LibvirtQemudPart"


def _header(number: c.Construct) -> Format:
    """Returns the format of `virQEMUSaveHeader`, in the byte order of the host that wrote it."""
    return Format(
        "libvirt header",
        "magic" / c.Bytes(16),
        "version" / number,
        "data_len" / number,
        "was_running" / number,
        "format" / number,
        "cookie_offset" / number,
        "unused" / number[14],
    )


HEADERS = {"little": _header(c.Int32ul), "big": _header(c.Int32ub)}


def read_header(view: memoryview, start: int, file: str) -> tuple[int, dict[str, Any]]:
    """Returns where the stream (perhaps compressed) begins behind the header at `start`, and what the header says.

    The dict holds `version`, `was_running`, `format`, `byteorder` (of the host that wrote it), `finished`,
    `xml` and `cookie` (None where there is none).

    Raises
    ------
    StreamError : the header is cut short, of an unknown version, or at odds with the file's length.
    """
    try:
        headers = {order: header.read(view, start, "libvirt's header") for order, header in HEADERS.items()}
    except StreamError as error:
        error.message, error.file = "libvirt's header is cut short", file
        raise
    # The version is a small number in the right byte order.
    order = "little" if headers["little"][0].version <= 0xFFFF else "big"
    header, begin = headers[order]
    version, length, kind, cookie = header.version, header.data_len, header.format, header.cookie_offset
    if not 1 <= version <= 2:
        raise StreamError(f"libvirt image version {version}", offset=start + 16, expected="1 or 2", file=file)
    if not 0 < length <= len(view) - begin:
        raise StreamError(f"libvirt's header claims {length} bytes of XML", offset=start + 20, file=file)
    if cookie > length:
        raise StreamError(f"libvirt's cookie at {cookie} of {length} bytes", offset=start + 32, file=file)
    stop = begin + length
    xml = view[begin : begin + cookie if cookie else stop]
    meta = {
        "version": version,
        "was_running": bool(header.was_running),
        "format": FORMATS[kind] if kind < len(FORMATS) else str(kind),
        "byteorder": order,
        "finished": header.magic != UNFINISHED,
        "xml": _text(xml),
        "cookie": _text(view[begin + cookie : stop]) if cookie else None,
    }
    return stop, meta


def _text(view: memoryview) -> str:
    return bytes(view).split(b"\x00", 1)[0].decode("utf-8", "replace")
