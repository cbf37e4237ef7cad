from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import fsspec
import lz4.frame
import numpy as np
import pytest
from captures import Captures
from containers import COMPRESS, libvirt_image, qcow2_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmstate_tools.errors import StreamError
from vmstate_tools.source import detect, open_source, sink, zstd

# Not a whole stream, but what one begins with, and bytes that no compressor can shorten.
STREAM = b"QEVM\x00\x00\x00\x03\x07\x00\x00\x00\x0bpseries-2.6\x01" + np.random.default_rng(1).bytes(200_000)
MAPPED = (
    b"QEVM\x00\x00\x00\x03\x07\x00\x00\x00\x08pc-q35-9\x05\x1aconfiguration/capabilities"
    + bytes.fromhex("00000001 00000001 0a")
    + b"mapped-ram\x01"
)


def vmdesc(data: bytes) -> dict:
    """The description that ends a stream. It fills it to the last byte: nothing was lost or displaced."""
    at = next(
        found.end()
        for found in re.finditer(rb"\x06(?=....\{)", data, re.DOTALL)
        if int.from_bytes(data[found.end() : found.end() + 4]) == len(data) - found.end() - 4
    )
    return json.loads(data[at + 4 :])


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "stream.mig"
    path.write_bytes(STREAM)
    return path


def test_plain_file_is_mapped(plain: Path) -> None:
    with open_source(plain) as source:
        assert (source.name, source.container, source.size) == (str(plain), "raw", len(STREAM))
        assert (source.start, source.base, source.meta, source.damage) == (0, 0, {}, None)
        assert source.view == STREAM
        assert source.view.readonly
        source.forget(5000, 100_000)
        assert source.view == STREAM


@pytest.mark.parametrize(
    "give", [str, Path, Path.read_bytes, lambda p: io.BytesIO(p.read_bytes()), lambda p: f"file://{p}"]
)
def test_every_way_to_name_it(plain: Path, give) -> None:
    with open_source(give(plain)) as source:
        assert source.view == STREAM


def test_standard_input_and_pipe(plain: Path) -> None:
    code = "from vmstate_tools.source import open_source as o; s = o('-'); print(s.name, s.container, s.size)"
    packed = gzip.compress(STREAM)
    out = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True).stdout
    assert out.decode().split() == ["-", "gzip", str(len(STREAM))]
    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(packed)

    threading.Thread(target=feed).start()
    with os.fdopen(read, "rb") as pipe, open_source(pipe) as source:
        assert source.view == STREAM


def test_urls(plain: Path, tmp_path: Path) -> None:
    with fsspec.open("memory://streams/a.mig.xz", "wb") as file:
        file.write(lzma.compress(STREAM))
    with open_source("memory://streams/a.mig.xz") as source:
        assert (source.view, source.container) == (STREAM, "xz")
    (tmp_path / "b.zst").write_bytes(zstd.compress(STREAM))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, container in (("stream.mig", "raw"), ("b.zst", "zstd")):
            with open_source(f"http://127.0.0.1:{server.server_port}/{name}") as source:
                assert (source.view, source.container) == (STREAM, container)
        with pytest.raises(FileNotFoundError, match="404"):
            open_source(f"http://127.0.0.1:{server.server_port}/none")
        server.shutdown()
    with pytest.raises(StreamError, match="cannot be read"):
        open_source("no-such-protocol://x")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "none")


@pytest.mark.parametrize("kind", COMPRESS)
def test_compressed(kind: str) -> None:
    packed = COMPRESS[kind](STREAM)
    with open_source(packed) as source:
        assert (source.container, source.base, source.start) == (kind, 0, 0)
        assert source.view == STREAM


@pytest.mark.parametrize("kind", COMPRESS)
def test_members_one_after_another(kind: str) -> None:
    cuts = [STREAM[:1000], b"", STREAM[1000:90_000], STREAM[90_000:]]
    with open_source(b"".join(map(COMPRESS[kind], cuts))) as source:
        assert source.view == STREAM


def test_many_tiny_members_take_linear_time() -> None:
    packed = gzip.compress(STREAM) + gzip.compress(b"") * 100_000
    began = time.process_time()
    with open_source(packed) as source:
        assert source.size == len(STREAM)
    assert time.process_time() - began < 3


