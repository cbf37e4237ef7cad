"""Packs streams for tests: compressed, in a libvirt save image, as a snapshot in a qcow2 image."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import subprocess

import lz4.frame
import pytest

from vmstate_tools.source import zstd


def lzop(data: bytes, level: str = "-3") -> bytes:
    if not shutil.which("lzop"):
        pytest.skip("lzop is not installed")
    return subprocess.run(["lzop", "-c", level], input=data, capture_output=True, check=True).stdout


COMPRESS = {
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "lz4": lz4.frame.compress,
    "lzop": lzop,
}


def libvirt_image(body: bytes, kind: int = 0, order: str = "<", magic: bytes = b"LibvirtQemudSave") -> bytes:
    xml = b"<domain type='kvm'><name>guest</name></domain>\x00"
    cookie = b"<cookie/>\x00"
    area = (xml + cookie).ljust(65536, b"\x00")
    return magic + struct.pack(f"{order}5I56x", 2, len(area), 1, kind, len(xml)) + area + body


def qcow2_image(snapshots: list[tuple[bytes, bytes]], extended: bool = False) -> bytes:
    """A qcow2 image of 4 KiB clusters and a disk of one L2 table, with (name, VM state) snapshots."""
    bits, cluster = 12, 4096
    words = 2 if extended else 1
    entries = cluster // 8 // words
    blocks = [bytes(cluster)]  # the header, filled in at the end

    def add(data: bytes) -> int:
        offset = len(blocks) * cluster
        for at in range(0, len(data), cluster):
            blocks.append(data[at : at + cluster].ljust(cluster, b"\x00"))
        return offset

    table = b""
    for number, (name, state) in enumerate(snapshots, 1):
        data = [add(state[at : at + cluster]) | 1 << 63 for at in range(0, len(state), cluster)]
        l2 = b"".join(struct.pack(">Q", e) + (struct.pack(">Q", 0xFFFFFFFF) if extended else b"") for e in data)
        l1 = [0] + [add(l2[at : at + cluster]) | 1 << 63 for at in range(0, len(l2), cluster)]
        identifier = str(number).encode()
        table += struct.pack(
            ">QIHHIIQII", add(struct.pack(f">{len(l1)}Q", *l1)), len(l1), len(identifier), len(name),
            1_400_000_000, 0, 5_000_000_000, 0, 24,
        ) + struct.pack(">QQQ", len(state), entries * cluster, 2**64 - 1) + identifier + name  # fmt: skip
        table += bytes(-len(table) % 8)
    at = add(table) if table else 0
    blocks[0] = struct.pack(
        ">4sIQIIQIIQQIIQQQQIIQ", b"QFI\xfb", 3, 0, 0, bits, entries * cluster, 0, 0, 0, 0, 0,
        len(snapshots), at, 16 if extended else 0, 0, 0, 4, 112, 0,
    ).ljust(cluster, b"\x00")  # fmt: skip
    return b"".join(blocks)
