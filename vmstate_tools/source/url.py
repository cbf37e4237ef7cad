"""Streams behind URLs, by fsspec."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20


def read_url(url: str) -> Iterator[tuple[int, bytes]]:
    """Yields (bytes read so far, next bytes) of what a URL names.

    Raises
    ------
    StreamError : fsspec knows no such protocol, lacks its library, or the transfer broke.
    OSError : the file is not there, or may not be read.
    """
    import fsspec  # takes 0.1 s, and most streams are local files

    position = 0
    try:
        with fsspec.open(url, "rb") as file:
            while data := file.read(_CHUNK):
                position += len(data)
                yield position, data
    except OSError as error:
        if error.strerror:
            raise
        # fsspec's HTTP says the URL alone; what happened is the cause.
        raise FileNotFoundError(errno.ENOENT, str(error.__cause__ or "not found"), url) from error
    except Exception as error:  # each protocol's library has its own
        raise StreamError(f"cannot be read: {error}", file=url) from error
