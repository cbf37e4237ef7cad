from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
import ram_streams
from captures import Captures
from ram_streams import CONTINUE, DATA, EOS, FLUSH, PATTERN, ZERO, be64, mem_size, pages_of, unzst

from vmstate_tools.errors import StreamError
from vmstate_tools.format.multifd import SYNC, ZLIB, ZSTD
from vmstate_tools.format.multifd_channel import Channel, is_channel
from vmstate_tools.source import zstd

if TYPE_CHECKING:
    from vmstate_tools.stream.ram import Ram

RAM = b"pc.ram"


def join(streams: list[bytes]) -> tuple[Ram, list[Channel]]:
    (main,) = [s for s in streams if not is_channel(memoryview(s))]
    ram, _ = ram_streams.find(main)
    return ram, [ram.add_channel(memoryview(s)) for s in streams if s is not main]


def assert_accounted(channel: Channel) -> None:
    at = 0
    for offset, size, *_ in channel.records():
        assert offset == at
        assert size > 0
        at += size
    assert at == len(channel.view)
    assert b"".join(map(bytes, channel.build())) == channel.view


@pytest.mark.parametrize("name", ["mfplain", "mfzlib", "mfzstd"])
def test_running_guest(name: str) -> None:
    """Every page was sent in many rounds, over three channels: the last counts."""
    ram, channels = join([unzst(DATA / f"{name}.ch{i}.zst") for i in range(4)])
    assert ram.read("pc.ram", 0, 0xA0000) == unzst(DATA / f"{name}.memory.zst")
    for channel in channels:
        assert_accounted(channel)


def test_captures(captures: Captures) -> None:
    """As many zero and full pages as QEMU's query-migrate said it had sent."""
    seen = 0
    for meta in sorted(captures.channels.rglob("meta.json")):
        sent = json.loads(meta.read_text())["query_migrate"]["ram"]
        ram, channels = join([unzst(path) for path in sorted(meta.parent.glob("ch*.bin.zst"))])
        pages = ram.pages.drop(columns="block").sum()
        assert pages["zero"] + pages["multifd_zero"] == sent["duplicate"], meta
        assert pages["normal"] + pages["multifd_normal"] == sent["normal"], meta
        for channel in channels:
            assert_accounted(channel)
        if "ppc_spapr.ram" in set(ram.blocks["block"]):
            assert ram.read("ppc_spapr.ram", 1 << 20, len(PATTERN)) == PATTERN, meta
        seen += bool(channels)
    assert seen >= {"here": 5, "collection": 11}[captures.name]


def test_q35_is_the_same_over_any_connections(captures: Captures) -> None:
    place = captures.channels / "qemu-11.1/q35"
    rams = [join([unzst(path) for path in sorted(folder.glob("ch*.bin.zst"))])[0] for folder in sorted(place.iterdir())]
    for name, size in rams[0].blocks[["block", "used_length"]].itertuples(index=False):
        first, *others = (ram.read(name, 0, int(size)) for ram in rams)
        assert all(other == first for other in others)


# -- packets by hand

GREETING = struct.pack(">2I16sB39x", 0x11223344, 1, b"u" * 16, 3)


def packet(
    full: list[int],
    zero: list[int],
    data: bytes,
    *,
    flags: int = 0,
    name: bytes = RAM,
    size: int | None = None,
) -> bytes:
    head = struct.pack(
        ">6IQI28x256s",
        0x11223344,
        1,
        flags,
        128,
        len(full),
        len(data) if size is None else size,
        0,
        len(zero),
        name,
    )
    return head + be64(*full, *zero).ljust(128 * 8, b"\0") + data


def main(rounds: int = 2, pages: int = 16) -> Ram:
    return ram_streams.parse(mem_size((RAM, pages * 4096)) + be64(FLUSH) * rounds + be64(EOS), page_size=4096)


