from __future__ import annotations

import itertools
import random
import struct
from pathlib import Path

import pytest

from vmstate_tools.errors import StreamError
from vmstate_tools.format.sections import handwritten, vfio
from vmstate_tools.format.sections.handwritten import Leaf, build, known, parse
from vmstate_tools.format.sections.leaves import Payload
from vmstate_tools.source import zstd

DATA = Path(__file__).parents[1] / "data" / "handwritten"


def written_by_qemu(name: str) -> bytes:
    """A section payload that QEMU 7.2.22 wrote: see tests/data/handwritten/README.md."""
    return zstd.decompress((DATA / f"{name}.zst").read_bytes())


def built_by_statement(idstr, payload, *, part, version_id) -> bytes:
    """What a section's format builds of what it parsed: not of leaves, but by field."""
    format_ = handwritten.format_of(idstr, part)
    value = format_.parse_stream(Payload(memoryview(payload + b"\x7e"), 0, part, {"open": 9}), version_id=version_id)
    return format_.build(value, version_id=version_id)


def decode(idstr: str, payload: bytes, *, part="full", version_id=1, state=None, before=b"in front"):
    """Leaves of a payload inside a greater stream; they must tile it and build it again."""
    view = memoryview(before + payload + b"\x7e\0\0\0\1")
    end, leaves = parse(
        idstr, view, len(before), part=part, version_id=version_id, state={} if state is None else state
    )
    assert end == len(before) + len(payload)
    ends = itertools.accumulate((leaf.size for leaf in leaves), initial=len(before))
    assert [leaf.offset for leaf in leaves] == list(ends)[:-1]
    assert leaves[-1].offset + leaves[-1].size == end
    assert build(leaves) == payload
    assert built_by_statement(idstr, payload, part=part, version_id=version_id) == payload
    return {leaf.path: leaf.value for leaf in leaves}


def test_htab_of_a_guest_that_entered_pages() -> None:
    # The guest entered one HPTE in each of groups 0 to 63 (8 slots each) and 8 in group 512.
    values = decode("spapr/htab", written_by_qemu("htab.part"), part="part", state={"slots": 1 << 17})
    hpte = struct.pack(">QQ", 1, 0x3190)
    assert [values[f"chunk[{n}].index"] for n in range(65)] == [8 * n for n in range(64)] + [4096]
    assert [values[f"chunk[{n}].hptes"] for n in range(65)] == [hpte] * 64 + [8 * hpte]
    assert values["chunk[64].n_valid"] == 8
    assert values["end.index"] == 0


def test_htab_shift_bounds_the_chunks_that_follow() -> None:
    state: dict = {}
    assert decode("spapr/htab", struct.pack(">I", 18), part="start", state=state) == {"htab_shift": 18}
    last = struct.pack(">IIHH", 0, (1 << 14) - 1, 0, 1) + bytes(8)
    assert decode("spapr/htab", last, part="end", state=state)["chunk[0].n_invalid"] == 1
    with pytest.raises(StreamError, match=r"at 16383.*table of 16384") as caught:
        decode("spapr/htab", last.replace(b"\0\0\0\1", b"\0\0\0\2"), part="end", state=state)
    assert caught.value.offset == len("in front") + 4


def test_chunks_past_counting_are_one_leaf() -> None:
    chunks = [struct.pack(">IHH", n, 1, 0) + n.to_bytes(16, "big") for n in range(65538)]
    values = decode("spapr/htab", bytes(4) + b"".join(chunks) + bytes(8), part="part")
    assert values["chunk[65535].hptes"] == (65535).to_bytes(16, "big")
    assert values["chunk[65536:]"] == chunks[65536] + chunks[65537]
    assert list(values)[-1] == "end.n_invalid"
    values = decode("spapr/htab", bytes(4) + b"".join(chunks[:65536]) + bytes(8), part="part")
    assert "chunk[65536:]" not in values


def test_a_record_without_end_does_not_fill_memory() -> None:
    with pytest.raises(StreamError, match="more than 131072 values"):
        decode("block", struct.pack(">Q", 4) * (1 << 19), part="part")


