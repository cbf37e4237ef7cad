from __future__ import annotations

import pytest
from handmade import device, field, section, stream

import vmstate_tools as vt
from vmstate_tools.compat import from_stream
from vmstate_tools.errors import StreamError


def test_a_reference_that_cannot_be_laid_out_says_which_file_and_section(monkeypatch: pytest.MonkeyPatch) -> None:
    """A description can claim what its fields have not, and still end where the section does."""

    def refuse(*_: object) -> None:
        raise StreamError("struct s is said to have 37 bytes")

    monkeypatch.setattr(from_stream, "layout_of", refuse)
    data = stream([section("dev", bytes(4))], [device("dev", [field("a", "uint32", 4)])])
    with vt.open(data) as reference, pytest.raises(StreamError, match="37 bytes") as caught:
        vt.Destination.from_stream(reference)
    assert (caught.value.file, caught.value.section) == (reference.name, "dev/0")
