from __future__ import annotations

import pytest
from handmade import device, field, section, stream

import vmstate_tools as vt
from vmstate_tools.errors import StreamError


def test_a_reference_that_cannot_be_laid_out_says_which_file_and_section() -> None:
    struct = {"vmsd_name": "s", "version": 1, "fields": [field("a", "uint32", 4)]}
    data = stream([section("dev", bytes(37))], [device("dev", [field("s", "struct", 37, struct=struct)])])
    with vt.open(data, partial=True) as reference, pytest.raises(StreamError, match="37 bytes") as caught:
        vt.Destination.from_stream(reference)
    assert (caught.value.file, caught.value.section) == (reference.name, "dev/0")
