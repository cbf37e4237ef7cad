"""A collection as a Parquet dataset, for DuckDB, pandas and others to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from vmstate_tools.frames.collection import Collection

TABLES = ("streams", "sections", "fields", "cpu", "errors")

# Streams whose fields are in memory at once; 200 make some 2 million rows.
_TOGETHER = 200


def write(collection: Collection, where: str, shard: int, overwrite: bool) -> None:
    """See `Collection.to_parquet`."""
    import fsspec
    import pyarrow.parquet as pq
    from tqdm.auto import tqdm

    fs, root = fsspec.core.url_to_fs(where)
    folders = {name: f"{root}/{name}/shard={shard}" for name in TABLES}
    there = [folder for folder in folders.values() if fs.exists(folder)]
    if there and not overwrite:
        raise FileExistsError(f"{there[0]} is there already: another shard=, or overwrite=True")
    for folder in there:
        fs.rm(folder, recursive=True)
    pieces = list(collection.pieces(_TOGETHER))
    for number, piece in enumerate(tqdm(pieces, unit="part", desc="writing", disable=len(pieces) < 5)):
        for name, folder in folders.items():
            if name == "fields" and not piece.has_fields:
                continue
            fs.makedirs(folder, exist_ok=True)
            pq.write_table(_table(getattr(piece, name)), f"{folder}/part-{number}.parquet", filesystem=fs)


def _table(frame: pd.DataFrame) -> Any:
    """Categories with codes of one size in all files, so that they are columns of one dataset."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    schema = table.schema
    for i, column in enumerate(schema):
        if pa.types.is_dictionary(column.type):
            schema = schema.set(i, column.with_type(pa.dictionary(pa.int32(), pa.string())))
        elif pa.types.is_null(column.type):
            schema = schema.set(i, column.with_type(pa.string()))
    return table.cast(schema)