@pytest.mark.parametrize("part", ["start", "part", "end"])
def test_htab_of_a_radix_guest(part) -> None:
    assert list(decode("spapr/htab", b"\xff\xff\xff\xff", part=part).values()) == [-1]


def test_dirty_bitmaps() -> None:
    # 64 MiB disks; bitmaps of 4 and 64 KiB, written at 1 MiB (64 KiB) and 33 MiB (a sector), and a clean one.
    state: dict = {}
    start = decode("dirty-bitmap", written_by_qemu("dirty-bitmap.start"), part="start", state=state)
    assert [start[f"chunk[{n}].bitmap"] for n in range(3)] == ["wöchentlich", "daily", "off"]
    assert [start[f"chunk[{n}].granularity"] for n in range(3)] == [4096, 65536, 65536]
    assert [start[f"chunk[{n}].start_flags"] for n in range(3)] == [3, 3, 2]
    assert start["chunk[0].node"] == "disk0"
    assert "chunk[1].node" not in start
    end = decode("dirty-bitmap", written_by_qemu("dirty-bitmap.end"), part="end", state=state)
    fine = int.from_bytes(end["chunk[0].bits"] + end["chunk[1].bits"], "little")
    assert fine == 0xFFFF << 256 | 1 << 33 * 256
    assert int.from_bytes(end["chunk[2].bits"], "little") == 1 << 16 | 1 << 33 * 16
    assert (end["chunk[3].sector"], end["chunk[3].nr_sectors"]) == (0, 64 << 11)
    assert "chunk[3].bits" not in end


def test_a_dirty_bitmap_cannot_complete_that_never_started() -> None:
    with pytest.raises(StreamError, match="flags 0x20"):
        decode("dirty-bitmap", b"\x20\x01")


def test_block_migration_with_zero_blocks() -> None:
    # A disk of 3.5 MiB, all zero but for 64 KiB of 0xa5 at 1 MiB.
    values = decode("block", written_by_qemu("block.part"), part="part")
    sent = [values[f"chunk[{n}].addr"] for n in range(5)]
    assert sent == [0 << 20 | 9, 1 << 20 | 1, 2 << 20 | 9, 3 << 20 | 9, 2]
    assert values["chunk[1].device"] == "d0"
    assert values["chunk[1].data"] == 65536 * b"\xa5" + bytes((1 << 20) - 65536)


def test_slirp() -> None:
    values = decode("slirp", written_by_qemu("slirp.full"), version_id=4)
    assert len(values) == 2 + 2 * 16
    assert values["bootp_clients[15].macaddr"] == bytes(6)


def test_slirp_with_a_connection() -> None:
    values = decode("slirp", written_by_qemu("slirp-socket.full"), version_id=4)
    get = {path.removeprefix("socket[0]."): value for path, value in values.items()}.get
    # Addresses and ports stand as they do in memory: network byte order, read as the host's.
    assert [get(f"{host}.sin_addr").to_bytes(4, "little") for host in ("fhost", "lhost")] == [b"\n\0\2d", b"\n\0\2\x0f"]
    assert [get(f"{host}.sin_port").to_bytes(2, "little") for host in ("fhost", "lhost")] == [
        (1234).to_bytes(2, "big"),
        (4321).to_bytes(2, "big"),
    ]
    assert (get("so_tcpcb.irs"), get("so_tcpcb.rcv_nxt")) == (1000, 1000 + 1 + 20)
    assert get("so_tcpcb.t_state") == 4  # ESTABLISHED
    assert get("so_tcpcb.snd_nxt") - get("so_tcpcb.snd_una") == get("so_snd.sb_cc") == 18
    assert get("so_snd.sb_data")[:18] == b"bytes to the guest"
    assert values["socket[1].present"] == 0 and len(values) > 40


