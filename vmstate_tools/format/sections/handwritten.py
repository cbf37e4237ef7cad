"""Sections whose format is code in QEMU, not a VMStateDescription: spapr/htab, s390 keys, block, slirp …

A vmdesc names such a section with its size alone, or not at all when only live handlers write it. Each format
here is a function over a `Reader`, which turns every value it reads into a `Leaf`; the leaves of one section
record tile its payload, so `build` needs no second statement of the format.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Leaf:
    """One decoded value of a hand-written section.

    `path` (str) names it as QEMU's code does (`chunk[0].n_valid`); `type` (str) is an integer type of the wire
    (`uint8` … `int64`, big-endian), `buffer` (raw bytes) or `string` (a length byte and text; bytes where that is not
    UTF-8); `offset` is absolute in the view that was parsed, `size` in bytes; `value` an int, bytes or str.
    """

    path: str
    type: str
    offset: int
    size: int
    value: int | bytes | str


_INTEGERS = {
    f"{sign}int{8 * size}": struct.Struct(f">{code.upper() if sign else code}")
    for size, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))
    for sign in ("u", "")
}


# A leaf costs some 200 bytes of memory: a record of a real stream has a few thousand at most, but for the hash
# table's, which are cut short.
_MAX_LEAVES = 1 << 18
_MAX_CHUNKS = 1 << 16


class Reader:
    """Reads values at `offset` and keeps each as a leaf; nothing is read past the view's end."""

    def __init__(self, view: memoryview, offset: int, part: str, version_id: int, state: dict) -> None:
        self.view = view
        self.offset = offset
        self.part = part
        self.version_id = version_id
        self.state = state
        self.leaves: list[Leaf] = []

    def number(self, path: str, type_: str) -> int:
        """The integer of wire type `type_` that stands here."""
        format_ = _INTEGERS[type_]
        self._need(path, format_.size)
        (value,) = format_.unpack_from(self.view, self.offset)
        self._keep(path, type_, format_.size, value)
        return int(value)

    def numbers(self, prefix: str, fields: str) -> None:
        """Several values: `fields` is `name:type name:type …`, with a number of raw bytes for a type."""
        for field in fields.split():
            name, type_ = field.split(":")
            if type_.isdigit():
                self.buffer(prefix + name, int(type_))
            else:
                self.number(prefix + name, type_)

    def buffer(self, path: str, size: int) -> None:
        """`size` raw bytes; no leaf for none, as a vmdesc has no field for none."""
        self._need(path, size)
        if size:
            self._keep(path, "buffer", size, bytes(self.view[self.offset : self.offset + size]))

    def string(self, path: str) -> None:
        """A length byte and so many bytes of text (`qemu_put_counted_string`)."""
        self._need(path, 1)
        size = 1 + self.view[self.offset]
        self._need(path, size)
        raw = bytes(self.view[self.offset + 1 : self.offset + size])
        try:
            value: str | bytes = raw.decode()
        except UnicodeDecodeError:
            value = raw
        self._keep(path, "string", size, value)

    def wrong(self, message: str, expected: str) -> StreamError:
        """An error about the value that was read last."""
        return StreamError(message, offset=self.leaves[-1].offset, expected=expected)

    def _need(self, path: str, size: int) -> None:
        if size > len(self.view) - self.offset:
            raise StreamError(
                f"{len(self.view) - self.offset} bytes left for {path}",
                offset=self.offset,
                expected=f"{size} bytes",
            )

    def _keep(self, path: str, type_: str, size: int, value: int | bytes | str) -> None:
        if len(self.leaves) == _MAX_LEAVES:
            raise StreamError(f"more than {_MAX_LEAVES} values in one record", offset=self.offset, expected="its end")
        self.leaves.append(Leaf(path, type_, self.offset, size, value))
        self.offset += size


def known(idstr: str) -> bool:
    """Whether `parse` has the format of the section `idstr` (with or without a bus path in front)."""
    return _format(idstr) is not None


def parse(
    idstr: str, view: memoryview, offset: int, *, part: str, version_id: int, state: dict
) -> tuple[int, list[Leaf]]:
    """Decode the payload of one section record.

    Parameters
    ----------
    view : the whole stream, as bytes.
    offset : where the payload begins, just after the section's header.
    part : `start`, `part`, `end` (of an iterable section) or `full`.
    version_id : as the section's header gave it.
    state : a dict the caller keeps for this section from its first record to its last, empty at first.

    Returns
    -------
    The offset just after the payload, and its leaves, which tile it in order.

    Raises
    ------
    StreamError : the bytes are not of this format, or end inside it.
    """
    format_ = _format(idstr)
    if format_ is None:
        raise StreamError("no hand-written format is known by this name", offset=offset, section=idstr)
    reader = Reader(view, offset, part, version_id, state)
    try:
        format_(reader)
    except StreamError as error:
        error.section = idstr
        raise
    return reader.offset, reader.leaves