@pytest.mark.parametrize("method", [0, ZLIB, ZSTD])
def test_pages_of_a_later_round_win(method: int) -> None:
    one, two = pages_of(1), pages_of(2)
    compress = {
        0: lambda: lambda page: page,
        ZLIB: lambda: (lambda z: lambda page: z.compress(page) + z.flush(zlib.Z_SYNC_FLUSH))(zlib.compressobj()),
        ZSTD: lambda: (lambda z: lambda page: z.compress(page) + z.flush(zstd.ZstdCompressor.FLUSH_BLOCK))(
            zstd.ZstdCompressor()
        ),
    }[method]
    a, b = compress(), compress()
    sync = packet([], [], b"", flags=SYNC, size=4711)  # before 9.0 an empty packet repeats an old size
    # Round 1: page 0 in channel A, page 1 in B. Round 2: page 0 in B, page 1 zero in A, page 2 in A.
    first = (
        GREETING + packet([0], [], a(one), flags=method) + sync + packet([8192], [4096], a(two), flags=method) + sync
    )
    second = GREETING + packet([4096], [], b(one), flags=method | SYNC) + packet([0], [], b(two), flags=method) + sync
    for order in ((first, second), (second, first)):
        ram = main()
        for channel in order:
            assert_accounted(ram.add_channel(memoryview(channel)))
        assert ram.read("pc.ram", 0, 16 * 4096) == two + bytes(4096) + two + bytes(13 * 4096)
        assert ram.read("pc.ram", 8192, 4096) == two
        assert ram.read("pc.ram", 0, 4096) == two  # back in a compressed channel
        assert ram.pages.loc[0, ["multifd_normal", "multifd_zero"]].tolist() == [4, 1]


def test_zero_pages_of_the_main_stream_keep_their_round() -> None:
    """Before 9.0 zero pages went the main way, and each section's end was a sync."""
    stream = mem_size((RAM, 16 * 4096)) + be64(4096 | ZERO) + b"\x06" + RAM + b"\0" + be64(EOS)
    stream += be64(ZERO | CONTINUE) + b"\0" + be64(EOS)
    ram = ram_streams.parse(stream, page_size=4096)
    sync = packet([], [], b"", flags=SYNC)
    channel = GREETING + packet([0], [], pages_of(1)) + sync + packet([4096], [], pages_of(2)) + sync
    ram.add_channel(memoryview(channel))
    assert ram.read("pc.ram", 0, 8192) == bytes(4096) + pages_of(2)


@pytest.mark.parametrize(
    "channel",
    [
        GREETING[:63],
        GREETING + bytes(400),
        GREETING + packet([], [], b"")[:-1],
        GREETING + packet([0], [], bytes(4095)),
        GREETING + packet([0], [], b"", size=1 << 31),
        GREETING + packet([0], [], b"abc", flags=5 << 1),
        GREETING + packet(list(range(0, 100 * 4096, 4096)), list(range(0, 29 * 4096, 4096)), bytes(100 * 4096)),
    ],
)
def test_bad_framing_is_refused(channel: bytes) -> None:
    with pytest.raises(StreamError) as caught:
        main().add_channel(memoryview(channel))
    assert caught.value.offset is not None


@pytest.mark.parametrize(
    "bad",
    [
        packet([0], [], bytes(4096), name=b"other"),
        packet([16 * 4096], [], bytes(4096)),
        packet([100], [], bytes(4096)),
        packet([], [1 << 63], b""),
        packet([0, 4096], [], zlib.compress(bytes(4096)), flags=ZLIB),
        packet([0], [], b"nonsense", flags=ZLIB),
        packet([0], [], b"nonsense", flags=ZSTD),
        packet([0], [], b"whatever", flags=4 << 1),
        packet([0], [], zstd.compress(bytes(100)), flags=ZSTD),
    ],
)
def test_bad_pages_are_refused(bad: bytes) -> None:
    ram = main()
    ram.add_channel(memoryview(GREETING + bad))
    with pytest.raises(StreamError):
        ram.read("pc.ram", 0, 16 * 4096)


def test_a_bomb_expands_by_pages_only() -> None:
    """A packet that holds one page and compressed data for a gigabyte."""
    data = zlib.compress(bytes(1 << 26))
    ram = main()
    ram.add_channel(memoryview(GREETING + packet([0], [], data, flags=ZLIB)))
    assert ram.read("pc.ram", 0, 4096) == bytes(4096)