def test_zero_padding_behind_the_last_member() -> None:
    with open_source(gzip.compress(STREAM) + bytes(5000)) as source:
        assert source.view == STREAM
    with pytest.raises(StreamError, match="damaged"):
        open_source(gzip.compress(STREAM) + b"more")


def test_skippable_frames_come_first() -> None:
    skippable = b"\x50\x2a\x4d\x18" + struct.pack("<I", 9) + b"parallel!"
    for kind in ("zstd", "lz4"):
        with open_source(skippable * 2 + COMPRESS[kind](STREAM)) as source:
            assert (source.view, source.container) == (STREAM, kind)


@pytest.mark.parametrize("kind", COMPRESS)
def test_cut_short(kind: str) -> None:
    data = STREAM * 12
    packed = COMPRESS[kind](data) if kind != "lz4" else lz4.frame.compress(data, block_linked=False)
    packed = packed[: len(packed) * 2 // 3]
    with pytest.raises(StreamError, match=f"{kind} data is cut short") as caught:
        open_source(packed)
    assert caught.value.offset == len(packed)
    assert caught.value.file == "<bytes>"
    with open_source(packed, partial=True) as source:
        assert source.size > 0
        assert data[: source.size] == source.view
        assert "cut short" in str(source.damage)


def test_partial_gives_all_that_was_whole() -> None:
    packed = gzip.compress(STREAM, 0)
    with open_source(packed[:100_000], partial=True) as source:
        assert 99_000 < source.size < 100_000
        assert STREAM[: source.size] == source.view


@pytest.mark.parametrize("kind", ["zstd", "gzip", "xz", "bz2", "lzop"])
def test_damaged(kind: str) -> None:
    summed = functools.partial(zstd.compress, options={int(zstd.CompressionParameter.checksum_flag): 1})
    packed = bytearray((summed if kind == "zstd" else COMPRESS[kind])(STREAM))
    packed[len(packed) // 2] ^= 0x10
    with pytest.raises(StreamError, match=f"{kind} data is damaged"):
        open_source(bytes(packed))


def test_large_content_is_a_sparse_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = MAPPED + bytes(sink.MEMORY_LIMIT) + b"page" + bytes(sink.MEMORY_LIMIT) + b"end"
    packed = zstd.compress(data)
    path = tmp_path / "mapped.zst"
    path.write_bytes(packed)
    blocks = []
    finish = sink.Sink.finish
    monkeypatch.setattr(sink.Sink, "finish", lambda s: (finish(s), blocks.append(os.fstat(s.file.fileno()).st_blocks)))
    tracemalloc.start()
    with open_source(path) as source:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert source.size == len(data)
        assert hashlib.sha256(source.view).digest() == hashlib.sha256(data).digest()
        assert 0 < blocks[0] * 512 < 32 << 20
        source.forget(0, source.size)
        assert source.view[-3:] == b"end"
    assert peak < 3 * sink.MEMORY_LIMIT


def test_close_leaves_arrays_alive(plain: Path) -> None:
    with open_source(plain) as source:
        array = np.frombuffer(source.view, np.uint8)
    assert array.tobytes() == STREAM


@pytest.mark.parametrize("lead", [bytes(4096), b"\x5a" * 512, b"\x01", bytes(16 << 20)])
def test_lead_in(lead: bytes, tmp_path: Path) -> None:
    path = tmp_path / "offset.mig"
    path.write_bytes(lead + STREAM)
    with open_source(path) as source:
        assert (source.start, source.base, source.size) == (len(lead), len(lead), len(STREAM))
        assert source.view[source.start :] == STREAM
        assert len(source.view) == len(lead) + len(STREAM)
    with open_source(gzip.compress(lead + STREAM, 1)) as source:
        assert (source.start, source.base) == (len(lead), 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"# a text file\nwith lines\n", "not a migration stream but text; expected QEVM"),
        (b'{"pc-q35-9.0": {}}', "JSON"),
        (b"\x7fELF\x02\x01\x01" + bytes(100) + STREAM, "ELF file"),
        (b"KDUMP   \x06" + bytes(100), "kdump"),
        (bytes(257) + b"ustar" + bytes(250) + STREAM, "tar archive"),
        (bytes(20 << 20), "zero bytes"),
        (b"\x00\x01\x02\x03" * 100, "unknown bytes 00 01 02 03"),
        (b"QFI\xfb\x00\x00\x00\x01" + bytes(100), "qcow image of an unknown version"),
        (b"\x11\x22\x33\x44\x00\x00\x00\x01", "a multifd channel of a migration"),
        (gzip.compress(b"", mtime=0), "empty file"),
        (gzip.compress(b"text", mtime=0), "but text"),
    ],
)
def test_no_stream(data: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        open_source(data)


@pytest.mark.parametrize("length", [1, 3, 4, 7, 8, 9])
def test_cut_magic_is_left_to_the_reader_of_the_stream(length: int) -> None:
    with open_source(STREAM[:length]) as source:
        assert source.view == STREAM[:length]


def test_version_2_is_left_to_the_reader_of_the_stream() -> None:
    with open_source(b"QEVM\x00\x00\x00\x02" + bytes(20)) as source:
        assert source.start == 0


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("number", "name", "kind"),
    [
        (0, "raw", None),
        (1, "gzip", "gzip"),
        (2, "bzip2", "bz2"),
        (3, "xz", "xz"),
        (4, "lzop", "lzop"),
        (5, "zstd", "zstd"),
    ],
)
def test_libvirt(order: str, number: int, name: str, kind: str | None) -> None:
    image = libvirt_image(COMPRESS[kind](STREAM) if kind else STREAM, number, order)
    with open_source(image) as source:
        assert source.container == ("libvirt" if kind is None else f"libvirt+{kind}")
        assert source.view[source.start :] == STREAM
        assert source.base == (92 + 65536 if kind is None else 0)
        meta = source.meta["libvirt"]
    assert meta["xml"] == "<domain type='kvm'><name>guest</name></domain>"
    assert meta["cookie"] == "<cookie/>"
    assert (meta["format"], meta["was_running"], meta["version"]) == (name, True, 2)
    assert meta["byteorder"] == {"<": "little", ">": "big"}[order]


