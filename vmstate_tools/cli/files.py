"""Streams that a command is given, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import VmstateError
from vmstate_tools.show.text import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, TypeVar

    from vmstate_tools.stream.stream import Stream

    T = TypeVar("T")


def open_file(file: str, opening: Mapping[str, Any]) -> Stream:
    """Open a stream and say what stopped its reading."""
    from vmstate_tools.stream.stream import open_stream

    stream = open_stream(file, **opening)
    if stream.error:
        complain(f"warning: {stream.error}")
    return stream


def over(files: Sequence[str], opening: Mapping[str, Any], work: Callable[[Stream], T]) -> tuple[list[T], int]:
    """`work` done on every stream, and the exit code: 2 where some, told on stderr, cannot be read."""
    results, code = [], 0
    progress: Iterable[str] = files
    if len(files) >= 20:
        from tqdm.auto import tqdm

        progress = tqdm(files, unit="stream", disable=None)
    for file in progress:
        try:
            with open_file(file, opening) as stream:
                results.append(work(stream))
        except BrokenPipeError:
            raise
        except (VmstateError, OSError) as err:
            complain(err)
            code = 2
    return results, code
