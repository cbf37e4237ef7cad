from __future__ import annotations

import struct
from pathlib import Path

import pytest
from containers import COMPRESS, MAPPED, STREAM, libvirt_image, vmdesc

from vmstate_tools.errors import StreamError
from vmstate_tools.source import open_source, zstd


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