def build(leaves: list[Leaf]) -> bytes:
    """The bytes `leaves` stand for, from their types and values alone.

    Raises
    ------
    StreamError : a value does not fit its type.
    """
    return b"".join(map(_encode, leaves))


def _encode(leaf: Leaf) -> bytes:
    value = leaf.value
    if leaf.type in _INTEGERS and isinstance(value, int):
        try:
            return _INTEGERS[leaf.type].pack(value)
        except struct.error as error:
            raise _misfit(leaf) from error
    if leaf.type == "buffer" and isinstance(value, bytes):
        return value
    if leaf.type == "string" and not isinstance(value, int):
        raw = value.encode() if isinstance(value, str) else value
        if len(raw) < 256:
            return bytes([len(raw)]) + raw
    raise _misfit(leaf)


def _misfit(leaf: Leaf) -> StreamError:
    return StreamError(f"{leaf.path} = {leaf.value!r:.40} does not fit {leaf.type}", offset=leaf.offset)


def _htab(reader: Reader) -> None:
    """spapr/htab v1 (hw/ppc/spapr.c: htab_save_setup, htab_save_iterate, htab_load; since 1.6).

    Without a hash table (radix guests) every record is a header of -1 alone; a start record never has more.
    Chunks of one record beyond the first 65,536 are kept as one leaf.
    """
    header = reader.number("section_header" if reader.part != "start" else "htab_shift", "int32")
    if reader.part == "start":
        if header != -1 and not 0 <= header <= 46:
            # 2^46 bytes is the greatest table the architecture has (HTABSIZE); QEMU's own limit is lower.
            raise reader.wrong(f"htab_shift {header}", "-1 or the binary logarithm of the table's size")
        reader.state["slots"] = 1 << header >> 4 if header > 0 else None
        return
    if header == -1:
        return
    if header != 0:
        raise reader.wrong(f"header {header}", "0, or -1 for no hash table")
    slots = reader.state.get("slots")
    view, offset, leaves = reader.view, reader.offset, reader.leaves
    head = struct.Struct(">IHH")
    number = rest = 0
    # The one loop here that a busy guest runs a hundred thousand times: no reader call per value.
    while True:
        if len(view) - offset < 8:
            raise StreamError("the stream ends in the table", offset=offset, expected="a chunk's header")
        index, n_valid, n_invalid = head.unpack_from(view, offset)
        end = offset + 8 + 16 * n_valid
        if end > len(view):
            raise StreamError(f"{n_valid} HPTEs do not fit what is left", offset=offset, expected="HPTEs")
        empty = not n_valid and not n_invalid
        if (empty and index) or (slots is not None and index + n_valid + n_invalid > slots):
            raise StreamError(
                f"chunk of {n_valid} + {n_invalid} HPTEs at {index}",
                offset=offset,
                expected=f"HPTEs of a table of {slots} or the end mark",
            )
        if number == _MAX_CHUNKS:
            rest = offset
        if empty and number > _MAX_CHUNKS:
            chunks = bytes(view[rest:offset])
            leaves.append(Leaf(f"chunk[{_MAX_CHUNKS}:]", "buffer", rest, len(chunks), chunks))
        if empty or number < _MAX_CHUNKS:
            chunk = "end" if empty else f"chunk[{number}]"
            leaves += (
                Leaf(f"{chunk}.index", "uint32", offset, 4, index),
                Leaf(f"{chunk}.n_valid", "uint16", offset + 4, 2, n_valid),
                Leaf(f"{chunk}.n_invalid", "uint16", offset + 6, 2, n_invalid),
            )
            if n_valid:
                hptes = bytes(view[offset + 8 : end])
                leaves.append(Leaf(f"{chunk}.hptes", "buffer", offset + 8, 16 * n_valid, hptes))
        offset = reader.offset = end
        if empty:
            return
        number += 1


_S390_PAGE_MASK = (1 << 12) - 1


def _s390_skeys(reader: Reader) -> None:
    """s390-skeys v1 (hw/s390x/s390-skeys.c: s390_storage_keys_save; since 2.5), one key byte per page."""
    number = 0
    while True:
        flags = reader.number(f"block[{number}].addr", "uint64") & _S390_PAGE_MASK
        if flags in (1, 4):  # EOS, ERROR
            return
        if flags != 2:
            raise reader.wrong(f"storage key flag {flags:#x}", "1 (end), 2 (keys) or 4 (error)")
        reader.buffer(f"block[{number}].keys", reader.number(f"block[{number}].pages", "uint64"))
        number += 1