@pytest.mark.parametrize("name", ["raw", "gzip", "bzip2", "xz", "lzop"])
def test_libvirt_images_that_libvirt_wrote(name: str) -> None:
    with open_source(Path(__file__).parents[1] / "data" / "libvirt" / f"libvirt-9.0-{name}.save.zst") as source:
        kind = {"raw": "", "bzip2": "+bz2"}.get(name, f"+{name}")
        assert source.container == f"zstd+libvirt{kind}"
        assert source.meta["libvirt"]["format"] == name
        assert "<name>guest</name>" in source.meta["libvirt"]["xml"]
        assert source.meta["libvirt"]["xml"].endswith("</domain>\n")
        assert source.meta["libvirt"]["cookie"].endswith("</cookie>\n")
        assert not source.meta["libvirt"]["was_running"]
        data = bytes(source.view[source.start :])
    assert data[:8] == b"QEVM\x00\x00\x00\x03"
    assert vmdesc(data)["page_size"] == 4096


def test_libvirt_sparse_keeps_the_whole_file_in_view() -> None:
    image = libvirt_image(MAPPED + bytes(100 << 20) + b"page", 6)
    with open_source(image) as source:
        assert len(source.view) == len(image)
        assert source.base == source.start == 92 + 65536
        assert source.meta["libvirt"]["format"] == "sparse"
    with open_source(zstd.compress(image)) as source:
        assert (source.container, source.size) == ("zstd+libvirt", len(image) - 92 - 65536)


def test_libvirt_unfinished() -> None:
    image = libvirt_image(STREAM, magic=b"LibvirtQemudPart")
    with pytest.raises(StreamError, match="LibvirtQemudPart"):
        open_source(image)
    with open_source(image, partial=True) as source:
        assert source.view[source.start :] == STREAM
        assert source.damage is not None


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(16, 3, "version 3"), (20, 0, "0 bytes of XML"), (20, 2**31, "2147483648 bytes"), (32, 2**20, "cookie")],
)
def test_libvirt_header_is_checked(at: int, value: int, message: str) -> None:
    image = bytearray(libvirt_image(STREAM))
    struct.pack_into("<I", image, at, value)
    with pytest.raises(StreamError, match=message):
        open_source(bytes(image))


def test_libvirt_without_stream() -> None:
    with pytest.raises(StreamError, match="nothing follows"):
        open_source(libvirt_image(b""))
    with pytest.raises(StreamError, match="cut short"):
        open_source(libvirt_image(b"")[:50])


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


