"""A collection as a Parquet dataset, for DuckDB, pandas and others to read."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vmstate_tools.source.new_file import new_file, new_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

TABLES = ("streams", "sections", "fields", "cpu", "errors")

# Streams whose fields are in memory at once; 200 make some 2 million rows.
_TOGETHER = 200


class Frames(Protocol):
    """A collection, as far as it is asked here; it has a frame by each name in `TABLES`."""

    @property
    def has_fields(self) -> bool: ...

    @property
    def streams(self) -> pd.DataFrame: ...

    def pieces(self, size: int) -> Iterator[Frames]: ...


def write(collection: Frames, where: str, shard: int, overwrite: bool) -> None:
    """Writes a collection's frames as Parquet datasets: see `Collection.to_parquet`."""
    import fsspec
    import pyarrow.parquet as pq
    from fsspec.implementations.local import LocalFileSystem

    fs, root = fsspec.core.url_to_fs(where)
    folders = {name: f"{root}/{name}/shard={shard}" for name in TABLES}
    there = [folder for folder in folders.values() if fs.exists(folder)]
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} is there already: another shard=, or overwrite=True")
    if isinstance(fs, LocalFileSystem):
        _write_here(collection, folders, overwrite)
        return
    for folder in there:
        fs.rm(folder, recursive=True)
    for number, name, table in _parts(collection):
        fs.makedirs(folders[name], exist_ok=True)
        pq.write_table(table, f"{folders[name]}/part-{number}.parquet", filesystem=fs)


def _write_here(collection: Frames, folders: dict[str, str], overwrite: bool) -> None:
    """Writes into folders of this machine, each of which has its name only when all of its parts are complete."""
    import pyarrow.parquet as pq

    inputs = list(collection.streams["file"])
    made: list[Path] = []
    under_way: dict[str, str] = {}
    try:
        with contextlib.ExitStack() as stack:
            for number, name, table in _parts(collection):
                if name not in under_way:
                    made += _make(Path(folders[name]).parent)
                    under_way[name] = stack.enter_context(new_folder(folders[name], overwrite=overwrite))
                part = f"{under_way[name]}/part-{number}.parquet"
                with new_file(part, inputs=inputs, guest_memory=True) as file:
                    pq.write_table(table, file)
        if overwrite:  # what an earlier run had, and this one has not
            for name in folders.keys() - under_way.keys():
                shutil.rmtree(folders[name], ignore_errors=True)
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # not ours alone any more
                folder.rmdir()
        raise


def _make(folder: Path) -> list[Path]:
    """Makes a folder and the folders above it; returns what was not there, outermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()][::-1]
    for each in missing:
        each.mkdir(exist_ok=True)
    return missing


def _parts(collection: Frames) -> Iterator[tuple[int, str, Any]]:
    """Yields the tables piece by piece: number of the piece, name, Arrow table."""
    from tqdm.auto import tqdm

    pieces = list(collection.pieces(_TOGETHER))
    for number, piece in enumerate(tqdm(pieces, unit="part", desc="writing", disable=len(pieces) < 5)):
        for name in TABLES:
            if name != "fields" or piece.has_fields:
                yield number, name, _table(getattr(piece, name))


def _table(frame: pd.DataFrame) -> Any:
    """Returns a frame as an Arrow table; categories have codes of one size in all files, which make one dataset."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    schema = table.schema
    for i, column in enumerate(schema):
        if pa.types.is_dictionary(column.type):
            schema = schema.set(i, column.with_type(pa.dictionary(pa.int32(), pa.string())))
        elif pa.types.is_null(column.type):
            schema = schema.set(i, column.with_type(pa.string()))
    return table.cast(schema)
