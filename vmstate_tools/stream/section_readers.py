"""What finds the end of a section's payload and what it consists of: readers that are tried one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vmstate_tools.errors import StreamError
from vmstate_tools.format.sections import handwritten
from vmstate_tools.format.shared_limit import SharedLimit
from vmstate_tools.vmstate.builtin import resolve
from vmstate_tools.vmstate.description import MAX_LEAVES, Description, StreamDescription, built_in
from vmstate_tools.vmstate.layout import check_subsections, layout_of
from vmstate_tools.vmstate.null_pointers import with_holes

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmstate_tools.stream.ram import Ram
    from vmstate_tools.stream.records import Section
    from vmstate_tools.stream.section_end import SectionEnds

_MOST_BORROWED = 8  # descriptions of one section that are tried
_MOST_HOLES = 1 << 16  # elements of pointer arrays that are looked at for NULLs
_MOST_GUESSES = 1 << 18  # fields of built-in layouts that are looked at in vain


class Readers(Protocol):
    """Readers are what a walk asks to read a section's payload."""

    def read(self, section: Section, view: memoryview, start: int) -> int:
        """Returns the end of the payload that stands at `start`. Raises StreamError, TruncatedError if `view` ends."""

    @property
    def done_to(self) -> int:
        """Returns how far a payload that was cut short is read for good: the next `read` goes on there."""


class SectionReaders:
    """The readers for a stream that is there as a whole.

    Parameters
    ----------
    ends : how sections of this stream end.
    ram : gives the RAM state when the first RAM section comes.
    own, borrowed : the stream's description, and the one of another stream that may serve where it has none.
    release : gives the least release that can have written the stream, None where nothing is known.
    most_values : how many values sections that QEMU writes by hand may have, all together.
    """

    def __init__(
        self,
        ends: SectionEnds,
        ram: Callable[[], Ram],
        own: StreamDescription | None,
        borrowed: StreamDescription | None,
        release: Callable[[], str | None],
        most_values: int = 1 << 62,
    ) -> None:
        self._ends = ends
        self._ram_state = ram
        self._release = release
        self._own = {key: found[::-1] for key, found in own.by_section().items()} if own else {}
        self._borrowed = borrowed.by_section() if borrowed else {}
        self._states: dict[tuple[str, int], dict[str, Any]] = {}  # of handwritten sections
        self._holes = SharedLimit(_MOST_HOLES)
        self._guesses = SharedLimit(_MOST_GUESSES)
        self._leaves = SharedLimit(MAX_LEAVES)
        self._most_values = most_values
        self._values = SharedLimit(most_values)

    @property
    def done_to(self) -> int:
        """Returns 0: nothing is to come behind a stream that is there as a whole."""
        return 0

    def describes(self, section: Section) -> bool:
        """Tells whether the stream's description has an entry for one more section like this."""
        return bool(self._own.get((section.idstr, section.instance_id)))

    def read(self, section: Section, view: memoryview, start: int) -> int:
        """Returns the end of the payload at `start`; says in `section` what read it."""
        key = (section.idstr, section.instance_id)
        own = self._own[key].pop() if section.part == "full" and self._own.get(key) else None
        for reader in (self._ram, self._handwritten, self._described, self._lent, self._built_in):
            end = reader(section, own, view, start)
            if end is not None:
                return end
        section.how = "opaque"
        end, section.bounded_by = self._ends.of_opaque(view, section.section_id, start)
        return end

    def _fits(self, section: Section, view: memoryview) -> Callable[[int], bool]:
        return lambda end: self._ends.fits(view, section.section_id, end)

    # -- the readers: each returns the end, or None where it does not read the section ---------------------------

    def _ram(self, section: Section, own: Description | None, view: memoryview, start: int) -> int | None:
        if section.idstr != "ram":
            return None
        if section.part == "full":
            raise StreamError("the RAM in one piece", offset=section.offset, expected="its start, parts and end")
        section.how = "ram"
        return self._ram_state().parse(start, part=section.part)

    def _handwritten(self, section: Section, own: Description | None, view: memoryview, start: int) -> int | None:
        if not handwritten.known(section.idstr) or not (own is None or own.opaque):
            return None
        try:
            end, leaves = handwritten.parse(
                section.idstr,
                view,
                start,
                part=section.part,
                version_id=section.version_id,
                state=self._states.setdefault((section.idstr, section.instance_id), {}),
                limit=self._values,
            )
        except StreamError:
            if not self._values.left:
                raise StreamError(
                    "too many values in sections that QEMU writes by hand",
                    offset=start,
                    expected=f"at most {self._most_values} in a file of this size",
                ) from None
            # A version this reader does not know: what describes or bounds the section serves.
            if section.part != "full":
                raise
            return None
        if not self._fits(section, view)(end) or (own is not None and end != start + own.vmsd.size):
            return None
        if not self._leaves.take(len(leaves)):  # too many to give one by one
            payload = bytes(view[start:end])
            leaves = [handwritten.Leaf("data", "buffer", start, end - start, payload)]
        section.how, section.leaves, section.description = "handwritten", leaves, own
        return end

    def _described(self, section: Section, own: Description | None, view: memoryview, start: int) -> int | None:
        if own is None:
            return None
        fitting = self._fitting(section, own, view, start)
        if fitting is None:
            size, left = own.vmsd.size, len(view) - start
            raise StreamError(
                f"its description claims {size} bytes, {left} are left"
                if size > left
                else f"{size} bytes described, then no end of a section",
                offset=min(start + size, len(view)),
                expected="a description that fits the bytes",
            )
        section.how, section.description = "vmdesc", fitting
        return start + fitting.vmsd.size

    def _lent(self, section: Section, own: Description | None, view: memoryview, start: int) -> int | None:
        if section.part != "full":
            return None
        for device in self._borrowed.get((section.idstr, section.instance_id), ())[:_MOST_BORROWED]:
            fitting = self._fitting(section, device, view, start)
            if fitting is not None and _has_subsections(fitting, view, start):
                section.how, section.description = "borrowed", fitting
                return start + fitting.vmsd.size
        return None

    def _built_in(self, section: Section, own: Description | None, view: memoryview, start: int) -> int | None:
        if section.part != "full":
            return None
        found = resolve(
            section.idstr,
            section.version_id,
            view,
            start,
            plausible_end=self._fits(section, view),
            release=self._release(),
            budget=self._guesses,
            instance_id=section.instance_id,
        )
        if found is None:
            return None
        section.how, section.description = "built-in", built_in(found)
        return start + section.description.vmsd.size

    def _fitting(self, section: Section, description: Description, view: memoryview, start: int) -> Description | None:
        """Returns the description if the section ends where it says, with NULLs put where the bytes have them."""
        fits = self._fits(section, view)
        if fits(start + description.vmsd.size):
            return description
        return with_holes(description, view, start, fits, self._holes)


def _has_subsections(description: Description, view: memoryview, start: int) -> bool:
    """Tells whether the subsections stand where a description that is not the stream's own puts them."""
    try:
        check_subsections(layout_of(description, len(view) - start), view, start)
    except StreamError:
        return False
    return True