@pytest.mark.parametrize(("version_id", "hosts"), [(3, 12), (4, 16)])
def test_slirp_socket(version_id, hosts) -> None:
    host = struct.pack(">HIH", 2, 0x0A000264, 1234)
    addresses = 2 * host if version_id == 4 else struct.pack(">IIHH", 0x0A000264, 0x0A00020F, 1234, 4321)
    assert len(addresses) == hosts
    queue = struct.pack(">IIII", 2, 3, 0, 2) + b"abc"
    tcp = struct.pack(">8hHBH15I2hI2hHI2Bh4B3I", *range(1, 44))
    socket = struct.pack(">I", 7) + addresses + struct.pack(">BBBi", 1, 2, 3, -4) + 2 * queue + tcp
    values = decode("slirp", b"\x2a" + socket + b"\0" + bytes(2 + 16 * 8), version_id=version_id)
    assert values["socket[0].so_state"] == -4
    assert values["socket[0].so_snd.sb_data"] == b"abc"
    assert values["socket[0].so_tcpcb.t_timer[3]"] == 5
    assert values["socket[0].so_tcpcb.last_ack_sent"] == 43


def test_slirp_of_a_version_that_is_not_known_is_refused() -> None:
    with pytest.raises(StreamError, match="state version 5"):
        decode("slirp", bytes(131), version_id=5)


def test_s390_storage_keys_by_range() -> None:
    keys = struct.pack(">QQ", 2, 3) + b"\x10\x20\x30" + struct.pack(">QQ", 0x40002, 1) + b"\x06"
    values = decode("s390-skeys", keys + struct.pack(">Q", 1))
    assert values == {
        "block[0].addr": 2,
        "block[0].pages": 3,
        "block[0].keys": b"\x10\x20\x30",
        "block[1].addr": 0x40002,
        "block[1].pages": 1,
        "block[1].keys": b"\x06",
        "block[2].addr": 1,
    }


def test_s390_storage_attributes() -> None:
    payload = struct.pack(">QQ", 0x7002, 2) + b"\1\3" + struct.pack(">QQ", 8, 1)
    values = decode("s390-storage_attributes", payload, part="end", version_id=0)
    assert values["block[0].values"] == b"\1\3"
    assert values["block[1].addr"] == 8


def test_a_clock_that_is_missing() -> None:
    assert decode("todclock", b"\0") == {"present": 0}


VFIO = 0xFFFFFFFFEF100000


@pytest.mark.parametrize(
    ("part", "payload", "paths"),
    [
        ("start", struct.pack(">QQ", VFIO | 3, VFIO | 1), ["record[0].tag", "record[1].tag"]),
        ("part", struct.pack(">QQ3sQ", VFIO | 4, 3, b"abc", VFIO | 5), None),
        ("end", struct.pack(">QQQ", VFIO | 4, 0, VFIO | 1), None),
        ("full", struct.pack(">Q300sQ", VFIO | 2, b"PCI", VFIO | 1), None),
        ("full", struct.pack(">Q", VFIO | 6), ["record[0].tag"]),
    ],
)
def test_vfio(part, payload, paths) -> None:
    values = decode("pci@0/0000:00:02.0/vfio", payload, part=part)
    assert paths is None or list(values) == paths
    assert values.get("record[0].config", b"PCI".ljust(300, b"\0")) == b"PCI".ljust(300, b"\0")
    assert values.get("record[0].data", b"abc") == b"abc"


def test_the_mark_is_found_over_a_window_border() -> None:
    view = memoryview(bytes((1 << 20) - 3) + b"12345678")
    assert vfio.find(view, b"12345678", 0) == (1 << 20) - 3
    assert vfio.find(view, b"x", 0) == -1


@pytest.mark.parametrize(
    ("idstr", "payload", "part"),
    [
        ("spapr/htab", struct.pack(">IIHH", 0, 0, 65535, 0), "part"),
        ("spapr/htab", struct.pack(">I", 47), "start"),
        ("spapr/htab", struct.pack(">I", 3), "part"),
        ("spapr/htab", struct.pack(">IIHH", 0, 5, 0, 0), "part"),
        ("s390-skeys", struct.pack(">QQ", 2, 1 << 63), "full"),
        ("s390-storage_attributes", struct.pack(">QQ", 2, (1 << 64) - 1), "part"),
        ("s390-storage_attributes", struct.pack(">Q", 16), "part"),
        ("block", struct.pack(">QB", 1, 255), "part"),
        ("block", bytes(8), "part"),
        ("dirty-bitmap", struct.pack(">BQIQ", 0x40, 0, 1, 1 << 62), "part"),
        ("dirty-bitmap", bytes(64), "part"),
        ("x/vfio", struct.pack(">QQ", VFIO | 4, 1 << 40), "part"),
        ("x/vfio", struct.pack(">Q", VFIO | 2), "full"),
        ("x/vfio", bytes(8), "full"),
        ("todclock", b"\1\2", "full"),
        ("no such device", b"", "full"),
    ],
)
def test_what_is_not_of_the_format_is_refused(idstr, payload, part) -> None:
    with pytest.raises(StreamError) as caught:
        parse(idstr, memoryview(payload), 0, part=part, version_id=1, state={})
    assert caught.value.section == idstr
    assert caught.value.offset is not None


