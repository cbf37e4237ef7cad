from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from captures import Captures
from containers import STREAM, qcow2_image, vmdesc

from vmstate_tools.errors import StreamError
from vmstate_tools.source import open_source, zstd


def test_qcow2_snapshots_are_picked() -> None:
    image = qcow2_image([(b"one", STREAM), (b"disk only", b""), (b"3", STREAM[:9000])])
    for wanted, size in (("one", len(STREAM)), ("1", len(STREAM)), ("3", 9000)):
        with open_source(image, snapshot=wanted) as source:
            assert source.view == STREAM[:size]
            assert source.container == "qcow2"
    with open_source(image, snapshot="one") as source:
        meta = source.meta["qcow2"]
    assert meta == {"id": "1", "name": "one", "date": "2014-05-13T16:53:20+00:00", "vm_clock_nsec": 5 * 10**9,
                    "icount": None, "size": len(STREAM)}  # fmt: skip
    with pytest.raises(StreamError, match=r"'one' \(id 1\), '3' \(id 3\)"):
        open_source(image)
    with pytest.raises(StreamError, match="no one snapshot 'two'"):
        open_source(image, snapshot="two")
    with pytest.raises(StreamError, match="holds no snapshot"):
        open_source(qcow2_image([]))
    with pytest.raises(StreamError, match="not a qcow2 image"):
        open_source(STREAM, snapshot="one")


def test_qcow2_extended_l2_entries() -> None:
    with open_source(qcow2_image([(b"one", STREAM)], extended=True)) as source:
        assert source.view == STREAM


def test_qcow2_cut_short() -> None:
    image = bytearray(qcow2_image([(b"one", STREAM)]))
    # Tables before data, as in most images: the last cluster of the state goes where the file ends.
    at = image.index(STREAM[len(STREAM) // 4096 * 4096 :][:2000])
    entry = image.index(struct.pack(">Q", at | 1 << 63))
    struct.pack_into(">Q", image, entry, len(image) | 1 << 63)
    cut = bytes(image) + STREAM[len(STREAM) // 4096 * 4096 :]
    with open_source(cut) as source:
        assert source.view == STREAM
    with pytest.raises(StreamError, match="cut short"):
        open_source(cut[:-5])
    with open_source(cut[:-5], partial=True) as source:
        assert source.view == STREAM[:-5]
    with open_source(cut[: len(image)], partial=True) as source:
        assert source.view == STREAM[: len(STREAM) // 4096 * 4096]


def test_qcow2_unallocated_clusters_are_zeros() -> None:
    for extended in (False, True):
        image = bytearray(qcow2_image([(b"one", STREAM)], extended))
        at = image.index(STREAM[8192:10000])
        entry = image.index(struct.pack(">Q", at | 1 << 63))
        if extended:
            struct.pack_into(">I", image, entry + 12, 0xFFFFFFFF & ~2)  # the second of 32 subclusters
            hole = slice(8192 + 128, 8192 + 256)
        else:
            struct.pack_into(">Q", image, entry, 0)
            hole = slice(8192, 8192 + 4096)
        with open_source(bytes(image)) as source:
            expected = bytearray(STREAM)
            expected[hole] = bytes(hole.stop - hole.start)
            assert source.view == expected


def test_qcow2_with_many_snapshots() -> None:
    image = bytearray(qcow2_image([(b"x" * 9000, STREAM)] * 2))
    with pytest.raises(StreamError) as caught:
        open_source(bytes(image))
    assert len(str(caught.value)) < 1000
    began = time.process_time()
    struct.pack_into(">IQ", image, 60, 65536, len(image))
    with pytest.raises(StreamError, match="and 65528 more"):
        open_source(bytes(image) + struct.pack(">QIHHIIQII", 0, 0, 0, 0, 0, 0, 0, 1, 0) * 65536)
    assert time.process_time() - began < 3
    struct.pack_into(">I", image, 60, 65537)
    with pytest.raises(StreamError, match="65537 snapshots"):
        open_source(bytes(image))


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=2M", "extended_l2=on", "compat=0.10"])
def test_qcow2_written_by_qemu(options: str, tmp_path: Path) -> None:
    if not (shutil.which("qemu-img") and shutil.which("qemu-system-x86_64")):
        pytest.skip("no QEMU installed")
    path = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "64M"], check=True)
    subprocess.run(
        ["qemu-system-x86_64", "-S", "-nodefaults", "-display", "none", "-monitor", "stdio", "-m", "16",
         "-machine", "q35,accel=tcg", "-drive", f"file={path},if=none,id=d0,format=qcow2"],
        input=b"savevm first\nsavevm second\nquit\n", capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    listed = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", path]))["snapshots"]
    assert [s["name"] for s in listed] == ["first", "second"]
    for snapshot in listed:
        with open_source(path, snapshot=snapshot["name"]) as source:
            assert source.size == snapshot["vm-state-size"]
            assert source.view[:8] == b"QEVM\x00\x00\x00\x03"
            assert vmdesc(bytes(source.view))["page_size"] == 4096


def test_savevm_captures(captures: Captures) -> None:
    from dissect.hypervisor.disk.qcow2 import QCow2

    images = sorted(captures.savevm.glob("*.qcow2.zst"))
    assert images
    for image in images:
        qcow2 = QCow2(io.BytesIO(zstd.decompress(image.read_bytes())))
        (entry,) = qcow2.snapshots
        size = entry.extra.vm_state_size_large
        stream = entry.open()
        span = 1 << (qcow2.cluster_bits + qcow2.l2_bits)
        offset = -(-entry.extra.disk_size // span) * span
        stream.size = offset + size  # dissect's own walk, made to go on past the disk
        stream.seek(offset)
        with open_source(image) as source:
            assert source.container == "zstd+qcow2"
            assert source.size == size
            assert source.meta["qcow2"]["name"] == entry.name == "snap1"
            assert source.view[:8] == b"QEVM\x00\x00\x00\x03"
            assert source.view == stream.read(size)
