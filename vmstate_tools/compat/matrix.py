"""Many streams against many destinations."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vmstate_tools.compat.destination import Destination
from vmstate_tools.compat.load import check
from vmstate_tools.compat.policy import Policy, named
from vmstate_tools.compat.verdict import Verdict
from vmstate_tools.errors import StreamError, VmstateError, plain_text
from vmstate_tools.facts.model_names import one_spelling
from vmstate_tools.stream.stream import Stream, open_stream

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd

_FIRST = ("stage", "section", "instance_id", "field", "kind", "stream_value", "destination_value")


_COLUMNS = [
    *("stream", "destination", "release", "machine", "cpu", "accel", "policy", "loads"),
    *_FIRST,
    *("obstacles", "message", "error"),
]
_TYPES = {
    **dict.fromkeys(["stream", "destination", "machine", "cpu", "accel", "stage", "section", "kind"], "category"),
    **dict.fromkeys(["instance_id", "obstacles"], "Int64"),
    **dict.fromkeys(["policy", "field", "message", "error"], "str"),
    "loads": "boolean",
}


def matrix(
    streams: Iterable[Stream | str | os.PathLike[str]],
    destinations: Destination | str | Iterable[Destination | str],
    policy: Policy | str | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Returns the verdict on every pair of a stream and a destination, a row each, streams outermost.

    Parameters
    ----------
    streams : opened streams, or paths; with an executor, paths.
    destinations : destinations, or releases ("2.7.0"), which then take each stream's machine type and CPU.
    policy : as for `check`.
    executor : any `concurrent.futures.Executor`, of a Dask cluster too; streams are spread over it. Where a worker
        dies its streams are done again.
    progress : whether a bar is shown on stderr.

    Returns
    -------
    Columns stream, destination, machine, cpu, accel (category), release (ordered category: 2.6 before 2.10); policy;
    loads (boolean, NA where the stream could not be read); of the first obstacle stage, section, kind (category),
    instance_id (Int64), field, stream_value, destination_value (object: int, bytes or str as in the stream); obstacles
    (Int64, number of them), message, error.

    Raises
    ------
    KeyError : there is no policy of that name.
    CatalogError : QEMU never had such a release.
    """
    given = [destinations] if isinstance(destinations, (Destination, str)) else list(destinations)
    targets = [Destination(release=d) if isinstance(d, str) else d for d in given]
    policy = named(policy)
    if executor is None:
        return _frame(_here(list(streams), targets, policy, progress))
    paths = [os.fspath(s.name if isinstance(s, Stream) else s) for s in streams]
    return _frame(_spread(executor, paths, targets, policy, progress))


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    from vmstate_tools.frames.releases import release_column

    # Of object, so that 64-bit words beside rows without one do not become floats.
    frame = pd.DataFrame(list(rows), columns=_COLUMNS, dtype=object)
    return frame.assign(release=release_column(frame["release"])).astype(_TYPES)


def _here(
    streams: Sequence[Stream | str | os.PathLike[str]],
    targets: Sequence[Destination],
    policy: Policy | None,
    progress: bool,
) -> Iterator[dict[str, Any]]:
    """Yields the rows, worked out in this process."""
    from tqdm.auto import tqdm

    for stream in tqdm(streams, unit="stream", disable=not progress):
        yield from _row_of(stream, targets, policy)


def _spread(
    executor: Executor, paths: list[str], targets: Sequence[Destination], policy: Policy | None, progress: bool
) -> Iterator[dict[str, Any]]:
    """Yields the rows, worked out by an executor's workers."""
    from tqdm.auto import tqdm

    from vmstate_tools.frames.executors import spread

    size = max(1, min(64, len(paths) // 16))
    work = functools.partial(_rows_of, targets=targets, policy=policy)
    unread = functools.partial(_unread, targets=targets)
    with tqdm(total=len(paths) * len(targets), unit="verdict", disable=not progress) as bar:
        for done in spread(executor, work, paths, size, unread):
            bar.update(len(done))
            yield from done


def _rows_of(paths: Sequence[str], targets: Sequence[Destination], policy: Policy | None) -> list[dict[str, Any]]:
    return [row for path in paths for row in _row_of(path, targets, policy)]


def _row_of(
    stream: Stream | str | os.PathLike[str], targets: Sequence[Destination], policy: Policy | None
) -> list[dict[str, Any]]:
    if not isinstance(stream, Stream):
        try:
            with open_stream(stream) as opened:
                return _row_of(opened, targets, policy)
        except Exception as err:
            return _unread(os.fspath(stream), err, targets)
    rows = []
    for destination in targets:
        completed = destination.for_stream(stream)
        row = {"stream": plain_text(stream.name), **_who(completed)}
        try:
            rows.append(row | _verdict(check(stream, completed, policy)))
        except StreamError as err:
            rows.append(row | {"error": str(err)})
    return rows


def _unread(stream: str, error: Exception, targets: Sequence[Destination]) -> list[dict[str, Any]]:
    """Returns the rows of a stream for which this was raised. Raises what is to blame on the destinations."""
    if isinstance(error, StreamError | OSError):
        text = str(error)
    elif isinstance(error, VmstateError):
        raise error
    else:
        text = f"{stream}: {type(error).__name__}: {error}"
    return [{"stream": plain_text(stream), **_who(d), "error": plain_text(text)} for d in targets]


def _who(destination: Destination) -> dict[str, Any]:
    cpu = one_spelling(destination.cpu) if destination.cpu else destination.cpu
    names = ("release", "machine", "accel")
    return {"destination": destination.name, "cpu": cpu, **{n: getattr(destination, n) for n in names}}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    first = verdict.first
    row: dict[str, Any] = {"policy": verdict.policy, "loads": verdict.loads, "obstacles": len(verdict.reasons)}
    if first is not None:
        row |= {name: getattr(first, name) for name in _FIRST} | {"message": first.message}
    return row
