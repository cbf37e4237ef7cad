"""Objects that are equal where their values are, as those of a namedtuple, whose classes take long to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, ClassVar, Self


class Valued:
    """`_fields` are the names of the values, which the class takes by keyword. Not to be changed."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()

    @property
    def _given(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self._fields])

    def __eq__(self, other: object) -> bool:
        return self._given == other._given if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._given)

    def _replace(self, **changes: Any) -> Self:
        """As of a namedtuple."""
        return type(self)(**dict(zip(self._fields, self._given, strict=True)) | changes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._given))})"