def _s390_stattrib(reader: Reader) -> None:
    """s390-storage_attributes v0 (hw/s390x/s390-stattrib.c: cmma_save, cmma_load; since 2.10)."""
    number = 0
    while True:
        flags = reader.number(f"block[{number}].addr", "uint64") & _S390_PAGE_MASK
        if flags in (1, 4):  # EOS, ERROR
            return
        if flags == 2:  # MORE
            reader.buffer(f"block[{number}].values", reader.number(f"block[{number}].count", "uint64"))
        elif flags != 8:  # DONE
            raise reader.wrong(f"attribute flag {flags:#x}", "1 (end), 2 (more), 4 (error) or 8 (done)")
        number += 1


def _todclock(reader: Reader) -> None:
    """todclock v1 (hw/s390x/tod.c: s390_tod_save; since 2.3): the guest's clock, if it was to be had."""
    if reader.number("present", "uint8"):
        reader.numbers("", "high:uint8 low:uint64")


def _block(reader: Reader) -> None:
    """block v1 (migration/block.c: blk_send, block_load; removed in 9.1): disks, by the MiB.

    `addr` is the sector number (512 bytes) shifted left by 9, and flags: 1 a block of a device, 2 end of this
    record, 4 progress (the number is a percentage), 8 the block is zero (since 1.5) and not sent.
    """
    number = 0
    while True:
        flags = reader.number(f"chunk[{number}].addr", "uint64") & 0x1FF
        if flags & 1:
            reader.string(f"chunk[{number}].device")
            if not flags & 8:
                reader.buffer(f"chunk[{number}].data", 1 << 20)
        elif not flags & 6:
            raise reader.wrong(f"block flags {flags:#x}", "a block, progress or the end")
        if flags & 2:
            return
        number += 1


def _dirty_bitmap(reader: Reader) -> None:
    """dirty-bitmap v1 (migration/block-dirty-bitmap.c: send_bitmap_header, dirty_bitmap_load; since 2.12).

    Flags: 1 end of this record, 2 zeroes, 4 bitmap name follows, 8 node name follows, 0x10 start,
    0x20 complete, 0x40 bits. `start_flags`: 1 enabled, 2 persistent.
    """
    number = 0
    while True:
        chunk = f"chunk[{number}]."
        flags = reader.number(chunk + "flags", "uint8")
        if flags & 0x80:
            # Two or four bytes of flags: reserved, never written so far. QEMU's reader keeps the last byte.
            flags = reader.number(chunk + "flags2", "uint8")
            if flags & 0x80:
                flags = reader.number(chunk + "flags4", "uint16") & 0xFF
        if not flags & 0x71 or (flags & 0x20 and not flags & 0x10 and not reader.state.get("open")):
            raise reader.wrong(f"dirty bitmap flags {flags:#x}", "start, bits, complete of a bitmap, or end")
        if flags & 8:
            reader.string(chunk + "node")
        if flags & 4:
            reader.string(chunk + "bitmap")
        if flags & 0x10:
            reader.state["open"] = reader.state.get("open", 0) + 1
            # The comment at the head of QEMU's file says be64 granularity; its code has always written be32.
            reader.numbers(chunk, "granularity:uint32 start_flags:uint8")
        elif flags & 0x20:
            reader.state["open"] -= 1
        elif flags & 0x40:
            reader.numbers(chunk, "sector:uint64 nr_sectors:uint32")
            if not flags & 2:
                reader.buffer(chunk + "bits", reader.number(chunk + "size", "uint64"))
        if flags & 1:
            return
        number += 1


_VFIO = 0xFFFFFFFFEF100000
_VFIO_END = _VFIO | 1


def _vfio(reader: Reader) -> None:
    """vfio v1 (hw/vfio/migration.c: vfio_save_iterate, vfio_load_state; since 5.2), per device.

    Device data is the device's own. The saved PCI configuration (hw/vfio/pci.c: vmstate_vfio_pci_config)
    has no length on the wire: it ends where the end mark stands.
    """
    number = 0
    while True:
        tag = reader.number(f"record[{number}].tag", "uint64")
        # INIT_DATA_SENT (8.1) and CONFIG_LOAD_READY (10.1) end a record without the end mark.
        if tag in (_VFIO_END, _VFIO | 5, _VFIO | 6):
            return
        if tag == _VFIO | 2:
            mark = _find(reader.view, _VFIO_END.to_bytes(8, "big"), reader.offset)
            if mark < 0:
                raise reader.wrong("a device configuration without end", f"{_VFIO_END:#x}")
            reader.buffer(f"record[{number}].config", mark - reader.offset)
        elif tag == _VFIO | 4:
            reader.buffer(f"record[{number}].data", reader.number(f"record[{number}].data_size", "uint64"))
        elif tag != _VFIO | 3:
            raise reader.wrong(f"vfio tag {tag:#x}", f"{_VFIO_END:#x} to {_VFIO | 6:#x}")
        number += 1


