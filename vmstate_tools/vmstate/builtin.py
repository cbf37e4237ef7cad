"""Built-in descriptions, for streams that carry none: QEMU 1.6 to 2.2, suppress-vmdesc, machine types up to 2.2.

`data/layouts/observed.json` has every shape that a VMStateDescription had in streams that describe themselves;
`source.json` has shapes that only other releases write, read from QEMU's source. A shape (variant) is one list of
fields, as a vmdesc has them, with these additions:

- `struct` names another VMStateDescription;
- `array_len`, `elements` (of an array described element by element) or `size` may name the earlier field that holds the
  number (`field/4096`: a part of it);
- `when` names the earlier field without which, when it is zero, this one is not sent;
- `releases` are the ones that the variant was seen in, or the first and the last that have it.

The wire does not say which variant a section has: `resolve` reads the bytes with one after another, oldest first, until
the section ends where a section can end.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from vmstate_tools.data import data_path
from vmstate_tools.errors import StreamError
from vmstate_tools.format.framing import SUBSECTION_HEADER, Record
from vmstate_tools.format.shared_limit import SharedLimit
from vmstate_tools.release import numbers as numbers_of
from vmstate_tools.vmstate.description import read_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

# A section has a handful of variants at most, and few of them nest; noise must not be tried for ever.
_MAX_TRIES = 512
_MAX_DEPTH = 16
# piix4_pm with its 256 memory slots looks at 6,363 until it fits: the most of all sections in real streams.
_MAX_FIELDS = 1 << 17

INTEGER = re.compile(r"u?int(8|16|32|64)\b")


def resolve(
    idstr: str,
    version_id: int,
    view: memoryview,
    offset: int,
    *,
    plausible_end: Callable[[int], bool],
    release: str | None = None,
    instance_id: int = 0,
    budget: SharedLimit | None = None,
) -> dict[str, Any] | None:
    """Returns what a section consists of, in the form of its entry in a vmdesc.

    Parameters
    ----------
    idstr, version_id, instance_id : from the section's header.
    view, offset : the stream as bytes, and where the section's payload begins.
    plausible_end : may the payload end at this offset? True only where its footer, or what may follow a section
        (another section's header, the end of the stream), is to be seen.
    release : the QEMU release that wrote it, if known (`2.6.0`), or the least it can be. Variants seen in it, and
        then later ones, are tried first; of two that differ in names only, nothing else can tell.
    budget : fields that may be looked at in vain, in all sections of a stream.

    Returns
    -------
    A dict `name, instance_id, vmsd_name, version, fields, subsections` as in a vmdesc, with the sizes and numbers
    of elements that these bytes have; or None where no variant fits.
    """
    name = _vmsd_name(idstr)
    if name is None:
        return None
    # Elements of one array are alike in nearly every device: only when that fails is each looked at for itself.
    budget = budget or SharedLimit(_MAX_FIELDS)
    left = most = min(_MAX_FIELDS, budget.left)
    for each in (False, True):
        plan: list[int] = []
        for _ in range(_MAX_TRIES):
            if left <= 0:
                budget.left -= most
                return None
            reading = _Reading(view, plan, release, each, left)
            try:
                vmsd, end = reading.vmsd(name, version_id, offset)
                if plausible_end(end):
                    budget.left -= max(0, most - reading.left - (end - offset))
                    return {"name": idstr, "instance_id": instance_id, **vmsd}
            except _MisfitError:
                pass
            left = reading.left
            del plan[len(reading.choices) :]
            while plan and plan[-1] + 1 == reading.choices[len(plan) - 1]:
                plan.pop()
            if not plan:
                break
            plan[-1] += 1
    budget.left -= most - left
    return None


def least_release(machine: str | None) -> str | None:
    """Returns the first release that had a versioned machine type (`pseries-2.6`): a stream of it is not older."""
    match = re.search(r"-(\d{1,9}\.\d{1,9})(-sxxm)?$", machine or "", re.ASCII)
    return match[1] if match else None


class _MisfitError(Exception):
    """The bytes are not of the variants chosen."""


class _Reading:
    """An attempt: `plan` says which variant to take at each choice, in the order in which choices come up.

    `choices` are the numbers of variants there were. The same place in the tree has the same variant; `each`:
    the elements of an array are places of their own. `left`: how many more fields may be looked at.
    """

    def __init__(self, view: memoryview, plan: list[int], release: str | None, each: bool, left: int) -> None:
        self.view = view
        self.plan = plan
        self.release = release
        self.each = each
        self.left = left
        self.choices: list[int] = []
        self.chosen: dict[tuple[object, ...], dict[str, Any]] = {}
        self.likely: dict[str, int] = {}  # the last choice for a VMStateDescription is the best for its next
        self.path: list[object] = []
        self.stack: list[str] = []

    def vmsd(self, name: str, version_id: int | None, offset: int) -> tuple[dict[str, Any], int]:
        """Returns the description of what stands at `offset`, and where it ends."""
        variant = self.variant(name, version_id)
        self.stack.append(name)
        if len(self.stack) > _MAX_DEPTH:
            self.misfit()
        fields: list[dict[str, Any]] = []
        numbers: dict[str, int] = {}
        for field in variant["fields"]:
            offset = self.field(field, offset, numbers, fields)
        entry: dict[str, Any] = {"vmsd_name": name, "version": variant["version"], "fields": fields}
        offset = self.subsections(name, offset, entry)
        self.stack.pop()
        return entry, offset

    def variant(self, name: str, version_id: int | None) -> dict[str, Any]:
        variants = _variants(name, version_id, self.release, name in self.stack)
        if not variants:
            self.misfit()
        if len(variants) == 1:
            return variants[0]
        place = (*self.path, name)
        if place not in self.chosen:
            if len(self.choices) == len(self.plan):
                self.plan.append(0)
            # Choice 0 is the likely variant, the others follow in turn.
            choice = (self.likely.get(name, 0) + self.plan[len(self.choices)]) % len(variants)
            self.choices.append(len(variants))
            self.likely[name] = choice
            self.chosen[place] = variants[choice]
        return self.chosen[place]

    def field(self, field: dict[str, Any], offset: int, numbers: dict[str, int], fields: list[dict[str, Any]]) -> int:
        """Appends what `field` is here to `fields`, and returns where it ends."""
        if "when" in field and not numbers.get(field["when"]):
            return offset
        count = number_of(field.get("elements", field.get("array_len")), numbers)
        size = number_of(field.get("size"), numbers)
        if count is not None and not 0 <= count <= len(self.view) - offset:
            self.misfit()
        if count == 0:  # a vmdesc has nothing for no elements
            return offset
        base = {"name": field["name"], "type": field["type"]}
        if "elements" in field:
            return self.elements(field, base, count or 1, size, offset, fields)
        if count is not None and not (count == 1 and isinstance(field["array_len"], str)):
            base["array_len"] = count
        end = self.element(field, base, size, offset)
        base["size"] = end - offset
        end = offset + base["size"] * (1 if count is None else count)
        if end > len(self.view):
            self.misfit()
        fields.append(base)
        self.check(field["type"], offset, end)
        if count is None and INTEGER.match(field["type"]):
            numbers[field["name"]] = int.from_bytes(self.view[offset:end], "big")
        return end

    def elements(
        self,
        field: dict[str, Any],
        base: dict[str, Any],
        count: int,
        size: int | None,
        offset: int,
        fields: list[dict[str, Any]],
    ) -> int:
        """Appends an array that is described element by element; one of length 1 does not show that."""
        for index in range(count):
            alone = count == 1 and "index" not in field
            entry = dict(base) if alone else base | {"index": index + field.get("index", 0)}
            self.path.append(index if self.each else 0)
            end = self.element(field, entry, size, offset)
            self.path.pop()
            fields.append(entry | {"size": end - offset})
            offset = end
        return offset

    def element(self, field: dict[str, Any], entry: dict[str, Any], size: int | None, offset: int) -> int:
        self.left -= 1
        if self.left <= 0:
            self.misfit()
        if "struct" in field:
            self.path.append(field["name"])
            entry["struct"], end = self.vmsd(field["struct"], None, offset)
            self.path.pop()
        else:
            assert size is not None
            end = offset + size
        if end > len(self.view):
            self.misfit()
        return end

    def check(self, type_: str, offset: int, end: int) -> None:
        """Refuses values that no writer writes: they tell variants of the same size apart."""
        greatest = {"unused_buffer": 0, "bool": 1}.get(type_)
        if greatest is not None and max(self.view[offset:end], default=0) > greatest:
            self.misfit()

    def subsections(self, name: str, offset: int, entry: dict[str, Any]) -> int:
        """Reads the subsections that follow, by QEMU's rule (migration/vmstate.c: `vmstate_subsection_load`)."""
        found = []
        while offset < len(self.view) and self.view[offset] == Record.SUBSECTION:
            try:
                header, end = SUBSECTION_HEADER.read(self.view, offset, "a subsection")
            except StreamError:
                break
            if len(header.name) <= len(name) or not header.name.startswith(name.encode()):
                break
            subsection, offset = self.vmsd(header.name.decode("latin-1"), header.version_id, end)
            found.append(subsection)
        if found:
            entry["subsections"] = found
        return offset

    def misfit(self) -> NoReturn:
        raise _MisfitError


def number_of(given: int | str | None, numbers: dict[str, int]) -> int | None:
    """Returns a number as a layout gives it: itself, `field`, or `field/divisor`."""
    if not isinstance(given, str):
        return given
    name, _, divisor = given.partition("/")
    return numbers.get(name, 0) // int(divisor or 1)


@functools.cache
def _library() -> dict[str, list[dict[str, Any]]]:
    """Returns the variants of each VMStateDescription, from the oldest release to the newest."""
    library: dict[str, list[dict[str, Any]]] = {}
    for file in ("source.json", "observed.json"):
        for name, variants in read_json(data_path("layouts", file).read_bytes()).items():
            library.setdefault(name, []).extend(variants)
    for variants in library.values():
        variants.sort(key=lambda variant: numbers_of(variant["releases"][0]))
    return library


@functools.lru_cache(maxsize=4096)
def _variants(name: str, version_id: int | None, release: str | None, nested: bool) -> list[dict[str, Any]]:
    """Returns variants of a VMStateDescription that fit its version, the likeliest first; a struct has no version.

    Some devices wrap a VMStateDescription in another of its name (ISA: fdc, serial): `nested` leaves those out.
    """
    found = [
        variant
        for variant in _library().get(name, ())
        if version_id in (None, variant["version"])
        and not (nested and any(field.get("struct") == name for field in variant["fields"]))
    ]
    if release is not None:
        wanted = numbers_of(release)
        found.sort(key=lambda variant: (release not in variant["releases"], _distance(wanted, variant["releases"])))
    return found


def _distance(wanted: tuple[int, ...], releases: list[str]) -> int:
    """Returns 0 where `wanted` lies between the releases of a variant, 1 where they are later, 2 where earlier."""
    if wanted < numbers_of(releases[0]):
        return 1
    return 2 if wanted > numbers_of(releases[-1]) else 0


@functools.lru_cache(maxsize=4096)
def _vmsd_name(idstr: str) -> str | None:
    """Returns the VMStateDescription of a section: its idstr is that name, mostly behind the device's bus path."""
    while idstr not in _library():
        _, slash, idstr = idstr.partition("/")
        if not slash:
            return None
    return idstr
