from __future__ import annotations

import construct as c
import pytest

from vmstate_tools.errors import StreamError
from vmstate_tools.source.parsing import Counted8, Counted32, Format, parse

FIELDS = ("type" / c.Const(7, c.Int8ub), "name" / Counted8, "number" / c.Int32ub)
BYTES = b"\x07\x03abc\x00\x00\x01\x00"
VALUES = {"name": b"abc", "number": 256}


@pytest.fixture(params=[False, True], ids=["interpreted", "compiled"])
def record(request: pytest.FixtureRequest) -> Format:
    return Format("thing", *FIELDS, longest=64, compiled=request.param)


def test_one_statement_parses_and_builds(record: Format) -> None:
    parsed = parse(record, memoryview(b"??" + BYTES + b"more"), 2, "a thing")
    assert {key: parsed.value[key] for key in VALUES} == VALUES
    assert (parsed.offset, parsed.size, parsed.end) == (2, len(BYTES), 2 + len(BYTES))
    assert parsed.build() == record.build(VALUES) == BYTES


@pytest.mark.parametrize("size", range(len(BYTES)))
def test_every_cut_is_an_error_that_says_where(record: Format, size: int) -> None:
    with pytest.raises(StreamError, match="ends inside a record; expected a thing") as caught:
        parse(record, memoryview(b"??" + BYTES[:size]), 2, "a thing")
    assert caught.value.offset == 2


def test_another_byte_than_the_format_has(record: Format) -> None:
    with pytest.raises(StreamError, match="found 0x08; expected a thing"):
        parse(record, memoryview(b"\x08" + BYTES[1:]), 0, "a thing")


def test_what_does_not_fit_its_field_cannot_be_built(record: Format) -> None:
    for wrong in (
        {"number": 1 << 32},
        {"number": -1},
        {"number": "1"},
        {"name": b"x" * 256},
    ):
        with pytest.raises(StreamError, match="thing cannot be built"):
            record.build(VALUES | wrong)
    with pytest.raises(StreamError, match="thing cannot be built"):
        record.build({"name": b"abc"})


def test_a_length_that_reaches_past_the_longest_is_not_read() -> None:
    record = Format("text", "text" / Counted32, longest=100)
    with pytest.raises(StreamError, match="a length that cannot be"):
        parse(record, memoryview(b"\x00\x00\x00\x61" + bytes(1000)), 0, "a text")
    assert parse(record, memoryview(b"\x00\x00\x00\x60" + bytes(1000)), 0, "a text").size == 100
