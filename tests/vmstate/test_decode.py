from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from writer import Field, Vmsd, Writer, be, buffer, number, struct, u8, u32, u64

import vmstate_tools as vt
from vmstate_tools.vmstate.decode import gather, scatter
from vmstate_tools.vmstate.layout import BOOL, BYTES, SIGNED, UNSIGNED


def opened(*fields: Field, **more: Any) -> vt.Stream:
    stream = Writer(machine="toy-1.0")
    stream.full("toy", Vmsd("toy", fields, **more))
    return vt.open(stream.finish())


@pytest.mark.parametrize(
    ("type_", "size", "raw", "value"),
    [
        ("uint8", 1, 0xFF, 255),
        ("int8", 1, 0xFF, -1),
        ("uint16", 2, 0x8001, 0x8001),
        ("int16", 2, 0x8001, -0x7FFF),
        ("uint32", 4, 0xFFFF_FFFE, 0xFFFF_FFFE),
        ("int32", 4, 0xFFFF_FFFE, -2),
        ("int32 equal", 4, 0xFFFF_FFFF, -1),
        ("int32 le", 4, 0x0000_0102, 0x102),  # less or equal, not little-endian
        ("uint64", 8, 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF),
        ("int64", 8, 0xFFFF_FFFF_FFFF_FFFF, -1),
        ("int64 equal", 8, 0x8000_0000_0000_0001, 0x8000_0000_0000_0001),  # QEMU's name for the unsigned one
        ("timer", 8, 0xFFFF_FFFF_FFFF_FFFF, -1),  # not armed
        ("float64", 8, 0x3FF0_0000_0000_0000, 0x3FF0_0000_0000_0000),
        ("fpr", 8, 0x3FF0_0000_0000_0000, 0x3FF0_0000_0000_0000),
        ("bool", 1, 1, True),
        ("bool", 1, 0, False),
        ("bool", 1, 2, 2),  # a loader takes it for true; the bytes stay what they are
        ("nullptr", 1, 0x30, 0x30),
        ("cpu/altivec/vscr", 4, 0x10000, 0x10000),
        ("buffer", 3, 0x010203, b"\1\2\3"),
        ("unused_buffer", 2, 0, b"\0\0"),
        ("avr", 16, 1, bytes(15) + b"\1"),
        ("a type nobody knows", 4, 7, b"\0\0\0\7"),
        ("uint32", 3, 7, b"\0\0\7"),  # a size that its type does not have
    ],
)
def test_values(type_: str, size: int, raw: int, value: Any) -> None:
    stream = opened(number("before", "uint8", 1, 1), Field("a", type_, be(raw, size), size), u8("after", 2))
    found = stream.value("toy", "a")
    assert found == value
    assert type(found) is type(value)
    frame = stream.fields().set_index("path")
    assert frame.loc["a", "value"] == value
    assert frame.loc["a", "size"] == size
    assert stream.value("toy", "after") == 2
    assert stream.build() == bytes(stream.source.view)


def test_types_of_several_numbers() -> None:
    slb = Field("slb", "slbe", b"".join(be(n, 8) for n in range(1, 5)), 16, {"array_len": 2})
    irqs = Field("irq_state", "pci irq state", b"".join(be(n, 4) for n in range(4)), 16)
    stream = opened(slb, irqs)
    assert stream.fields().set_index("path")["value"].to_dict() == {
        "slb[0].esid": 1,
        "slb[0].vsid": 2,
        "slb[1].esid": 3,
        "slb[1].vsid": 4,
        "irq_state[0]": 0,
        "irq_state[1]": 1,
        "irq_state[2]": 2,
        "irq_state[3]": 3,
    }


