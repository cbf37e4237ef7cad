"""Streams that a command is given: opened one after another, each with its own complaint where it cannot be read."""

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
    """Opens a stream; where its reading stopped early (`--partial`), a warning on stderr says why."""
    from vmstate_tools.stream.stream import open_stream

    stream = open_stream(file, **opening)
    if stream.error:
        complain(f"warning: {stream.error}")
    return stream


def each_stream(files: Sequence[str], opening: Mapping[str, Any], work: Callable[[Stream], T]) -> tuple[list[T], int]:
    """Returns what `work` makes of every stream, and an exit code: 2 where some could not be read.

    A file that cannot be read, whatever is raised for it, is a line on stderr and does not keep the next one from
    being read.
    """
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
        except Exception as err:
            known = isinstance(err, (VmstateError, OSError))
            complain(err if known else f"{file}: {type(err).__name__}: {err}")
            code = 2
    return results, code
