"""`vt.load`: streams read one after the other, or by the workers of an executor, into a `Collection`."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from typing import Literal

from vmstate_tools.frames.collection import Collection
from vmstate_tools.frames.executors import spread
from vmstate_tools.frames.extract import Extract, extract_batch, failed, share_rows
from vmstate_tools.frames.finding import found_streams
from vmstate_tools.frames.manifest import labels_of
from vmstate_tools.vmstate.decode import Rows

FOLD = 1024
"""Arrays of more values than this are one row of bytes in a frame of many streams: a TCE table has 262,144 entries."""

# Streams decoded together, and read by a worker at once.
_BATCH = 32


def load(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    executor: Executor | None = None,
    errors: Literal["collect", "raise"] = "collect",
    *,
    fields: bool = True,
    fold: int | None = FOLD,
    progress: bool | None = None,
    manifest: str | os.PathLike[str] | None = None,
) -> Collection:
    """Loads many streams into frames.

    Parameters
    ----------
    paths : files, URLs, or directories (a URL that ends in `/`) whose `*.mig*` files are taken. A FIFO is an error.
    executor : any `concurrent.futures.Executor`, of a Dask cluster too (`distributed.Client.get_executor`); its
        workers open the files themselves. Where a worker dies its streams are read again. None reads here.
    errors : 'collect' makes a row of `Collection.errors` of whatever is raised for one file, also where it is a mistake
        of this package; 'raise' raises the first of them as it is.
    fields : False leaves out the fields, for when sections and CPU words are enough.
    fold : arrays of more values than this are one row of bytes; None unfolds everything.
    progress : show a bar; None shows one when there are many streams.
    manifest : the `manifest.csv` that says what the streams are: release, CPU model and so on. Without it a stream has
        the one in its own folder, or the one in the directory that was given; of streams in the package's own
        `data/streams` the one there is used. No other folder is looked into. What is no manifest is a
        `ManifestWarning`.

    Raises
    ------
    StreamError, and whatever was raised for a file : with errors='raise'.
    VmstateError : `manifest` is none.
    """
    if errors not in ("collect", "raise"):
        raise ValueError(f"errors={errors!r}: 'collect' or 'raise'")
    from tqdm.auto import tqdm

    found = list(found_streams(paths))
    files = [file for file, _ in found]
    labels = labels_of(found, manifest)
    work = functools.partial(extract_batch, fold=fold, fields=fields)
    results: Iterator[list[Extract]]
    if executor is None:
        results = (work(files[i : i + _BATCH]) for i in range(0, len(files), _BATCH))
    else:
        results = spread(executor, work, files, _BATCH, lambda file, error: [failed(file, error)])
    extracts: list[Extract] = []
    known: dict[bytes, Rows] = {}
    hidden = len(files) < 20 if progress is None else not progress
    with tqdm(total=len(files), unit="stream", disable=hidden, desc="loading") as bar:
        for batch in results:
            for each in batch:
                if each.error is not None and errors == "raise":
                    raise each.error
                each.labels = labels.get(each.file, {})
            share_rows(batch, known)  # each worker sent its own
            extracts += batch
            bar.update(len(batch))
    return Collection(extracts)