def test_arrays_structs_and_subsections() -> None:
    leaf = [Vmsd("leaf", [u8("x", i), u32("y", i, i + 1)], [Vmsd("leaf/sub", [u8("z", i + 10)])]) for i in range(2)]
    tree = [Vmsd("tree", [struct("leaf", leaf[0]), struct("leaves", *leaf)]) for _ in range(2)]
    stream = opened(struct("tree", *tree), u64("end", 1 << 63), subsections=[Vmsd("toy/sub", [u8("x", 99)])])
    assert stream.value("toy", "tree[1].leaves[1].y[1]") == 2
    assert stream.value("toy", "tree[0].leaf.z") == 10
    assert stream.value("toy", "tree[1].leaves[1].z") == 11
    assert stream.value("toy", "end") == 1 << 63
    assert stream.value("toy", "x") == 99
    frame = stream.fields()
    assert frame.loc[frame["path"] == "tree[1].leaves[1].z", "vmsd"].item() == "leaf/sub"
    assert frame["path"].is_unique
    assert stream.build() == bytes(stream.source.view)


def test_what_describes_less_than_it_wrote_is_a_buffer() -> None:
    # WITH_TMP, QTAILQ and VSTRUCT: only what adds up is taken apart.
    inner = Vmsd("q", [u8("x", 5)])
    tail = Field("list", "qtailq", b"\1\5\1\6\0", 5, inner.json())
    temporary = Field("tmp", "tmp", b"\7", 1, inner.json())
    stream = opened(tail, temporary)
    assert stream.fields().set_index("path")["value"].to_dict() == {"list": b"\1\5\1\6\0", "tmp.x": 7}


def test_a_path_in_several_subsections_must_be_told_apart() -> None:
    stream = opened(u8("n", 0), subsections=[Vmsd("toy/fpu", [u64("vsr", 1, 2)]), Vmsd("toy/vsx", [u64("vsr", 3, 4)])])
    with pytest.raises(KeyError, match="say vmsd=, one of"):
        stream.value("toy", "vsr[1]")
    assert stream.value("toy", "vsr[1]", vmsd="toy/fpu") == 2
    assert stream.value("toy", "vsr[1]", vmsd="toy/vsx") == 4
    with pytest.raises(KeyError, match="no field"):
        stream.value("toy", "vsr[2]", vmsd="toy/vsx")


def test_long_arrays_fold_into_one_row_when_asked() -> None:
    stream = opened(u32("table", *range(2000)), u32("short", 1, 2))
    assert len(stream.fields()) == 2002
    frame = stream.fields(fold=1024)
    assert frame["path"].tolist() == ["table[0:2000]", "short[0]", "short[1]"]
    assert frame["value"][0] == b"".join(be(n, 4) for n in range(2000))
    assert frame["size"].tolist() == [8000, 4, 4]


def test_numbers_come_out_as_they_went_in() -> None:
    rng = np.random.default_rng(1)
    width = rng.choice([1, 2, 4, 8], 500)
    kind = rng.choice([UNSIGNED, SIGNED, BOOL, BYTES], 500).astype(np.uint8)
    offset = np.concatenate([[0], np.cumsum(width)[:-1]])
    data = rng.integers(0, 256, int(width.sum()), dtype=np.uint8)
    words = gather(data, offset, width, kind)
    for i in range(500):
        raw = data[offset[i] : offset[i] + width[i]].tobytes()
        expected = (
            0 if kind[i] == BYTES else int.from_bytes(raw, "big", signed=kind[i] == SIGNED) & 0xFFFF_FFFF_FFFF_FFFF
        )
        assert int(words[i]) == expected
    out = np.zeros_like(data)
    scatter(out, offset, width, kind, words)
    numbers = np.repeat(kind != BYTES, width)
    assert (out[numbers] == data[numbers]).all()
    assert not out[~numbers].any()


def test_an_empty_description_is_a_section_without_bytes() -> None:
    stream = opened()
    assert stream.section("toy").payload_size == 0
    assert len(stream.fields()) == 0
    assert stream.build() == bytes(stream.source.view)


def test_buffers_keep_their_bytes() -> None:
    stream = opened(buffer("a", bytes(range(256))), buffer("none", b""), buffer("b", b"x"))
    assert stream.fields().set_index("path")["value"].to_dict() == {"a": bytes(range(256)), "b": b"x"}