def _find(view: memoryview, mark: bytes, start: int) -> int:
    """Where `mark` first stands from `start` on, or -1: a memoryview has no find, and may be huge."""
    step = 1 << 20
    for begin in range(start, len(view), step):
        found = bytes(view[begin : begin + step + len(mark) - 1]).find(mark)
        if found >= 0:
            return begin + found
    return -1


_SLIRP_TCP = (
    "t_state:int16 t_timer[0]:int16 t_timer[1]:int16 t_timer[2]:int16 t_timer[3]:int16 "
    "t_rxtshift:int16 t_rxtcur:int16 t_dupacks:int16 t_maxseg:uint16 t_force:uint8 t_flags:uint16 "
    "snd_una:uint32 snd_nxt:uint32 snd_up:uint32 snd_wl1:uint32 snd_wl2:uint32 iss:uint32 "
    "snd_wnd:uint32 rcv_wnd:uint32 rcv_nxt:uint32 rcv_up:uint32 irs:uint32 rcv_adv:uint32 "
    "snd_max:uint32 snd_cwnd:uint32 snd_ssthresh:uint32 t_idle:int16 t_rtt:int16 t_rtseq:uint32 "
    "t_srtt:int16 t_rttvar:int16 t_rttmin:uint16 max_sndwnd:uint32 t_oobflags:uint8 t_iobc:uint8 "
    "t_softerror:int16 snd_scale:uint8 rcv_scale:uint8 request_r_scale:uint8 requested_s_scale:uint8 "
    "ts_recent:uint32 ts_recent_age:uint32 last_ack_sent:uint32"
)


def _slirp(reader: Reader) -> None:
    """slirp v1 to v4 (QEMU's slirp/slirp.c up to 3.1: slirp_state_save; libslirp's state.c from 4.0 on).

    v2 added ip_id, v3 the DHCP clients, v4 (2.6) the address family of a socket. Only sockets of `guestfwd`
    rules are sent, one after another, each behind a byte that is not 0.
    """
    if not 1 <= reader.version_id <= 4:
        raise StreamError(f"slirp state version {reader.version_id}", offset=reader.offset, expected="1 to 4")
    number = 0
    while reader.number(f"socket[{number}].present", "uint8"):
        _slirp_socket(reader, f"socket[{number}].", reader.version_id)
        number += 1
    if reader.version_id >= 2:
        reader.number("ip_id", "uint16")
    if reader.version_id >= 3:
        for client in range(16):
            reader.number(f"bootp_clients[{client}].allocated", "uint16")
            reader.buffer(f"bootp_clients[{client}].macaddr", 6)


def _slirp_socket(reader: Reader, socket: str, version_id: int) -> None:
    reader.number(socket + "so_urgc", "uint32")
    if version_id < 4:
        reader.numbers(socket, "so_faddr:uint32 so_laddr:uint32 so_fport:uint16 so_lport:uint16")
    else:
        for host in ("fhost.", "lhost."):
            # Of another family than IPv4 (2) no address is sent.
            if reader.number(socket + host + "ss_family", "uint16") == 2:
                reader.numbers(socket + host, "sin_addr:uint32 sin_port:uint16")
    reader.numbers(socket, "so_iptos:uint8 so_emu:uint8 so_type:uint8 so_state:int32")
    for queue in ("so_rcv.", "so_snd."):
        reader.number(socket + queue + "sb_cc", "uint32")
        length = reader.number(socket + queue + "sb_datalen", "uint32")
        reader.numbers(socket + queue, "woff:uint32 roff:uint32")
        reader.buffer(socket + queue + "sb_data", length)
    reader.numbers(socket + "so_tcpcb.", _SLIRP_TCP)


_FORMATS: dict[str, Callable[[Reader], None]] = {
    "spapr/htab": _htab,
    "s390-skeys": _s390_skeys,
    "s390-storage_attributes": _s390_stattrib,
    "todclock": _todclock,
    "block": _block,
    "dirty-bitmap": _dirty_bitmap,
    "slirp": _slirp,
}


def _format(idstr: str) -> Callable[[Reader], None] | None:
    # vfio and virtio sections stand behind the device's bus path: `0000:00:02.0/vfio`.
    if idstr.rpartition("/")[2] == "vfio":
        return _vfio
    if "virtio" not in idstr:
        return _FORMATS.get(idstr)
    from vmstate_tools.format.sections import virtio

    return virtio.format_of(idstr)
