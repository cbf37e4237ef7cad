"""The stream files that paths, directories and URLs name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

PathLike = str | os.PathLike[str]

SUFFIXES = (".mig", ".mig.zst", ".mig.gz", ".mig.xz", ".mig.bz2", ".mig.lz4")
"""What the name of a file in a directory must end with for the file to be taken for a stream."""


def find_streams(paths: PathLike | Iterable[PathLike]) -> list[str]:
    """Returns the stream files that `paths` names.

    A directory, or a URL that ends in `/`, stands for the files below it whose names end with one of `SUFFIXES`, in the
    order of their names.
    """
    return [file for file, _ in found_streams(paths)]


def found_streams(paths: PathLike | Iterable[PathLike]) -> Iterator[tuple[str, str | None]]:
    """Yields each of `find_streams` with the directory given for it; None where the file itself was given."""
    for path in [paths] if isinstance(paths, (str, bytes, os.PathLike)) else paths:
        name = os.fsdecode(path)
        if "://" in name and name.endswith("/"):
            import fsspec

            fs, folder = fsspec.core.url_to_fs(name)
            yield from ((file, None) for file in sorted(map(fs.unstrip_protocol, fs.find(folder))) if _is_stream(file))
        elif "://" not in name and Path(name).is_dir():
            yield from ((file, name) for file in sorted(map(str, Path(name).rglob("*"))) if _is_stream(file))
        else:
            yield name, None


def _is_stream(name: str) -> bool:
    return name.endswith(SUFFIXES)
