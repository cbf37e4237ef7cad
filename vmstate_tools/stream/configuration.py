"""The configuration section: the machine type, and what is said of the migration before any device is read.

Facts: `migration/savevm.c`, `vmstate_configuration`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError
from vmstate_tools.format import framing

if TYPE_CHECKING:
    from typing import Any


def read_head(view: memoryview, offset: int, found: dict[str, Any]) -> framing.Parsed:
    """Returns the record that stands at `offset`, and puts the machine type into `found`. Raises StreamError."""
    record = framing.parse(framing.CONFIGURATION, view, offset, "a configuration section")
    found["name"] = framing.name(record.value.name)
    return record


def read_subsection(view: memoryview, offset: int, found: dict[str, Any]) -> framing.Parsed:
    """Returns the subsection at `offset`, and puts `page_bits`, `capabilities` or `uuid` into `found`.

    Raises StreamError where the subsection is unknown, or the page size none that a target has.
    """
    header = framing.parse(framing.SUBSECTION_HEADER, view, offset, "a subsection of the configuration")
    name = framing.name(header.value.name)
    fmt = framing.CONFIGURATION_SUBSECTIONS.get(header.value.name)
    if fmt is None:
        raise StreamError(
            f"unknown subsection {name!r}",
            offset=offset,
            section="configuration",
            expected=f"one of {[framing.name(n) for n in framing.CONFIGURATION_SUBSECTIONS]}",
        )
    record = framing.parse(fmt, view, offset, f"subsection {name}")
    values = record.value
    if "page_bits" in values and not 8 <= values.page_bits <= 30:
        raise StreamError(
            f"{values.page_bits} target page bits",
            offset=offset,
            section="configuration",
            expected="between 8 and 30",
        )
    found.update((key, values[key]) for key in ("page_bits", "uuid") if key in values)
    if "capabilities" in values:
        found["capabilities"] = [framing.name(each) for each in values.capabilities]
    return record
