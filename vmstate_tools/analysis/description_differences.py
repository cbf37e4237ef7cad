"""Where two descriptions differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from vmstate_tools.analysis.difference import Difference
from vmstate_tools.vmstate.description import Description, FieldDescription, StreamDescription, Vmsd


def of_stream_descriptions(a: StreamDescription, b: StreamDescription) -> Iterator[Difference]:
    """Yields where the descriptions in two streams differ."""
    if a.page_size != b.page_size:
        yield Difference("", None, "", "page_size", "value", a.page_size, b.page_size)
    theirs = b.by_section()
    for key, devices in a.by_section().items():
        for one, two in itertools.zip_longest(devices, theirs.pop(key, [])):
            if two is None:
                yield Difference(*key, one.vmsd.name, "", "only in a", a=f"version {one.vmsd.version_id}")
            elif one is None:
                yield Difference(*key, two.vmsd.name, "", "only in b", b=f"version {two.vmsd.version_id}")
            else:
                yield from of_vmsds(one, one.vmsd, two.vmsd)
    for key, devices in theirs.items():
        for two in devices:
            yield Difference(*key, two.vmsd.name, "", "only in b", b=f"version {two.vmsd.version_id}")


def of_vmsds(device: Description, a: Vmsd, b: Vmsd, where: str = "") -> Iterator[Difference]:
    """Yields where two descriptions of a device, or parts of them below `where`, differ."""
    who = (device.idstr, device.instance_id, b.name)
    here = where.rstrip(".")
    if a.name != b.name:
        yield Difference(*who, here, "name", a.name, b.name)
    if a.version_id != b.version_id:
        yield Difference(*who, here, "version", a.version_id, b.version_id)
    theirs = _by_label(b)
    for key, one in _by_label(a).items():
        two = theirs.pop(key, None)
        path = where + one.label
        if two is None:
            yield Difference(*who, path, "only in a", a=_say(one))
            continue
        if one.type != two.type:
            yield Difference(*who, path, "type", one.type, two.type)
        if (one.size, one.count) != (two.size, two.count):
            yield Difference(*who, path, "size", _extent(one), _extent(two))
        if one.struct and two.struct and one.struct is not two.struct:
            yield from of_vmsds(device, one.struct, two.struct, f"{path}.")
    for two in theirs.values():
        yield Difference(*who, where + two.label, "only in b", b=_say(two))
    others = {s.name: s for s in b.subsections}
    for sub in a.subsections:
        if sub.name in others:
            yield from of_vmsds(device, sub, others.pop(sub.name), where)
        else:
            yield Difference(*who[:2], sub.name, here, "subsection only in a", a=f"version {sub.version_id}")
    for sub in others.values():
        yield Difference(*who[:2], sub.name, here, "subsection only in b", b=f"version {sub.version_id}")


def _by_label(vmsd: Vmsd) -> dict[tuple[str, int], FieldDescription]:
    """Returns fields by label, and a number where a label occurs again."""
    found: dict[tuple[str, int], FieldDescription] = {}
    for field in vmsd.fields:
        nth = 0
        while (field.label, nth) in found:
            nth += 1
        found[field.label, nth] = field
    return found


def _extent(field: FieldDescription) -> str:
    """Returns a field's size, and how many elements it has, as text."""
    return f"{field.size} bytes" if field.count is None else f"{field.count} × {field.size} bytes"


def _say(field: FieldDescription) -> str:
    """Returns a field's type and extent, as text."""
    return f"{field.type}, {_extent(field)}"
