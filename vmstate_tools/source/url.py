"""Streams behind URLs, by fsspec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmstate_tools.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_CHUNK = 1 << 20


def is_url(where: str) -> bool:
    """Whether `where` names a protocol (`http://…`), or a chain of them (`simplecache::s3://…`)."""
    if ":" not in where:
        return False
    import re

    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)", where) is not None


def read_url(url: str) -> Iterator[tuple[int, bytes]]:
    """Yield (bytes read so far, next bytes) of what a URL names.

    Raises
    ------
    StreamError : fsspec knows no such protocol, lacks its library, or the transfer broke.
    OSError : the file is not there, or may not be read.
    """
    import errno

    import fsspec

    try:
        with fsspec.open(url, "rb") as file:
            yield from read_file(file)
    except StreamError:
        raise
    except OSError as error:
        if error.strerror:
            raise
        # fsspec's HTTP says the URL alone; what happened is the cause.
        raise FileNotFoundError(errno.ENOENT, str(error.__cause__ or "not found"), url) from error
    except Exception as error:  # each protocol's library has its own
        raise StreamError(f"cannot be read: {error}", file=url) from error


def read_file(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (bytes read so far, next bytes) of an open file, from where it stands."""
    position = 0
    while data := file.read(_CHUNK):
        position += len(data)
        yield position, data
