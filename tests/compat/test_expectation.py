"""Which registered section takes a section of a stream."""

from __future__ import annotations

import pytest

from vmstate_tools.compat.expectation import Entry, Expectation
from vmstate_tools.vmstate.description import Vmsd


@pytest.mark.parametrize(("idstr", "number"), [("i8259", 0xA0), ("mc146818rtc", 0x70), ("e1000", 0)])
def test_sections_under_their_older_names(idstr, number):
    """`find_se`: by the I/O address of an ISA device, and by the name alone of one with a path."""
    vmsd = Vmsd(idstr, 2)
    entries = [Entry("0000:00:03.0/e1000", 0, 2, vmsd), *(Entry(idstr, n, 2, vmsd) for n in (0, 1) if idstr != "e1000")]
    expectation = Expectation()
    expectation.add(entries)
    found = expectation.find(idstr, number)
    assert found is entries[{0xA0: 2, 0x70: 1, 0: 0}[number]]
    assert expectation.find(idstr, 7) is None
