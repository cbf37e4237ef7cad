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
            yield from ((file, None) for file in _listed(name))
        elif "://" not in name and os.path.isdir(name):  # noqa: PTH112 - Path raises for names that are too long
            yield from ((file, name) for file in sorted(map(str, Path(name).rglob("*"))) if file.endswith(SUFFIXES))
        else:
            yield name, None


def _listed(url: str) -> list[str]:
    """Returns the streams below a URL; the URL itself where it cannot be listed, for whoever opens it to say why."""
    import fsspec

    try:
        fs, folder = fsspec.core.url_to_fs(url)
        return sorted(file for file in map(fs.unstrip_protocol, fs.find(folder)) if file.endswith(SUFFIXES))
    except Exception:
        return [url]
