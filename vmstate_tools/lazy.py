"""What takes long to import, imported when it is first used, or in a few lines here: a stream is read without it."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import cached_property as cached_property
    from typing import Any, TypeVar

    T = TypeVar("T")


class Lazy:
    """Stands for a module; what was taken from it once is kept, so that a loop does not pay for it."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        __import__(self.__name__)
        found = getattr(sys.modules[self.__name__], attribute)
        setattr(self, attribute, found)
        return found


if not TYPE_CHECKING:

    class cached_property:  # noqa: N801
        """As of functools."""

        def __init__(self, read: Callable[[Any], Any]) -> None:
            self.read, self.__doc__ = read, read.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: object, owner: type) -> Any:
            if instance is None:
                return self
            found = instance.__dict__[self.name] = self.read(instance)
            return found


_NOTHING = object()


def kept(most: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """As functools.lru_cache; where `most` results are kept, all are dropped."""

    def decorate(read: Callable[..., T]) -> Callable[..., T]:
        results: dict[Any, T] = {}

        def found(*key: Any) -> Any:
            result: Any = results.get(key, _NOTHING)
            if result is _NOTHING:
                result = read(*key)
                if len(results) >= most:
                    results.clear()
                results[key] = result
            return result

        return found

    return decorate