@pytest.mark.parametrize("name", ["htab.part", "dirty-bitmap.start", "dirty-bitmap.end", "slirp.full"])
def test_cut_anywhere_it_is_an_error(name) -> None:
    payload = memoryview(written_by_qemu(name))
    idstr, part = name.replace("htab", "spapr/htab").split(".")
    for cut in range(len(payload)):
        with pytest.raises(StreamError):
            parse(idstr, payload[:cut], 0, part=part, version_id=4, state={"open": 3})


def test_noise_is_refused_or_builds_again() -> None:
    noise = random.Random(2016)
    accepted = 0
    for _ in range(20_000):
        idstr = noise.choice([*handwritten.FORMATS, "x/vfio"])
        part = noise.choice(["start", "part", "end", "full"])
        payload = bytearray(noise.choice([0, 1, 2, 4, 8, 0x10, 0x40, 255]) for _ in range(200))
        if noise.random() < 0.9:
            payload[noise.randrange(8) :] = bytes(200)
        view, version_id = memoryview(payload), noise.randrange(5)
        try:
            end, leaves = parse(idstr, view, 0, part=part, version_id=version_id, state={})
        except StreamError:
            continue
        accepted += 1
        assert build(leaves) == payload[:end]
    assert accepted > 1000


def test_build_refuses_what_does_not_fit() -> None:
    misfits = [("uint8", 256), ("uint16", b"\0\0"), ("buffer", 1), ("string", 300 * "a"), ("float", 1)]
    for type_, value in misfits:
        with pytest.raises(StreamError, match="does not fit"):
            build([Leaf("x", type_, 0, 1, value)])


def test_text_that_is_not_utf8_stays_bytes() -> None:
    payload = b"\x1c\2\xff\xfe\1b" + struct.pack(">IB", 65536, 0) + b"\1"
    values = decode("dirty-bitmap", payload, part="start")
    assert values["chunk[0].node"] == b"\xff\xfe"
    assert values["chunk[0].bitmap"] == "b"


def test_known() -> None:
    assert known("spapr/htab")
    assert known("0000:00:02.0/vfio")
    assert not known("ram")
    assert not known("cpu")


def test_hash_table_and_s390_sections_of_captures(captures) -> None:
    """Each stands between its section header and the footer that names the same section."""
    seen = {"spapr/htab": 0, "s390-skeys": 0, "s390-storage_attributes": 0, "todclock": 0}
    rows = [row for row in captures.rows if "s390" in row["arch"] or row["machine"] == "pseries-2.7"]
    for row in rows:
        with zstd.ZstdFile(captures.path(row["file"]), "rb") as file:
            stream = file.read()
        for idstr in seen:
            name = bytes([len(idstr)]) + idstr.encode()
            at = stream.find(name)
            if at < 5 or stream[at - 5] not in (1, 4):
                continue
            section_id = stream[at - 4 : at]
            payload = at + len(name) + 8
            (version_id,) = struct.unpack_from(">I", stream, payload - 4)
            part = {1: "start", 4: "full"}[stream[at - 5]]
            end, leaves = parse(idstr, memoryview(stream), payload, part=part, version_id=version_id, state={})
            assert stream[end : end + 5] == b"\x7e" + section_id, row["file"]
            assert build(leaves) == stream[payload:end]
            seen[idstr] += 1
    assert min(seen.values()) > {"here": 1, "collection": 10}[captures.name]
