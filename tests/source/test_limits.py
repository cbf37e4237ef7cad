"""Time and memory follow what is read: each input is opened in a process of its own, whose use is measured."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
from containers import qcow2_image

from vmstate_tools.source import zstd

STREAM = b"QEVM\x00\x00\x00\x03\x00"
MAPPED = (
    b"QEVM\x00\x00\x00\x03\x07\x00\x00\x00\x08pc-q35-9\x05\x1aconfiguration/capabilities"
    + bytes.fromhex("00000001 00000001 0a")
    + b"mapped-ram\x01"
)
MIB = 1 << 20

_OPEN = """
import json, resource, sys, time
import vmstate_tools.source.opening, lz4.frame, tqdm.auto
from vmstate_tools.errors import StreamError
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
said = None
try:
    with vmstate_tools.source.opening.open_source(sys.argv[1]) as source:
        size = source.size
except StreamError as error:
    said, size = str(error), None
used = time.process_time() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"said": said, "size": size, "seconds": used, "mebibytes": memory / 1024}))
"""


def opened(path: Path) -> dict:
    """What became of a file, and what it took; never more than it may."""
    run = subprocess.run(
        [sys.executable, "-c", _OPEN, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    found = json.loads(run.stdout)
    mebibytes = -(-path.stat().st_size // MIB)
    assert found["seconds"] <= mebibytes, found
    assert found["mebibytes"] <= 512 * mebibytes, found
    return found


def compressed(compressor: object, *parts: bytes) -> bytes:
    out = [compressor.compress(part) for part in parts]  # type: ignore[attr-defined]
    return b"".join([*out, compressor.flush()])  # type: ignore[attr-defined]


def deflated(*parts: bytes) -> bytes:
    return compressed(zlib.compressobj(9, wbits=31), *parts)


COMPRESS: dict[str, Callable[..., bytes]] = {
    "gzip": deflated,
    "bz2": lambda *parts: compressed(bz2.BZ2Compressor(), *parts),
    "xz": lambda *parts: compressed(lzma.LZMACompressor(preset=1), *parts),
    "zstd": lambda *parts: compressed(zstd.ZstdCompressor(1), *parts),
    "lz4": lambda *parts: b"".join(lz4.frame.compress(part) for part in parts),
}


@pytest.mark.parametrize("kind", COMPRESS)
def test_zeros(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(COMPRESS[kind](STREAM, *itertools.repeat(bytes(8 * MIB), 18)))
    said = opened(tmp_path / "a")["said"]
    assert said
    assert "expected less, or max_size=" in said


@pytest.mark.parametrize("kind", COMPRESS)
def test_pages_that_differ_a_little(kind: str, tmp_path: Path) -> None:
    records = b"".join(struct.pack(">Q", n << 12 | 0x28) + bytes(4096) for n in range(1 << 11))
    (tmp_path / "a").write_bytes(COMPRESS[kind](STREAM, *itertools.repeat(records, 8)))
    opened(tmp_path / "a")


@pytest.mark.parametrize("kind", COMPRESS)
def test_frames_without_content(kind: str, tmp_path: Path) -> None:
    """`cat` of a hundred thousand empty files, each compressed."""
    empty = COMPRESS[kind](b"")
    data = COMPRESS[kind](STREAM) + empty * (MIB // len(empty) - 1)
    (tmp_path / "a").write_bytes(data)
    found = opened(tmp_path / "a")
    assert found["size"] == len(STREAM) or "s of CPU, more than" in found["said"]


def test_zstd_frames_that_are_skipped(tmp_path: Path) -> None:
    skipped = b"\x50\x2a\x4d\x18" + bytes(4)
    (tmp_path / "a").write_bytes(COMPRESS["zstd"](STREAM) + skipped * (MIB // 8 - 100))
    found = opened(tmp_path / "a")
    assert found["size"] == len(STREAM) or "s of CPU, more than" in found["said"]


@pytest.mark.parametrize("log", [27, 28, 31])
def test_a_zstd_window(log: int, tmp_path: Path) -> None:
    """A frame's header asks for a window of 2^log bytes; QEMU's loader knows no such limit, memory does."""
    # Magic, a descriptor without content size, the window descriptor, a raw block of the stream: RFC 8878.
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([log - 10 << 3]) + struct.pack("<I", len(STREAM) << 3 | 1)[:3] + STREAM
    (tmp_path / "a").write_bytes(frame)
    found = opened(tmp_path / "a")
    assert (found["size"] == len(STREAM)) == (log <= 27), found


def test_an_xz_dictionary(tmp_path: Path) -> None:
    data = bytearray(lzma.compress(STREAM, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": MIB}]))
    at = data.index(b"\x21\x01") + 2  # the dictionary's size; then the header's checksum is put right
    data[at] = 35  # 768 MiB: RFC of the xz format, 5.3.1
    begin, size = 12, (data[12] + 1) * 4
    data[begin + size - 4 : begin + size] = struct.pack("<I", zlib.crc32(bytes(data[begin : begin + size - 4])))
    (tmp_path / "a").write_bytes(data)
    assert "xz data is damaged" in opened(tmp_path / "a")["said"]


def test_containers_in_one_another_share_one_limit(tmp_path: Path) -> None:
    data = COMPRESS["zstd"](STREAM, *itertools.repeat(bytes(8 * MIB), 100))
    for kind in ("gzip", "zstd"):
        data = COMPRESS[kind](data)
    (tmp_path / "a").write_bytes(data)
    assert "max_size=" in opened(tmp_path / "a")["said"]


def test_a_mapped_ram_stream_may_have_holes(tmp_path: Path) -> None:
    size = 256 * MIB
    (tmp_path / "a").write_bytes(
        COMPRESS["zstd"](MAPPED.ljust(MIB, b"\0"), *itertools.repeat(bytes(MIB), 254), b"\1" * MIB)
    )
    assert opened(tmp_path / "a")["size"] == size


def test_a_mapped_ram_stream_of_more_holes_than_a_machine_has(tmp_path: Path) -> None:
    frame = COMPRESS["zstd"](bytes(128 * MIB))
    (tmp_path / "a").write_bytes(COMPRESS["zstd"](MAPPED.ljust(MIB, b"\0")) + frame * 64)
    assert "s of CPU, more than" in opened(tmp_path / "a")["said"]


def patched(image: bytes, at: int, form: str, value: int) -> bytes:
    raw = struct.pack(form, value)
    return image[:at] + raw + image[at + len(raw) :]


QCOW2 = qcow2_image([(b"one", STREAM + bytes(5000))])
SNAPSHOTS_AT = struct.unpack_from(">Q", QCOW2, 64)[0]


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (20, ">I", 21),  # cluster_bits
        (20, ">I", 9),
        (20, ">I", 63),
        (36, ">I", 0xFFFFFFFF),  # l1_size of the disk
        (56, ">I", 0xFFFFFFFF),  # refcount_table_clusters
        (60, ">I", 0xFFFFFFFF),  # nb_snapshots
        (60, ">I", 65536),
        (64, ">Q", 1 << 62),  # snapshots_offset
        (SNAPSHOTS_AT, ">Q", 1 << 62),  # the snapshot's l1_table_offset
        (SNAPSHOTS_AT + 8, ">I", 0xFFFFFFFF),  # its l1_size
        (SNAPSHOTS_AT + 36, ">I", 0xFFFFFFFF),  # extra_data_size
        (SNAPSHOTS_AT + 40, ">Q", 1 << 62),  # vm_state_size_large
        (SNAPSHOTS_AT + 48, ">Q", 1 << 62),  # disk_size
    ],
)
def test_numbers_in_a_qcow2_image(at: int, form: str, value: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(patched(QCOW2, at, form, value))
    found = opened(tmp_path / "a")
    assert found["said"] or found["size"] == len(STREAM) + 5000


def test_tables_of_a_qcow2_image_that_all_name_one_cluster(tmp_path: Path) -> None:
    cluster, count = 512, 2000
    l2 = struct.pack(">Q", 1 << 63 | 3 * cluster) * 64
    l1_at, l2_at = 4 * cluster, 2 * cluster
    image = bytearray(QCOW2[:112].ljust(cluster, b"\0"))
    image[20:24], image[60:64] = struct.pack(">I", 9), struct.pack(">I", 1)
    image += bytes(cluster) + l2 + STREAM.ljust(cluster, b"\0") + struct.pack(">Q", 1 << 63 | l2_at) * count
    image += bytes(-len(image) % cluster)
    image[64:72] = struct.pack(">Q", len(image))
    image += struct.pack(">QIHHIIQII", l1_at, count, 1, 1, 0, 0, 0, 0, 16) + struct.pack(">QQ", 1 << 40, 0) + b"1a"
    (tmp_path / "a").write_bytes(image)
    assert opened(tmp_path / "a")["said"]


@pytest.mark.parametrize("at", [16, 20, 28, 32])
@pytest.mark.parametrize("value", [0xFFFFFFFF, 0x7FFFFFFF, 0])
def test_numbers_in_a_libvirt_header(at: int, value: int, tmp_path: Path) -> None:
    image = b"LibvirtQemudSave" + struct.pack("<5I56x", 2, 8, 1, 0, 0) + b"<domain>" + STREAM
    (tmp_path / "a").write_bytes(patched(image, at, "<I", value))
    found = opened(tmp_path / "a")
    assert found["said"] or found["size"] == len(STREAM)


def test_a_gzip_member_after_another_that_claims_much(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(STREAM)[:-4] + b"\xff\xff\xff\xff")
    assert "damaged" in opened(tmp_path / "a")["said"]
