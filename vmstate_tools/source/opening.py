"""Opens what a user names: a path, a URL, standard input, bytes, an open file."""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from vmstate_tools.errors import StreamError
from vmstate_tools.source.containers import unwrap
from vmstate_tools.source.content import Content, collect
from vmstate_tools.source.limits import Clock
from vmstate_tools.source.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

_CHUNK = 1 << 20


def open_source(
    where: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    snapshot: str | None = None,
    max_size: int | None = None,
    partial: bool = False,
    channel: bool = False,
) -> Source:
    """Finds the migration stream in whatever holds it.

    Parameters
    ----------
    where : a path, `-` for standard input, a URL, bytes, or an open binary file (read from where it stands). What
        exists as a file is that file, also where its name looks like a URL (`memory::x.mig`); a file named `-` is
        `./-`.
    snapshot : which snapshot of a qcow2 image, by name or id; needed where several hold a VM's state.
    max_size : most bytes to unpack; naming it also lifts the other limits on what is unpacked (`limits`).
    channel : accept a further connection of a migration, too.
    partial : open what there is of a file cut short or damaged; `damage` holds what ended it.

    Raises
    ------
    StreamError : empty, damaged, not a migration stream, or unpacking to more than the limits.
    OSError : the file is not there or cannot be read.
    """
    name, content, clock = _outermost(where, max_size)
    source = Source(name, content)
    try:
        unwrap(source, clock, snapshot=snapshot, max_size=max_size, partial=partial, channel=channel)
    except BaseException:
        source.close()
        raise
    return source


def _outermost(where: Any, max_size: int | None) -> tuple[str, Content, Clock]:
    """Returns the name and content of what the user named, and the time that unpacking it may take."""
    if isinstance(where, (bytes, bytearray, memoryview)):
        return "<bytes>", Content(bytes(where)), Clock(memoryview(where).nbytes)
    if hasattr(where, "read"):
        return _collected(str(getattr(where, "name", "<file>")), read_file(where), max_size)
    name = os.fsdecode(where)
    if name == "-":
        return _collected(name, read_file(sys.stdin.buffer), max_size)
    if "\0" in name:
        raise StreamError("a NUL byte in a file's name", file=name, expected="a path, a URL or -")
    if not os.path.lexists(name):
        if name.startswith("file://"):
            return _local(unquote(urlsplit(name).path), name, max_size)
        if names_protocol(name):
            from vmstate_tools.source.url import read_url

            return _collected(name, read_url(name), max_size)
    return _local(name, name, max_size)


def names_protocol(name: str) -> bool:
    """Tells whether `name` begins with a protocol of fsspec (`http://…`), or a chain of them (`simplecache::…`)."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)(://|::)", name)
    if found is None:
        return False
    if found[2] == "://":
        return True
    import fsspec

    return found[1] in fsspec.available_protocols()


def _local(path: str, name: str, max_size: int | None) -> tuple[str, Content, Clock]:
    file = open(path, "rb")  # noqa: SIM115
    try:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            return name, Content.of_file(file, name, status.st_size), Clock(status.st_size)
        found = _collected(name, read_file(file), max_size)
        file.close()
    except BaseException:
        file.close()
        raise
    return found


def _collected(name: str, pieces: Iterator[tuple[int, bytes]], max_size: int | None) -> tuple[str, Content, Clock]:
    """Returns the same of what can be read only once, from its beginning to its end."""
    content = collect(pieces, name, max_size, Clock(None))
    return name, content, Clock(len(content.view))


def read_file(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields (bytes read so far, next bytes) of an open file, from where it stands."""
    position = 0
    while data := file.read(_CHUNK):
        position += len(data)
        yield position, data