def test_captures_are_what_the_manifest_says(captures: Captures) -> None:
    chosen = captures.rows[::20] + [row for row in captures.rows if re.search("mapped|uri", row["config"])]
    assert len(chosen) > 10
    for row in chosen:
        with open_source(captures.path(row["file"])) as source:
            assert (source.container, source.size) == ("zstd", int(row["size"]))
            assert hashlib.sha256(source.view).hexdigest() == row["sha256"]


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


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd"])
@pytest.mark.parametrize("head", [b"", b"text", STREAM[:5000], b"QFI\xfb", b"LibvirtQemudSave\x02\x00\x00\x00"])
def test_bomb(kind: str, head: bytes) -> None:
    packed = bomb(kind, head, count=2000 << 20 if kind == "zstd" else 160 << 20)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(StreamError):
        open_source(packed)
    took = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 2  # under 1 s, and a slow machine
    assert peak < 256 << 20


def test_bomb_of_other_than_zeros() -> None:
    for kind in ("zstd", "bz2"):
        with pytest.raises(StreamError, match="bytes unpack to"):
            open_source(bomb(kind, STREAM[:100], b"A"))
    for kind in ("gzip", "xz"):
        with pytest.raises(StreamError, match="bytes of the same"):
            open_source(bomb(kind, STREAM[:100], b"A"))


def test_max_size() -> None:
    packed = gzip.compress(STREAM)
    with open_source(packed, max_size=len(STREAM)) as source:
        assert source.size == len(STREAM)
    with pytest.raises(StreamError, match="more than 1000 bytes"):
        open_source(packed, max_size=1000)
    # Named, it lifts what else guards against bombs.
    zeros = bomb("zstd", STREAM[:100], count=200 << 20)
    with open_source(zeros, max_size=1 << 30) as source:
        assert source.size == 100 + (200 << 20)


def test_nesting_is_limited() -> None:
    with open_source(gzip.compress(lzma.compress(bz2.compress(STREAM)))) as source:
        assert (source.container, source.size) == ("gzip+xz+bz2", len(STREAM))
    with pytest.raises(StreamError, match="nested too deep"):
        open_source(gzip.compress(gzip.compress(gzip.compress(gzip.compress(STREAM)))))


def test_endless_input_is_refused() -> None:
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(StreamError, match="zero bytes"):
        open_source(zeros)
    with pytest.raises(StreamError, match="not a migration stream"):
        open_source("/dev/urandom")


def test_import_is_light() -> None:
    code = "import sys, vmstate_tools.source; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    assert not {"fsspec", "dissect", "lz4", "tqdm", "lzallright", "pandas"} & set(loaded)


SEED = STREAM[:3000]
CONTAINERS = {
    **{kind: lambda kind=kind: COMPRESS[kind](SEED) for kind in COMPRESS},
    "libvirt": lambda: libvirt_image(gzip.compress(SEED), 1)[:200_000],
    "qcow2": lambda: qcow2_image([(b"one", SEED * 2), (b"two", SEED)]),
    "qcow2 extended": lambda: qcow2_image([(b"one", SEED)], extended=True),
}


@functools.cache
def seed(kind: str) -> bytes:
    return CONTAINERS[kind]()


@pytest.mark.parametrize("kind", CONTAINERS)
@settings(max_examples=100, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_containers_give_stream_errors(kind: str, data: st.DataObject) -> None:
    mutated = bytearray(seed(kind))
    # Headers and tables are where the numbers stand.
    places = st.one_of(st.integers(0, min(200, len(mutated) - 1)), st.integers(0, len(mutated) - 1))
    for at in data.draw(st.lists(places, max_size=6)):
        new = data.draw(
            st.sampled_from([b"\xff", b"\x00", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x80"]) | st.binary(max_size=4)
        )
        mutated[at : at + len(new)] = new
    cut = data.draw(st.integers(0, len(mutated)) | st.just(len(mutated)))
    for partial in (False, True):
        try:
            open_source(
                bytes(mutated[:cut]), partial=partial, snapshot=data.draw(st.sampled_from([None, "one"]))
            ).close()
        except StreamError as error:
            assert len(str(error)) < 1000


def test_lead_limit_holds() -> None:
    with pytest.raises(StreamError, match="zero bytes"):
        open_source(bytes(detect.LEAD_LIMIT + 4096) + STREAM)
