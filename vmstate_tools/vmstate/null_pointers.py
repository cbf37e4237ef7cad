"""Arrays of pointers with NULL holes, which a vmdesc before 10.0 describes as if all elements were like the first.

Each NULL went out as one byte, '0' (`migration/vmstate.c: vmstate_save_state_v`, since 2.9, commit 07d4e69147);
since 10.0 (commit 35049eb0d2) the vmdesc tells the holes apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.format.shared_limit import SharedLimit
from vmstate_tools.vmstate.description import Description, FieldDescription, Vmsd

if TYPE_CHECKING:
    from collections.abc import Callable

NULL = ord("0")

# What an element is where the first one is NULL, so that the vmdesc cannot say: (vmsd, field) -> element.
# hw/s390x/css.c: vmstate_css_img and vmstate_chp_info, as vmdescs of 10.0 and later spell them out.
_ELEMENTS = {
    ("s390_css", "css"): Vmsd(
        "s390_css_img",
        1,
        (
            FieldDescription(
                "chpids",
                "struct",
                3,
                256,
                struct=Vmsd(
                    "s390_chp_info",
                    1,
                    tuple(FieldDescription(name, "uint8", 1) for name in ("in_use", "type", "is_virtual")),
                ),
            ),
        ),
    ),
}


def with_holes(
    description: Description, view: memoryview, start: int, fits: Callable[[int], bool], budget: SharedLimit
) -> Description | None:
    """Returns the description with the NULLs of one pointer array put where the bytes have them.

    Tried for each array of structs until the section, standing at `start`, ends where `fits` says it may.
    None where no array explains the bytes, or `budget`, in elements, is spent.
    """
    vmsd = description.vmsd
    offset = start
    for i, field in enumerate(vmsd.fields):
        size = field.size * (1 if field.count is None else field.count)
        if field.struct is not None and field.count is not None:
            element = field.struct if field.struct.fields else _ELEMENTS.get((vmsd.name, field.name))
            if element is not None and element.size and budget.take(field.count):
                elements = _elements(field, element, view, offset)
                if fits(start + vmsd.size - size + sum(e.size for e in elements)):
                    holed = Vmsd(
                        vmsd.name,
                        vmsd.version_id,
                        (*vmsd.fields[:i], *elements, *vmsd.fields[i + 1 :]),
                        vmsd.subsections,
                        vmsd.minimum_version_id,
                        vmsd.wire_name,
                    )
                    return Description(description.idstr, description.instance_id, holed, description.origin)
        offset += size
    return None


def _elements(field: FieldDescription, element: Vmsd, view: memoryview, offset: int) -> list[FieldDescription]:
    fields: list[FieldDescription] = []
    size = element.size
    for i in range(field.count or 0):
        if offset >= len(view):
            break
        if view[offset] == NULL:
            fields.append(FieldDescription(field.name, "nullptr", 1, None, i))
        else:
            fields.append(FieldDescription(field.name, "struct", size, None, i, element))
        offset += fields[-1].size
    return fields
