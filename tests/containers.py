"""Packs streams for tests: compressed, in a libvirt save image, as a snapshot in a qcow2 image."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import shutil
import struct
import subprocess
import zlib

import lz4.frame
import numpy as np
import pytest

from vmstate_tools.source import zstd

# Not a whole stream, but what one begins with, and bytes that no compressor can shorten.
STREAM = b"QEVM\x00\x00\x00\x03\x07\x00\x00\x00\x0bpseries-2.6\x01" + np.random.default_rng(1).bytes(200_000)

MAPPED = (
    b"QEVM\x00\x00\x00\x03\x07\x00\x00\x00\x08pc-q35-9\x05\x1aconfiguration/capabilities"
    + bytes.fromhex("00000001 00000001 0a")
    + b"mapped-ram\x01"
)


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


def vmdesc(data: bytes) -> dict:
    """The description that ends a stream. It fills it to the last byte: nothing was lost or displaced."""
    at = next(
        found.end()
        for found in re.finditer(rb"\x06(?=....\{)", data, re.DOTALL)
        if int.from_bytes(data[found.end() : found.end() + 4]) == len(data) - found.end() - 4
    )
    return json.loads(data[at + 4 :])


def bomb(kind: str, head: bytes, fill: bytes = b"\x00", count: int = 160 << 20) -> bytes:
    """`head` and then `count` bytes of `fill`, packed without holding them."""
    block = fill * (4 << 20)
    engine = {
        "gzip": lambda: zlib.compressobj(9, wbits=31),
        "bz2": lambda: bz2.BZ2Compressor(1),
        "xz": lambda: lzma.LZMACompressor(preset=0),
        "zstd": lambda: zstd.ZstdCompressor(),
    }[kind]()
    blocks = (engine.compress(block) for _ in range(count // len(block)))
    return b"".join([engine.compress(head), *blocks, engine.flush()])
